"""What an op's CUDA kernels have to do, counted from the sizes alone, and how long at least that takes.

    python -m equiconv bench --model h200

For every launch: bytes asked of the L2 cache, in sectors of 32; bytes that must come from or go to memory,
each tensor once a launch; wavefronts of shared memory; arithmetic instructions, a fused multiply-add being
one; what tensor cores multiply and add. Each over its rate is a time; the longest of them, and the launch,
is the launch's floor.

model_<op>.py follows the op's launchers. tests/test_model*.py hold its counts against those of the kernels
themselves, run on a CPU, so neither can change alone.

Left out: integer instructions, sines and cosines, and that a GPU is never full from the first block to the
last. What a block reads twice is taken to come from the L2
cache both times: where the L1 cache has it still, a run may pass the L2 term. All else is a floor.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

KIB, MIB, GIGA, TERA = 2**10, 2**20, 1e9, 1e12


@dataclass(frozen=True)
class Device:
    """Rates a second that are reached, not those of a data sheet; `clock` is that of steady work."""

    name: str
    multiprocessors: int
    clock: float
    memory: float  # bytes
    l2: float  # bytes
    float32: float  # operations, a fused multiply-add being two
    float64: float
    bfloat16: float  # of tensor cores, float16 alike
    l2_bytes: int
    block_shared: int  # bytes a block can have
    launch: float = 2e-6  # seconds from one kernel to the next
    wavefront: int = 128  # bytes a clock and multiprocessor, of shared memory

    @property
    def wavefronts(self) -> float:
        return self.multiprocessors * self.clock


DEVICES = {
    "h200": Device(
        "H200",
        132,
        1.75 * GIGA,
        memory=4.3 * TERA,
        l2=5.5 * TERA,
        float32=60 * TERA,
        float64=30 * TERA,
        bfloat16=790 * TERA,
        l2_bytes=50 * MIB,
        block_shared=227 * KIB,
    ),
    "h100": Device(
        "H100",
        132,
        1.75 * GIGA,
        memory=3.0 * TERA,
        l2=5.5 * TERA,
        float32=60 * TERA,
        float64=30 * TERA,
        bfloat16=790 * TERA,
        l2_bytes=50 * MIB,
        block_shared=227 * KIB,
    ),
    "a100": Device(
        "A100",
        108,
        1.35 * GIGA,
        memory=1.8 * TERA,
        l2=4.0 * TERA,
        float32=19 * TERA,
        float64=9.5 * TERA,
        bfloat16=270 * TERA,
        l2_bytes=40 * MIB,
        block_shared=163 * KIB,
    ),
}


@dataclass(frozen=True)
class Count:
    loads: float = 0  # bytes asked of the L2 cache
    stores: float = 0
    wavefronts: float = 0  # of shared memory
    operations: float = 0  # arithmetic instructions of a thread
    products: float = 0  # multiply-adds of tensor cores, those of tf32 twice

    def __add__(self, other: Count) -> Count:
        return Count(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Count:
        return Count(*(a * times for a in astuple(self)))


NOTHING = Count()


def sectors(elements: float, item: int, run: int) -> float:
    """Bytes of the sectors that hold `elements`, asked for in runs of so many neighbours."""
    return elements / run * math.ceil(run * item / 32) * 32


@dataclass(frozen=True)
class Launch:
    kernel: str
    blocks: int
    threads: int
    count: Count
    memory: float  # bytes

    def terms(self, device: Device, real: int) -> dict[str, float]:
        """Seconds, by what they are spent on."""
        rate = device.float64 if real == 8 else device.float32
        return {
            "memory": self.memory / device.memory,
            "L2": (self.count.loads + self.count.stores) / device.l2,
            "shared": self.count.wavefronts / device.wavefronts,
            "arithmetic": 2 * self.count.operations / rate,
            "tensor cores": 2 * self.count.products / device.bfloat16,
        }


@dataclass(frozen=True)
class Prediction:
    device: Device
    launches: tuple[Launch, ...]
    real: int  # bytes of a number while it is computed with
    least: float = 0  # seconds that any kernels would take; 0 where nobody has said

    @property
    def floor(self) -> float:
        """Seconds: every launch takes its longest term."""
        return sum(
            max(launch.terms(self.device, self.real).values()) + self.device.launch
            for launch in self.launches
        )

    @property
    def terms(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for launch in self.launches:
            for name, seconds in launch.terms(self.device, self.real).items():
                total[name] = total.get(name, 0) + seconds
        return total | {"launches": len(self.launches) * self.device.launch}

    @property
    def binds(self) -> str:
        terms = self.terms
        return max(terms, key=lambda name: terms[name])

    @property
    def count(self) -> Count:
        return sum((launch.count for launch in self.launches), NOTHING)

    @property
    def memory(self) -> float:
        return sum(launch.memory for launch in self.launches)
