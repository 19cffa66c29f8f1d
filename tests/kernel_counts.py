"""What the CUDA kernels of a call do, in the terms of the cost model (bench/model.py): as the emulator's race
build counts it, and as the model predicts it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cuda_on_cpu.device import Device

from equiconv.bench.model import NOTHING, Count, Launch


def counted(race: Device, run: Callable[[], object]) -> dict[str, Count]:
    """By kernel, without template arguments; bytes are those of the sectors asked for."""
    kernels: dict[str, Count] = {}
    for line in race.accesses(run):
        count = Count(wavefronts=line.units)
        if line.memory == "global":
            count = Count(**{f"{line.kind}s": 32 * line.units})
        name = line.kernel.partition("<")[0]
        kernels[name] = kernels.get(name, NOTHING) + count
    return kernels


def predicted(launches: Iterable[Launch]) -> dict[str, Count]:
    kernels: dict[str, Count] = {}
    for launch in launches:
        kernels[launch.kernel] = kernels.get(launch.kernel, NOTHING) + launch.count
    return kernels
