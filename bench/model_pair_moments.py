"""What pair_moments' CUDA kernels have to do: the launchers of csrc/cuda/pair_moments.cu, as counts.

Of tensors that are contiguous, with rows of whole pieces. Every receiver and every sender is taken to have as
many pairs as the others. Left out: shuffles between the lanes of a warp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .bench_pair_moments import BUNDLE, FILTERS, HARMONICS, MomentsCase
from .harness import Case
from .model import NOTHING, Count, Device, Launch, Prediction, sectors
from .model_pair_message import INDEX, PairCall

STEP = 16  # terms in shared memory
WARPS, THREADS = 4, 256
MESSAGES = 32 << 20  # bytes
OFFSETS = Count(loads=2 * 32)  # of a group, each asked for on its own

CASES: tuple[MomentsCase, ...] = tuple(
    replace(case, dtype=dtype, direction=direction)
    for direction in ("forward", "backward")
    for dtype in ("float32", "bfloat16")
    for case in (FILTERS, BUNDLE, HARMONICS)
)


@dataclass(frozen=True)
class Call(PairCall):
    shared: bool = False

    @property
    def real(self) -> int:
        """Bytes of a number while it is computed with."""
        return max(self.item, 4)

    @property
    def piece(self) -> int:
        return 16 // self.real

    @property
    def chunks(self) -> list[int]:
        """Of a receiver's pairs."""
        degree = self.pairs // self.receivers
        return [min(STEP, degree - first) for first in range(0, degree, STEP)]

    @property
    def basis_bytes(self) -> int:
        return self.pairs * (1 if self.shared else self.orientations) * self.functions * self.item

    @property
    def moments_bytes(self) -> int:
        return self.point_bytes(self.receivers) * self.functions


@dataclass(frozen=True)
class Shape:
    """How the lanes of a warp lie over its tile of sums, four rows and eight columns each."""

    down: int
    across: int

    @property
    def rows(self) -> int:
        return 4 * self.down

    @property
    def columns(self) -> int:
        return 8 * self.across

    def tiles(self, rows: int, columns: int) -> int:
        return -(-rows // self.rows) * -(-columns // self.columns)

    def sums(self, terms: int, real: int) -> Count:
        """Up to 16 terms, put into shared memory and added."""
        stored = STEP * (self.rows + self.columns) * real / 128
        read = (4 + 8) * real / 16 * 4  # of a lane's numbers 16 bytes at a time, 8 lanes to a wavefront
        return Count(wavefronts=stored + terms * read, operations=terms * self.rows * self.columns)


PRODUCTS = Shape(4, 8)


def shape_of(functions: int, channels: int) -> Shape:
    """The fewest tiles, and of these the squarest."""
    return min((Shape(8, 4), PRODUCTS, Shape(16, 2)), key=lambda shape: shape.tiles(functions, channels))


def blocks(units: int, threads: int) -> int:
    return min(-(-units // threads), 1 << 20)


def extents(size: int, tile: int) -> list[int]:
    return [min(tile, size - first) for first in range(0, size, tile)]


def moments(call: Call) -> list[Launch]:
    shape = shape_of(call.functions, call.channels)
    unit = NOTHING
    for functions in extents(call.functions, shape.rows):
        for channels in extents(call.channels, shape.columns):
            unit += OFFSETS
            for pairs in call.chunks:
                unit += Count(loads=2 * sectors(pairs, INDEX, pairs))
                unit += Count(loads=pairs * sectors(functions, call.item, functions))
                unit += Count(loads=pairs * sectors(channels, call.item, channels))
                unit += shape.sums(pairs, call.real)
            unit += Count(stores=functions * sectors(channels, call.item, channels))
    matrices = call.receivers * call.orientations
    units = matrices * shape.tiles(call.functions, call.channels)
    memory = call.basis_bytes + call.point_bytes(call.senders) + call.moments_bytes + call.graph_bytes
    return [Launch("moments", blocks(units, WARPS), 32 * WARPS, unit * matrices, memory)]


def products(call: Call, terms: int, entries: int, orientations: int, stored: int) -> tuple[int, Count]:
    """Of rows of `terms` numbers with every receiver's matrix, added up over `orientations`: tiles, and a
    count for every receiver and every row that its pairs get."""
    count = NOTHING
    for columns in extents(entries, PRODUCTS.columns):
        count += OFFSETS
        for pairs in call.chunks:
            count += Count(
                loads=sectors(pairs, INDEX, pairs), stores=pairs * sectors(columns, stored, columns)
            )
            for step in extents(terms, STEP):
                sums = PRODUCTS.sums(step, call.real)
                rows = pairs * sectors(step, call.item, step)
                count += (sums + Count(loads=rows + step * columns * call.item)) * orientations
    return PRODUCTS.tiles(1, entries), count


def basis_gradient(call: Call) -> list[Launch]:
    together = call.orientations if call.shared else 1
    tiles, count = products(call, call.channels, call.functions, together, call.item)
    for pairs in call.chunks:
        count += Count(loads=tiles * sectors(pairs, INDEX, pairs))  # senders
    times = call.receivers * call.orientations // together
    memory = call.moments_bytes + call.point_bytes(call.senders) + call.basis_bytes + call.graph_bytes
    return [Launch("pair_products", blocks(times * tiles, WARPS), 32 * WARPS, count * times, memory)]


def x_gradient(call: Call) -> list[Launch]:
    """Messages of some orientations and their sums, and so on."""
    pitch = -(-call.channels // call.piece) * call.piece
    together = min(max(MESSAGES // (call.pairs * pitch * call.real), 1), call.orientations)
    found = []
    tiles, count = products(call, call.functions, call.channels, 1, call.real)
    for span in extents(call.orientations, together):
        messages = call.pairs * span * pitch * call.real
        memory = (call.moments_bytes + call.basis_bytes) * span / call.orientations
        times = call.receivers * span
        found.append(
            Launch("pair_products", blocks(times * tiles, WARPS), 32 * WARPS, count * times,
                   memory + messages + call.graph_bytes)
        )  # fmt: skip
        stores = call.point_bytes(call.senders) * span / call.orientations
        # A warp asks for the offsets, and pair after pair for the row, of every sender that it has lanes for.
        lanes = span * pitch // call.piece
        threads = call.senders * lanes
        warps = -(-threads // 32)
        senders = warps + call.senders - 1 - (threads - 1) // math.lcm(lanes, 32)
        asked = (2 * warps + senders * call.pairs / call.senders) * 32
        found.append(
            Launch("sum_messages", blocks(threads, THREADS), THREADS,
                   Count(loads=messages + asked, stores=stores, operations=messages / call.real),
                   messages + stores + call.graph_bytes)
        )  # fmt: skip
    return found


def launches(call: Call, direction: str) -> list[Launch]:
    backward = basis_gradient(call) + x_gradient(call) if direction == "backward" else []
    return moments(call) + backward


def least(call: Call, direction: str, device: Device) -> float:
    """Seconds for kernels of one launch each that bring every tensor from memory once."""
    one = call.basis_bytes + call.point_bytes(call.senders) + call.moments_bytes
    seconds = one / device.memory + device.launch
    return seconds if direction == "forward" else 3 * seconds


def predict(case: Case, device: Device) -> Prediction:
    call = Call.of(case)
    found = tuple(launches(call, case.direction))
    return Prediction(device, found, call.real, least(call, case.direction, device))
