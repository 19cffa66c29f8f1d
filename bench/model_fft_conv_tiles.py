"""Parts of model_fft_conv: a call, and what a block does for the rows or columns that it has."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .harness import Case
from .model import NOTHING, Count, sectors

GRADIENTS = frozenset(("x", "filter", "pre_gate", "post_gate", "skip"))
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
GROUP = 16  # points a thread takes at a time


@dataclass(frozen=True)
class Call:
    """One call of fft_conv: what the launchers are given."""

    batch: int
    channels: int
    length: int
    taps: int
    mode: str = "causal"
    shared: bool = False
    layout: str = "bdl"
    dtype: str = "float32"
    filter_dtype: str = ""  # "": as dtype
    pre_gate: bool = True
    post_gate: bool = True
    skip: bool = True
    wanted: frozenset[str] = GRADIENTS  # of a backward call

    @staticmethod
    def of(case: Case) -> Call:
        """The call that a benchmark's case makes."""
        taps = 2 * case.length - 1 if case.mode == "bidirectional" else case.length
        return Call(
            case.batch, case.channels, case.length, taps, case.mode, case.filter == "shared",
            case.layout, case.dtype, pre_gate=case.gates, post_gate=case.gates,
        )  # fmt: skip

    @property
    def rows(self) -> int:
        return self.batch * self.channels

    @property
    def item(self) -> int:
        return BYTES[self.dtype]

    @property
    def filter_item(self) -> int:
        return BYTES[self.filter_dtype or self.dtype]

    @property
    def real(self) -> int:
        """Bytes of a number while it is computed with."""
        return 8 if self.dtype == "float64" else 4

    @property
    def signal_bytes(self) -> int:
        return self.rows * self.length * self.item

    @property
    def filter_bytes(self) -> int:
        return (self.channels if self.shared else self.rows) * self.taps * self.filter_item

    @property
    def wide(self) -> bool:
        """Signals are read and written 16 bytes at a time; contiguous, as a benchmark's tensors are."""
        return self.layout == "bdl" and is_wide(self.item, self.length)

    def wants(self, name: str) -> bool:
        return name in self.wanted and getattr(self, name, True)


def is_wide(item: int, count: int) -> bool:
    return item * count % 16 == 0


# ---- a block's transforms (csrc/cuda/ring_transform.cuh) ---------------------------------------------------


def factors_of(levels: int) -> int:
    """Instructions from the two factors in the table to all that four levels need."""
    return 8 + 4 * (levels > 2) + 12 * (levels > 3)


def split(levels: int) -> int:
    return 48 * levels + factors_of(levels)


def merge(levels: int) -> int:
    return 64 * levels + factors_of(levels)


