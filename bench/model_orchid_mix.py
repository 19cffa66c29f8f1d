"""orchid_mix's cost on a GPU: model.py, for the launches of csrc/cuda/orchid_mix.cu on contiguous tensors, at
the lengths that have kernels.

All tensors of a benchmark's case are there, and backward makes every gradient. Between the launches of
conditioned_conv, on rows of the type that is computed in (model_conditioned_conv.py), tiles of 32 channels
by 64 positions are read with 8 positions more on both sides. tests/test_model_orchid_mix.py counts all but
the operations, which are estimates.
"""

from __future__ import annotations

import math

from . import model_conditioned_conv
from .bench_conditioned_conv import ConditionedCase
from .bench_orchid_mix import TAPS, MixCase
from .harness import DIRECTIONS, DTYPES, Case
from .model import Count, Device, Launch, Prediction
from .model_half_spectra import has_kernels
from .model_short_conv import BLOCKS_OF_RUNS, EACH, LANES, THREADS, TILE, WARPS

CASES = [
    MixCase(
        length=length, batch=2**26 // (256 * length), channels=256, direction=direction, keyed=keyed,
        device="cuda",
    )
    for length in (1024, 4096, 8192)
    for keyed in (False, True)
    for direction in DIRECTIONS
]  # fmt: skip

REACH = 8  # positions beside a tile, for up to 9 taps


def predict(case: Case, device: Device) -> Prediction:
    """Forward, or forward and backward."""
    if not has_kernels(case):
        raise ValueError(f"orchid_mix has no kernels for {case.length} positions of {case.dtype}")
    assert isinstance(case, MixCase)
    tiles = Tiles(case)
    if case.elements == 0:
        return Prediction(device, (), tiles.real)
    rows = ConditionedCase(
        length=case.length, batch=case.batch, channels=case.channels, keyed=case.keyed,
        dtype="float64" if tiles.real == 8 else "float32",
    )  # fmt: skip
    launches: tuple[Launch, ...]
    launches = (tiles.make(), model_conditioned_conv.forward(rows, 0, case.dtype), tiles.gate())
    if case.direction == "backward":
        of_rows = model_conditioned_conv.backward(rows, 1, case.dtype)
        launches += (tiles.make(backward=True), *of_rows, *tiles.gradients())
    return Prediction(device, launches, tiles.real)


class Tiles:
    """What blocks do for all tiles of a call."""

    def __init__(self, case: MixCase) -> None:
        self.case, self.item = case, DTYPES[case.dtype].itemsize
        self.real = max(self.item, 4)
        self.conditions = 1 + case.keyed
        self.groups = -(-case.channels // LANES)
        self.tiles = case.batch * case.length // TILE
        self.runs = max(1, min(self.tiles, BLOCKS_OF_RUNS // self.groups))
        self.blocks = self.groups * self.runs
        self.every_lane = self.groups * LANES * self.real / 128  # wavefronts, for one position of a tile

    # ---- tensors and tiles ---------------------------------------------------------------------------------

    def read(self, *, rows: bool, reach: int = REACH) -> Count:
        """A signal, in the tensors' layout and type or as rows of the workspace."""
        return Count(loads=self._bytes(rows, reach)) + self._staged(TILE + 2 * reach, rows)

    def write(self, *, rows: bool) -> Count:
        """From registers by way of a tile."""
        staged = self._staged(TILE, rows) + self.each(TILE)
        return staged + Count(stores=self._bytes(rows, 0))

    def _bytes(self, rows: bool, reach: int) -> float:
        item, along = self._kind(rows)
        beside: float = 2 * reach * item
        if along and reach:  # by whole sectors; at the ends of a row one by one
            start = math.ceil(reach * item / 32) * 32
            ends = 2 * 32 * (16 // item - 1) * TILE / self.case.length
            beside = 2 * start + ends
        return self.tiles * self.case.channels * (TILE * item + beside)

    def _staged(self, count: int, rows: bool) -> Count:
        """Wavefronts between a tile and registers that hold 16 bytes of a tensor."""
        item, along = self._kind(rows)
        times = 2 if item == 8 else math.ceil(count / 32) if along else 1
        return self.each(count * times)

    def _kind(self, rows: bool) -> tuple[int, bool]:
        """Bytes of a number, and whether positions are neighbours."""
        return (self.real, True) if rows else (self.item, self.case.layout == "bdl")

    def each(self, positions: float) -> Count:
        """Of every tile."""
        return Count(wavefronts=self.tiles * positions * self.every_lane)

    def slide(self, positions: int, bias: int = 1) -> Count:
        found = self.each(positions * (EACH + 2 * TAPS - 1 + bias) / EACH)
        return found + Count(operations=self.tiles * positions * self.case.channels * TAPS)

    def weights(self, signals: int) -> Count:
        """A block's taps and biases, which lie as (D, W)."""
        loads = self.case.channels * (TAPS * min(TAPS * self.item, 32) + self.item)
        return Count(loads=loads, wavefronts=(TAPS + 1) * self.every_lane) * (signals * self.runs)

    # ---- launches ------------------------------------------------------------------------------------------

    def _launch(self, kernel: str, count: Count, tensors: float, rows: float, more: float = 0) -> Launch:
        memory = self.case.elements * (tensors * self.item + rows * self.real) + more
        return Launch(kernel, self.blocks, THREADS, count, memory)

    def make(self, *, backward: bool = False) -> Launch:
        """x1 v, query and key; backward x0 and grad_out too."""
        made = 1 + self.conditions + backward
        count = (self.read(rows=False) + self.slide(TILE)) * (2 + backward)
        count += self.slide(TILE) * self.conditions + self.write(rows=True) * made
        count += self.weights(made + 1)
        if backward:
            count += self.read(rows=False, reach=0) + self.each(TILE) + self.write(rows=True)
        return self._launch("mix_streams", count, 2 + 2 * backward, made + backward)

    def gate(self) -> Launch:
        """y, of rows and x0."""
        count = self.read(rows=True, reach=0) + self.each(TILE)
        count += self.read(rows=False) + self.slide(TILE) + self.write(rows=False) + self.weights(1)
        return self._launch("mix_streams", count, 2, 1)

    def gradients(self) -> tuple[Launch, Launch]:
        parts, taps = 3 + self.conditions, TAPS + 1
        count = self.read(rows=False) * 3 + self.read(rows=True) * parts
        count += (self.slide(TILE + REACH) + self.each(2 * (TILE + REACH))) * 2  # products' other factors
        of_tile = self.each(TILE * (2 * EACH + TAPS - 1) / EACH)  # what taps read
        of_tile += self.each(taps * WARPS) + self.each(taps * (WARPS + 2))  # the sums, of warps and in all
        count += (of_tile + self.slide(TILE, bias=0)) * parts + self.write(rows=False) * 3
        count += self.weights(parts)
        kept = self.runs * self.groups * LANES * parts * taps * self.real
        count += Count(stores=kept, wavefronts=self.runs * self.every_lane * taps * (5 + parts))
        last = self._launch("mix_gradients", count, 6, 2 + self.conditions, kept)
        sums = self.case.channels * parts * taps
        spread = self.case.channels * (TAPS * min(TAPS * self.item, 32) + self.item) * parts
        totals = Launch(
            "mix_totals", -(-sums // THREADS), THREADS,
            Count(loads=kept, stores=spread, operations=sums * self.runs), kept + sums * self.item,
        )  # fmt: skip
        return last, totals
