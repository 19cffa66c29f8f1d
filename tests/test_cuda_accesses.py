"""How the CUDA kernels touch memory, counted warp by warp as tests/cuda_on_cpu runs them: wavefronts of
shared memory and 32-byte sectors of global memory, against the fewest that hold the bytes."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest
from cuda_on_cpu import build
from cuda_on_cpu.cases import Case
from cuda_on_cpu.device import Accesses, Device

CEILINGS = {"shared": 1.15, "global": 1.1}  # times ideal: of every kernel, and of every line of weight in it
WEIGHT = 0.01  # of a kernel's wavefronts or sectors; a lighter line counts in the kernel's sum only

TYPES = ("float32", "float64", "bfloat16")

# The filter's gradient of a batch of two is a sum in two parts, that of a batch of one is stored at once.
CASES = [
    *(Case(n, batch=b, channels=32, layout=layout, stored=t)
      for n, b in ((32, 1), (128, 2)) for layout in ("bdl", "bld") for t in TYPES),
    *(Case(1024, channels=8, layout=layout, stored=t) for layout in ("bdl", "bld") for t in TYPES),
    *(Case(4096, batch=1, channels=2, stored=t) for t in TYPES),
    *(Case(n, batch=1, channels=1) for n in (8192, 16384)),
    *(Case(32768, batch=1, channels=1, stored=t) for t in TYPES),
    Case(20000, batch=1, channels=8, layout="bld", stored="bfloat16"),
    *(Case(n, batch=1, mode=mode) for n in (100, 1001) for mode in ("bidirectional", "circular")),
]  # fmt: skip


@dataclass(frozen=True)
class Allowance:
    """A higher ceiling, where it is the caller's data or a choice that has its reason."""

    kernels: str  # a regular expression
    memory: str
    ceiling: float
    when: Callable[[Case], bool]
    reason: str


ALLOWANCES = [
    Allowance("con|cor|columns", "global", 16.1, lambda case: case.layout == "bld",
              "positions of (B, L, D) are D apart and a block has few rows: L2 keeps the rest for others"),
    Allowance("con|cor", "global", 1.35, lambda case: case.length % 8 != 0,
              "rows of odd length start anywhere in a sector"),
    Allowance("con|cor", "global", 2.0, lambda case: case.length <= 128 and case.mode != "causal",
              "a short row's taps, eight to a row, start anywhere in a sector"),
    Allowance("con|cor", "shared", 2.0, lambda case: case.length <= 128,
              "16 bytes a thread of several short rows meet in the banks"),
    Allowance("con|cor", "shared", 2.0, lambda case: case.stored == "float64",
              "16 bytes a thread are two numbers: every second thread meets another in the banks"),
    Allowance("cor", "shared", 2.0, lambda case: case.mode != "causal",
              "taps of the filter's gradient are read from the middle of the ring on, across the padding"),
]  # fmt: skip


def over_the_ceiling(case: Case, rows: Iterable[Accesses], allowances: list[Allowance]) -> list[str]:
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
                   if a.memory == memory and re.match(a.kernels, kernel) and a.when(case)]  # fmt: skip
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
def accesses(case: Case) -> tuple[Accesses, ...]:
    race = device()
    race.report()
    race.schedule("forward")
    case.run(race)
    rows = tuple(race.memory_table())
    assert race.report() == ""
    return rows


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_kernel_is_over_its_ceiling(case: Case) -> None:
    found = over_the_ceiling(case, accesses(case), ALLOWANCES)
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("allowance", ALLOWANCES, ids=lambda allowance: allowance.reason)
def test_every_allowance_is_needed(allowance: Allowance) -> None:
    others = [a for a in ALLOWANCES if a is not allowance]
    needing = (case for case in CASES if allowance.when(case))
    assert any(over_the_ceiling(case, accesses(case), others) for case in needing)


def test_every_kernel_is_counted() -> None:
    cases = [case for case in CASES if case.length in (128, 32768) and case.stored == "float32"]
    counted = {row.kernel.partition("<")[0] for case in cases for row in accesses(case)}
    sources = [path.read_text() for path in build.KERNELS.glob("*.cu*")]
    kernels = {name for text in sources for name in re.findall(r"__global__[^;{]*?(\w+)\(const ", text)}
    assert kernels
    assert kernels <= counted


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