@dataclass(frozen=True)
class Ring:
    log_n: int
    real: int
    log_rows: int = 0
    rows_fastest: bool = False

    @property
    def n(self) -> int:
        return 1 << self.log_n

    @property
    def rows(self) -> int:
        return 1 << self.log_rows

    @property
    def groups(self) -> int:
        return 1 << (self.log_n + self.log_rows - 4)

    @property
    def threads(self) -> int:
        return min(self.groups, 2048 // self.real)

    @property
    def levels(self) -> list[int]:
        """Of each pass."""
        return [(self.log_n - 1) % 4 + 1] + [4] * ((self.log_n + 3) // 4 - 1)

    @property
    def factors(self) -> int:
        depths = [sum(self.levels[:i]) for i in range(len(self.levels))]
        return sum(1 << depth for depth in depths)

    @property
    def shared_bytes(self) -> int:
        stride = padded = self.n + (self.n >> 4)
        if self.rows_fastest:
            lanes = 128 // (2 * self.real)
            stride = (padded + 15) // 16 * 16 + (lanes // self.rows if self.rows < lanes else 1)
        return 2 * self.real * (stride * self.rows + 2 * self.factors)

    @property
    def spectrum_bytes(self) -> int:
        return 2 * self.real * self.n * self.rows

    @property
    def touch(self) -> Count:
        """Every thread reads or writes one complex number in shared memory, for all groups."""
        return Count(wavefronts=math.ceil(self.groups * 2 * self.real / 128))

    def fill_factors(self) -> Count:
        return Count(wavefronts=2 * sum(math.ceil((1 << sum(self.levels[:i])) * 2 * self.real / 128)
                                        for i in range(len(self.levels))))  # fmt: skip

    def _passes(self, operations: int, accesses: int) -> Count:
        return self.touch * accesses + Count(operations=operations * self.groups)

    def forward(self) -> Count:
        """From what was loaded to what is to be finished."""
        moves = 2 * GROUP * (len(self.levels) - 1)
        return self._passes(sum(map(split, self.levels)), 2 * len(self.levels) + moves)

    def begin_inverse(self) -> Count:
        return self._passes(merge(4), 2 + GROUP)

    def inverse(self) -> Count:
        """From what was begun to what is to be stored."""
        others = self.levels[:-1]
        return self._passes(sum(map(merge, others)), (2 + 2 * GROUP) * len(others) - GROUP)

    def every_point(self, operations: int) -> Count:
        return Count(operations=operations * GROUP * self.groups)


# ---- rows and where they lie (csrc/cuda/fft_conv_tensors.cuh) ----------------------------------------------


@dataclass(frozen=True)
class Lanes:
    """How many neighbouring elements a warp asks for at a time."""

    signal: int
    filter: int
    workspace: int


@dataclass(frozen=True)
class Tile:
    """A block's rows, `existing` of them; or a block's columns, each a part of a row."""

    call: Call
    ring: Ring
    lanes: Lanes
    existing: float  # rows' worth of elements
    whole: bool = False  # rows go by way of shared memory, 16 bytes at a time if they are wide

    def load(self, tensors: int) -> Count:
        elements = tensors * self.existing * self.call.length
        return Count(loads=sectors(elements, self.call.item, self.lanes.signal))

    def store(self, tensors: int) -> Count:
        elements = tensors * self.existing * self.call.length
        return Count(stores=sectors(elements, self.call.item, self.lanes.signal))

    def _between(self, wide: bool, points: int = GROUP // 2) -> Count:
        """From tensors to a transform's first pass or from its last: real rows two points to a number."""
        if not self.whole:
            return NOTHING
        conflicts = 2 if wide and self.ring.real == 8 else 1
        return self.ring.touch * (points * (1 + conflicts))

    def load_filter(self) -> Count:
        call = self.call
        real = call.mode == "causal"
        way = self._between(is_wide(call.filter_item, call.taps) and real, GROUP // 2 if real else GROUP)
        twice = call.taps - 1 if call.mode == "circular" else 0  # as a real and as an imaginary part
        elements = self.existing * (call.taps + twice)
        return way + Count(loads=sectors(elements, call.filter_item, self.lanes.filter))

    def _gated(self, gate: bool) -> Count:
        return self.load(1 + gate) + self.ring.every_point(gate)

    def load_signal(self) -> Count:
        return self._between(self.call.wide) + self._gated(self.call.pre_gate)

    def load_gradient(self) -> Count:
        return self._between(self.call.wide) + self._gated(self.call.post_gate)

    def _skip(self, again: Count) -> Count:
        if not self.call.skip:
            return NOTHING
        return again + self.ring.every_point(1) + Count(loads=self.ring.groups)  # one sector for 32 groups

    def store_y(self) -> Count:
        gate = self.call.post_gate
        count = self.ring.every_point(1 + gate) + self.load(gate) + self.store(1)
        return self._between(self.call.wide) + count + self._skip(self._gated(self.call.pre_gate))

    def store_grad_post_gate(self) -> Count:
        count = self.ring.every_point(2) + self.load(1) + self.store(1)
        return self._between(self.call.wide) + count + self._skip(self._gated(self.call.pre_gate))

    def store_grad_signal(self) -> Count:
        call = self.call
        count = self.ring.every_point(1) + self._skip(self._gated(call.post_gate))
        count += self._between(call.wide)
        if call.wants("pre_gate"):
            count += self.load(1) + self.store(1) + self.ring.every_point(1)
        if call.wants("x"):
            count += self.load(call.pre_gate) + self.store(1) + self.ring.every_point(call.pre_gate)
        return count

    def polynomials(self, *, loads: int = 0, stores: int = 0) -> Count:
        """Complex numbers of the workspace, a whole polynomial for each row."""
        size = sectors(GROUP * self.ring.groups, 2 * self.ring.real, self.lanes.workspace)
        return Count(loads=loads * size, stores=stores * size)
