"""How the CUDA kernels touch memory, counted warp by warp as tests/cuda_on_cpu runs them: wavefronts of
shared memory and 32-byte sectors of global memory, against the fewest that hold the bytes."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable

import pytest
from cuda_on_cpu import build, checks
from cuda_on_cpu.checks import Allowance, Call
from cuda_on_cpu.device import Accesses, Device
from cuda_on_cpu.fft_conv_cases import Case
from cuda_on_cpu.test_coverage import in_sources

CEILINGS = {"shared": 1.15, "global": 1.1}  # times ideal: of every kernel, and of every line of weight in it
WEIGHT = 0.01  # of a kernel's wavefronts or sectors; a lighter line counts in the kernel's sum only

CALLS = [(op, call) for op in checks.OPS for call in checks.of(op).accesses]
ALLOWANCES = [(op, allowance) for op in checks.OPS for allowance in checks.of(op).allowances]


def over_the_ceiling(call: Call, rows: Iterable[Accesses], allowances: list[Allowance]) -> list[str]:
    """A sentence for each kernel, and for each line of weight, that takes more than it may."""
    parts: dict[tuple[str, str], dict[str, tuple[int, int]]] = defaultdict(dict)
    for row in rows:
        lines = parts[row.kernel, row.memory]
        for at in ("all lines", row.at):
            units, ideal = lines.get(at, (0, 0))
            lines[at] = units + row.units, ideal + row.ideal
    sentences = []
    for (kernel, memory), lines in parts.items():
        allowed = [a.ceiling for a in allowances
                   if a.memory == memory and re.match(a.kernels, kernel) and a.when(call)]  # fmt: skip
        ceiling = max([CEILINGS[memory], *allowed])
        for at, (units, ideal) in lines.items():
            if units > ceiling * ideal and units >= WEIGHT * lines["all lines"][0]:
                what = "wavefronts" if memory == "shared" else "sectors"
                sentences.append(
                    f"{kernel}, {at}: {units} {what} of {memory} memory, "
                    f"ideal {ideal}, ceiling {ceiling * ideal:.0f}"
                )
    return sentences


@functools.cache
def device() -> Device:
    try:
        return Device(build.library("race"), "race")
    except build.Unavailable as missing:
        pytest.skip(str(missing))


@functools.cache
def accesses(call: Call) -> tuple[Accesses, ...]:
    race = device()
    return tuple(race.accesses(lambda: call.run(race)))


@pytest.mark.parametrize(("op", "call"), CALLS, ids=str)
def test_no_kernel_is_over_its_ceiling(op: str, call: Call) -> None:
    found = over_the_ceiling(call, accesses(call), checks.of(op).allowances)
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(("op", "allowance"), ALLOWANCES, ids=lambda value: getattr(value, "reason", value))
def test_every_allowance_is_needed(op: str, allowance: Allowance) -> None:
    others = [a for a in checks.of(op).allowances if a is not allowance]
    needing = (call for of, call in CALLS if of == op and allowance.when(call))
    assert any(over_the_ceiling(call, accesses(call), others) for call in needing)


def test_every_kernel_is_counted() -> None:
    counted = {row.kernel.partition("<")[0] for _, call in CALLS for row in accesses(call)}
    assert in_sources()
    assert in_sources() <= counted


def test_a_kernel_over_its_ceiling_is_named() -> None:
    good = Accesses("convolve<float>", "a.cuh:1", "shared", "load", 8, 1000, 2000, 2000)
    bad = Accesses("convolve<float>", "a.cuh:2", "shared", "store", 8, 100, 400, 200)
    light = Accesses("convolve<float>", "a.cuh:3", "shared", "store", 8, 1, 4, 1)
    assert over_the_ceiling(Case(32), [good, light], []) == []
    assert over_the_ceiling(Case(32), [good, bad, light], []) == [
        "convolve<float>, a.cuh:2: 400 wavefronts of shared memory, ideal 200, ceiling 230",
    ]
    allowance = Allowance("convolve", "shared", 2.0, lambda case: case.length == 32, "for this test")
    assert over_the_ceiling(Case(32), [good, bad, light], [allowance]) == []
    assert over_the_ceiling(Case(64), [good, bad, light], [allowance]) != []
