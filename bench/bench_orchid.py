"""The whole Orchid mixer against the same mixer in eager PyTorch with torch.fft.

    python -m equiconv bench --preset orchid

Time, and the peak of memory beyond what there is before the first step, measured in a process of its own.
What is promised is promised of two threads.

    python -m equiconv.bench.bench_orchid equiconv backward II 4096

prints that peak of one contestant, in bytes.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

import equiconv
from equiconv.reference import orchid as reference

from .harness import DIRECTIONS, DTYPES, Case, Entry, Inputs, Op, Results, ratio, step
from .promises import Point, Promise

MIXERS: dict[str, Callable[..., nn.Module]] = {"equiconv": equiconv.nn.Orchid, "eager": reference.Orchid}
CHANNELS = 256
POSITIONS = 2**14  # B · L: past the caches


@dataclass(frozen=True, kw_only=True)
class OrchidCase(Case):
    op: str = "orchid"
    mode: str = "circular"
    layout: str = "bld"
    conditioning: str

    projections: bool = True  # whether the two Linears before and behind are part of it

    settings: ClassVar[tuple[str, ...]] = (
        "op",
        "direction",
        "conditioning",
        "projections",
        "dtype",
        "device",
    )


def case(length: int, conditioning: str, direction: str, *, projections: bool = True) -> OrchidCase:
    return OrchidCase(
        length=length,
        batch=max(1, POSITIONS // length),
        channels=CHANNELS,
        conditioning=conditioning,
        direction=direction,
        projections=projections,
    )


@functools.cache
def mixer(kind: str, channels: int, length: int, conditioning: str) -> nn.Module:
    torch.manual_seed(0)
    return MIXERS[kind](channels, length, conditioning=conditioning)


def inputs(case: Case) -> Inputs:
    """x, (B, L, 3D) where there are no projections, and the parameters by their names."""
    assert isinstance(case, OrchidCase)
    module = mixer("equiconv", case.channels, case.length, case.conditioning)
    width = case.channels if case.projections else 3 * case.channels
    x = torch.randn(case.batch, case.length, width, generator=torch.Generator().manual_seed(0))
    tensors = {"x": x}
    for name, parameter in module.named_parameters():
        if case.projections or "_linear" not in name:
            tensors[name] = parameter.detach().clone()
    return {name: tensor.to(case.device, DTYPES[case.dtype]) for name, tensor in tensors.items()}


class Mix(nn.Module):
    """A mixer without its projections."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, z: Tensor) -> Tensor:
        y: Tensor = self.mixer.mix(z)  # type: ignore[operator]
        return y


def contestant(kind: str) -> Callable[..., Tensor]:
    def run(x: Tensor, *, conditioning: str, projections: bool, **parameters: Tensor) -> Tensor:
        channels = x.shape[2] if projections else x.shape[2] // 3
        module = mixer(kind, channels, x.shape[1], conditioning)
        if not projections:
            parameters = {f"mixer.{name}": tensor for name, tensor in parameters.items()}
        y: Tensor = functional_call(module if projections else Mix(module), parameters, (x,))
        return y

    return run


def options(case: Case) -> dict[str, Any]:
    assert isinstance(case, OrchidCase)
    return {"conditioning": case.conditioning, "projections": case.projections}


ORCHID = Op(
    name="orchid",
    inputs=inputs,
    options=options,
    contestants={kind: contestant(kind) for kind in MIXERS},
    reference=contestant("eager"),
)

# ---- the promises ------------------------------------------------------------------------------------------

THREADS = 2
LENGTHS = (1024, 4096, 16384)
TYPES = ("I", "II")


def faster_than_eager(direction: str, projections: bool) -> Callable[[Results], Iterator[Point]]:
    def points(results: Results) -> Iterator[Point]:
        for conditioning in TYPES:
            for length in LENGTHS:
                at = case(length, conditioning, direction, projections=projections)
                yield ratio(results, at, "eager"), at

    return points


def memory(direction: str) -> Callable[[Results], Iterator[Point]]:
    def points(results: Results) -> Iterator[Point]:
        for conditioning in TYPES:
            for length in LENGTHS:
                ours, theirs = (peak_of(kind, direction, conditioning, length) for kind in MIXERS)
                yield ours / theirs, case(length, conditioning, direction)

    return points


PROMISES = (
    Promise("forward: 4 times as fast as eager", 4.0, faster_than_eager("forward", True), True),
    Promise("forward and backward: 4 times as fast", 4.0, faster_than_eager("backward", True), True),
    Promise("without the projections, forward", 4.0, faster_than_eager("forward", False), True),
    Promise("without the projections, forward and backward", 4.0, faster_than_eager("backward", False), True),
    Promise("forward: half of the memory of eager", 0.5, memory("forward"), False),
    Promise("forward and backward: half of the memory of eager", 0.5, memory("backward"), False),
)


def groups() -> list[list[Entry]]:
    """What is to be timed; each group takes turns."""
    return [
        [Entry(case(length, conditioning, direction, projections=projections), kind) for kind in MIXERS]
        for direction in DIRECTIONS
        for projections in (True, False)
        for conditioning in TYPES
        for length in LENGTHS
    ]


# ---- memory, in a process of its own -----------------------------------------------------------------------


def peak_of(kind: str, direction: str, conditioning: str, length: int) -> int:
    setting = [kind, direction, conditioning, str(length)]
    command = [sys.executable, "-m", "equiconv.bench.bench_orchid", *setting]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak(kind: str, direction: str, conditioning: str, length: int) -> int:
    """The most bytes that the process holds in its first steps, beyond parameters and what is given."""
    torch.set_num_threads(THREADS)
    at = case(length, conditioning, direction)
    tensors = inputs(at)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    step(ORCHID.contestant(kind), tensors, options(at), direction)()
    return status("VmHWM") - before


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    print(peak(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
