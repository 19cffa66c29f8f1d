"""implicit_filter's cost on a GPU: model.py, for the launches of csrc/cuda/implicit_filter.cu.

    python -m equiconv bench --model h200 --op implicit_filter

tests/test_model_implicit_filter.py counts the kernels, but for the operations: those of the products are what
the tiles multiply, padding too; sines, cosines and exponentials are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from .harness import DIRECTIONS, DTYPES, Case
from .model import NOTHING, Count, Device, Launch, Prediction

CASES = [
    Case(op="implicit_filter", length=length, batch=1, channels=256, filter="shared", gates=False,
         dtype=dtype, direction=direction)
    for length in (1024, 4096, 16384, 65536)
    for direction in DIRECTIONS
    for dtype in ("float32", "bfloat16")
]  # fmt: skip

POSITIONS = 1 << 14  # at a time
FEWEST_OF_PART, BLOCKS_WANTED = 64, 512
ROWS, THREADS, TERMS, SIDE, WARPS = 64, 64, 8, 8, 2
SQUARE, THREADS_OF_SQUARE = 32, 256
SECTOR = 32  # bytes


def extents(size: int, tile: int) -> list[int]:
    return [min(tile, size - first) for first in range(0, size, tile)]


def up(a: int, b: int) -> int:
    return -(-a // b)


@functools.cache
def lines(rows: int, length: int, pitch: int, item: int) -> float:
    """Bytes of the sectors of `rows` lines, each asked for by warps of 32 neighbours."""
    counted = min(rows, SECTOR)  # how lines begin in a sector repeats
    found = 0
    for row in range(counted):
        for first, run in zip(range(0, length, 32), extents(length, 32), strict=True):
            begin = (row * pitch + first) * item
            found += (begin + run * item - 1) // SECTOR - begin // SECTOR + 1
    return found * SECTOR * rows / counted


@functools.cache
def eights(rows: int, terms: int, item: int) -> int:
    """Bytes of the sectors of contiguous rows, asked for eight terms of four rows at a time."""
    found = 0
    for first in range(0, rows, 4):
        for term in range(0, terms, TERMS):
            touched: set[int] = set()
            for row in range(first, min(first + 4, rows)):
                begin = (row * terms + term) * item
                end = begin + min(TERMS, terms - term) * item
                touched.update(range(begin // SECTOR, up(end, SECTOR)))
            found += len(touched)
    return found * SECTOR


@dataclass(frozen=True)
class Call:
    length: int
    channels: int
    features: int = 33
    order: int = 128
    inner: int = 1
    dtype: str = "float32"
    channels_last: bool = False  # the gradient of the filter

    @property
    def item(self) -> int:
        return DTYPES[self.dtype].itemsize

    @property
    def real(self) -> int:
        return max(self.item, 4)

    @property
    def columns(self) -> int:
        """Of a tile."""
        return 256 // self.real

    @property
    def positions(self) -> int:
        return min(self.length, POSITIONS)

    @property
    def parameters(self) -> int:
        hidden = self.order * (self.features + 1) + self.inner * self.order * (self.order + 1)
        return hidden + self.channels * self.order

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Outputs and inputs of every one."""
        inner = [(self.order, self.order)] * self.inner
        return [(self.order, self.features), *inner, (self.channels, self.order)]

    # ---- tiles ------------------------------------------------------------------------------------------

    def tiles(self, rows: int, columns: int) -> int:
        return up(rows, ROWS) * up(columns, self.columns)

    def product(self, terms: int) -> Count:
        """Of a tile, but for what it fetches and what becomes of the sums."""
        steps = up(terms, TERMS)
        width = self.columns
        put = WARPS * (ROWS + width) // SIDE * self.real / 4
        read = WARPS * TERMS * (ROWS + width) // SIDE * self.real / 4
        keep = ROWS * width * self.real / 128
        return Count(wavefronts=steps * (put + read) + keep, operations=steps * TERMS * ROWS * width)

    def sums(self, rows: int, columns: int) -> Count:
        """Read back, a column to a thread."""
        return Count(wavefronts=rows * up(columns * self.real, 128))

    # ---- launches ---------------------------------------------------------------------------------------

    def layer(self, positions: int, layer: int, kept: int) -> Launch:
        """kept: of sines and cosines."""
        outputs, inputs = self.layers[layer]
        item = self.real if layer else self.item
        count = NOTHING
        for rows in extents(positions, ROWS):
            left = eights(rows, inputs, item)
            for columns in extents(outputs, self.columns):
                right, bias = eights(columns, inputs, self.item), lines(1, columns, 0, self.item)
                made = kept * lines(rows, columns, outputs, self.real)
                loads = left + right + bias * (WARPS // up(self.columns, 32))
                count += self.product(inputs) + self.sums(up(rows, 4) * 4, columns) + Count(loads, made)
        memory = positions * inputs * item + outputs * (inputs + 1) * self.item
        memory += kept * positions * outputs * self.real
        return Launch("sine_layer", self.tiles(positions, outputs), THREADS, count, memory)

    def taps(self, positions: int) -> Launch:
        d, h = self.channels, self.order
        count = NOTHING
        halves = self.columns // 32  # warps that take a row
        for rows in extents(d, ROWS):
            left = eights(rows, h, self.item)
            for columns in extents(positions, self.columns):
                times = SECTOR * min(columns, up(columns * self.features * self.item, SECTOR))
                loads: float = left + eights(columns, h, self.real)
                loads += times * (WARPS // halves) + SECTOR * rows * up(columns, 32)
                stores = lines(rows, columns, self.length, self.item)
                count += self.product(h) + self.sums(rows, columns) + Count(loads, stores)
        memory = positions * (h * self.real + (d + 1) * self.item) + d * (h + 1) * self.item
        return Launch("filter_taps", self.tiles(d, positions), THREADS, count, memory)

    def window(self, positions: int) -> Launch:
        count = NOTHING
        for rows in extents(positions, SQUARE):
            for columns in extents(self.channels, SQUARE):
                given = (
                    lines(rows, columns, self.channels, self.item)
                    if self.channels_last
                    else lines(columns, rows, self.length, self.item)
                )
                warps = THREADS_OF_SQUARE // 32
                loads = given + warps * lines(1, columns, 0, self.item) + SECTOR * rows
                moved = rows if self.channels_last else columns
                count += Count(
                    loads,
                    lines(rows, columns, self.channels, self.real),
                    (moved + rows) * self.real / 4,
                    rows * columns,
                )
        tiles = up(positions, SQUARE) * up(self.channels, SQUARE)
        memory = positions * self.channels * (self.item + self.real)
        return Launch("window_gradients", tiles, THREADS_OF_SQUARE, count, memory)

    def angles(self, positions: int, layer: int) -> Launch:
        """From the outputs of a layer to its inputs."""
        outputs, inputs = self.layers[layer]
        count = NOTHING
        for rows in extents(positions, ROWS):
            left = eights(rows, outputs, self.real)
            for columns in extents(inputs, self.columns):
                right = lines(outputs, columns, inputs, self.item)
                cosines = lines(rows, columns, inputs, self.real)
                count += self.product(outputs) + self.sums(rows, columns)
                count += Count(left + right + cosines, cosines)
        memory = positions * (outputs + 2 * inputs) * self.real + outputs * inputs * self.item
        return Launch("angle_gradients", self.tiles(positions, inputs), THREADS, count, memory)

    @property
    def tiles_of_weights(self) -> int:
        return sum(self.tiles(*layer) for layer in self.layers)

    @property
    def part(self) -> int:
        """Positions of one."""
        parts = max(BLOCKS_WANTED // self.tiles_of_weights, 1)
        return max(up(self.positions, parts * TERMS) * TERMS, FEWEST_OF_PART)

    def weights(self, positions: int, adds: bool) -> Launch:
        parts = extents(positions, self.part)
        count = NOTHING
        for length in sorted(set(parts)):
            of_part = NOTHING
            for number, (outputs, inputs) in enumerate(self.layers):
                item = self.real if number else self.item
                for rows in extents(outputs, ROWS):
                    left = lines(length, rows, outputs, self.real)
                    for columns in extents(inputs, self.columns):
                        loads = left + lines(length, columns, inputs, item)
                        stores = lines(rows, columns, inputs, self.real)
                        of_part += self.product(length) + self.sums(rows, columns)
                        of_part += Count(loads + adds * stores, stores)
                    if number <= self.inner:
                        bias = lines(1, rows, 0, self.real)
                        of_part += Count(adds * bias, bias)
            count += of_part * parts.count(length)
        memory = positions * (self.features * self.item + (2 * self.order * (self.inner + 1)) * self.real)
        memory += (
            positions * self.channels * self.real + (1 + adds) * len(parts) * self.parameters * self.real
        )
        return Launch("weight_gradients", self.tiles_of_weights * len(parts), THREADS, count, memory)

    def totals(self) -> Launch:
        parts = up(self.positions, self.part)
        sums = parts * self.parameters
        count = Count(lines(parts, self.parameters, self.parameters, self.real),
                      lines(1, self.parameters, 0, self.item), 0, sums)  # fmt: skip
        memory = sums * self.real + self.parameters * self.item
        return Launch("weight_totals", up(self.parameters, 256), 256, count, memory)

    def forward(self) -> Iterator[Launch]:
        for positions in extents(self.length, POSITIONS):
            yield from (self.layer(positions, m, 1) for m in range(self.inner + 1))
            yield self.taps(positions)

    def backward(self) -> Iterator[Launch]:
        for number, positions in enumerate(extents(self.length, POSITIONS)):
            yield from (self.layer(positions, m, 2) for m in range(self.inner + 1))
            yield self.window(positions)
            yield from (self.angles(positions, m) for m in range(self.inner + 1, 0, -1))
            yield self.weights(positions, number > 0)
        yield self.totals()

    def least(self, device: Device, direction: str) -> float:
        """Seconds of the multiplications alone, in one launch or two, and of the filter in memory."""
        products = self.length * sum(outputs * inputs for outputs, inputs in self.layers)
        rate = device.float64 if self.real == 8 else device.float32
        filter = self.length * self.channels * self.item / device.memory
        forward = max(2 * products / rate, filter) + device.launch
        # backward computes the layers again, and has two products for each, but none for the features
        hidden = products - self.length * self.order * self.channels
        again = hidden + 2 * products - self.length * self.order * self.features
        return forward + (max(2 * again / rate, filter) + device.launch) * (direction == "backward")


def predict(case: Case, device: Device) -> Prediction:
    """With 33 features, 128 wide and one inner layer. Layout "bld": the filter's gradient is (L, D)."""
    call = Call(case.length, case.channels, dtype=case.dtype, channels_last=case.layout == "bld")
    launches = list(call.forward())
    if case.direction == "backward":
        launches += call.backward()
    return Prediction(device, tuple(launches), call.real, call.least(device, case.direction))
