"""What pair_invariants' CUDA kernels have to do: the launcher of csrc/cuda/pair_invariants.cu, as counts.

Of contiguous tensors. Passes that give the result or gradients; those of what both change by are left out.
tests/test_model_pair_invariants.py counts all but the operations, which are estimates.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .bench_pair_invariants import BUNDLE, CLOUD, DISTANCES, InvariantsCase
from .harness import DIRECTIONS, DTYPES, Case
from .model import NOTHING, Count, Device, Launch, Prediction

THREADS, LEAST_THREADS = 128, 16
SHARED = 48 * 1024  # bytes of a block, if it can have as few
PITCH = 3  # of vectors in shared memory
# Of a row: a root and a division, the products of vectors.
OPERATIONS = {"forward": 40, "backward": 80}

CASES: tuple[InvariantsCase, ...] = tuple(
    replace(case, dtype=dtype, direction=direction)
    for direction in DIRECTIONS
    for dtype in ("float32", "bfloat16")
    for case in (BUNDLE, CLOUD, DISTANCES)
)


@functools.cache
def sectors(begin: int, count: int, item: int, lanes: int) -> int:
    """Bytes of the sectors that warps ask for, of `count` neighbours from byte `begin` of one on."""
    found = 0
    for first in range(0, count, lanes):
        last = begin + min(first + lanes, count) * item - 1
        found += last // 32 - (begin + first * item) // 32 + 1
    return 32 * found


@dataclass(frozen=True)
class Call:
    """Sizes as in csrc/pair_invariants.h. `wanted`: of which of rel, receiver, sender and extra."""

    pairs: int
    orientations: int
    dimensions: int
    degree: int
    dtype: str
    grid: bool = False
    senders: bool = False
    complete: bool = False
    extra: int = 0
    wanted: tuple[str, ...] = ("rel",)

    @classmethod
    def of(cls, case: Case) -> Call:
        """One of bench_pair_invariants.py."""
        assert isinstance(case, InvariantsCase)
        assert not case.forces
        senders, grid = case.orientations == 1, case.orientations > 1
        return cls(
            case.length,
            max(case.orientations, 1),
            3,
            case.degree,
            case.dtype,
            grid,
            senders,
            complete=senders,
        )

    @property
    def item(self) -> int:
        return DTYPES[self.dtype].itemsize

    @property
    def real(self) -> int:
        """Bytes of a number while it is computed with."""
        return max(self.item, 4)

    @property
    def space(self) -> int:
        """Entries of a vector while it is computed with: distances have three."""
        return self.dimensions if self.oriented else 3

    @property
    def oriented(self) -> bool:
        return self.grid or self.senders

    @property
    def geometric(self) -> int:
        return 1 + self.oriented + self.senders + self.complete

    @property
    def attributes(self) -> int:
        return self.geometric + self.extra

    @property
    def features(self) -> int:
        return math.comb(self.attributes + self.degree, self.degree) - 1

    @property
    def columns(self) -> dict[str, int]:
        """Of what every pair has."""
        vectors = ("rel", "receiver", "sender") if self.senders else ("rel",)
        return dict.fromkeys(vectors, self.dimensions) | ({"extra": self.extra} if self.extra else {})

    @property
    def out_bytes(self) -> int:
        return self.pairs * self.orientations * self.features * self.item

    @property
    def input_bytes(self) -> int:
        of_grid = self.orientations * self.dimensions if self.grid else 0
        return (self.pairs * sum(self.columns.values()) + of_grid) * self.item

    @property
    def grad_bytes(self) -> int:
        return self.pairs * sum(self.columns[name] for name in self.wanted) * self.item


@dataclass(frozen=True)
class Tile:
    call: Call
    gradients: bool
    threads: int

    @classmethod
    def of(cls, call: Call, gradients: bool) -> Tile:
        tile = cls(call, gradients, THREADS)
        while tile.bytes > SHARED and tile.threads > LEAST_THREADS:
            tile = replace(tile, threads=tile.threads // 2)
        return tile

    @property
    def slots(self) -> int:
        return min(self.call.orientations, self.threads)

    @property
    def pairs(self) -> int:
        return self.threads // self.slots

    @property
    def apart(self) -> int:
        """Of a pair's sums."""
        return self.slots | 1

    @property
    def summands(self) -> int:
        return self.pairs + 11 if self.slots == 1 else self.pairs * self.apart

    @property
    def bytes(self) -> int:
        call = self.call
        rows = self.threads * (call.features | 1)
        counts = [2 * [self.pairs * PITCH], [self.threads * PITCH, self.pairs * call.extra, rows]]
        if self.gradients:
            counts.append([rows, self.summands * (3 * call.space + call.extra)])
        return sum(-(-count * call.real // 16) * 16 for part in counts for count in part)

    @property
    def lanes(self) -> int:
        return min(self.threads, 32)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """The first pair of each, and how many."""
        for first in range(0, self.call.pairs, self.pairs):
            yield first, min(self.pairs, self.call.pairs - first)

    def turns(self) -> Iterator[tuple[int, int]]:
        """The first orientation of each, and how many."""
        for first in range(0, self.call.orientations, self.slots):
            yield first, min(self.slots, self.call.orientations - first)

    def asked(self, first: int, count: int) -> int:
        """Bytes, of `count` neighbours from number `first` of a tensor on."""
        return sectors(first * self.call.item % 32, count, self.call.item, self.lanes)

    def rows(self, count: int, columns: int, pitch: int) -> int:
        """Wavefronts of a number for each thread, in the order of so many rows."""
        return self.warps(i // columns * pitch + i % columns for i in range(count * columns))

    def warps(self, places: Iterable[int]) -> int:
        """Wavefronts of a number for each thread, at these places: half a warp at a time where numbers have
        eight bytes; a bank gives one at a time, to all lanes that want it."""
        banks, found, every = 128 // self.call.real, 0, tuple(places)
        for first in range(0, len(every), min(banks, self.lanes)):
            distinct = {*every[first : first + min(banks, self.lanes)]}
            found += max(Counter(place % banks for place in distinct).values())
        return found


def row_accesses(call: Call, gradients: bool) -> int:
    """To shared memory, of a thread for its row, but for the extra attributes that it reads."""
    products = call.features - call.attributes
    vectors = call.dimensions * (1 + call.oriented + call.senders)
    forward = vectors + call.geometric + call.extra + 3 * products
    if not gradients:
        return forward
    # Each product brings two sums, of which each reads three numbers and writes one.
    return forward + 8 * products + call.geometric + 3 * call.extra


@functools.cache
def wavefronts(tile: Tile, pairs: int) -> int:
    """Of a block of so many pairs."""
    call, found = tile.call, 0
    for name, columns in call.columns.items():
        found += tile.rows(pairs, columns, columns if name == "extra" else PITCH)
    for _, slots in tile.turns():
        rows = pairs * slots
        if call.grid:
            found += tile.rows(slots, call.dimensions, PITCH)
        found += tile.rows(rows, call.features, call.features | 1)
        found += row_accesses(call, tile.gradients) * tile.rows(rows, 1, 1)
        found += call.extra * tile.warps(i // slots * call.extra for i in range(rows))
    if not tile.gradients:
        return found
    own = tile.warps(p * tile.apart + slot for p in range(pairs) for slot in range(tile.slots))
    found += call.extra * own  # zeros
    for name in call.wanted:
        columns = call.columns[name]
        read = tile.warps(
            i % columns * tile.summands + i // columns * tile.apart for i in range(pairs * columns)
        )
        found += tile.slots * read + (0 if name == "extra" else call.space * own)
    return found


def traffic(tile: Tile, first: int, pairs: int) -> Count:
    """Of a block, bytes asked for of every tensor."""
    call = tile.call
    vectors = {n: tile.asked(first * columns, pairs * columns) for n, columns in call.columns.items()}
    grid = features = 0
    for begin, slots in tile.turns():
        row = (first * call.orientations + begin) * call.features
        features += tile.asked(row, pairs * slots * call.features)
        grid += tile.asked(begin * call.dimensions, slots * call.dimensions) if call.grid else 0
    given = sum(vectors.values()) + grid
    if not tile.gradients:
        return Count(given, features)
    return Count(given + features, sum(vectors[name] for name in call.wanted))


def one_pass(call: Call, gradients: bool) -> Launch:
    tile, count = Tile.of(call, gradients), NOTHING
    blocks = Counter((first % 32, pairs) for first, pairs in tile.blocks())  # alike in how sectors lie
    for (first, pairs), times in blocks.items():
        count += (traffic(tile, first, pairs) + Count(wavefronts=wavefronts(tile, pairs))) * times
    rows = call.pairs * call.orientations
    products = call.features - call.attributes
    each = OPERATIONS["backward"] + 3 * products if gradients else OPERATIONS["forward"] + products
    memory = call.input_bytes + call.out_bytes + (call.grad_bytes if gradients else 0)
    count += Count(operations=rows * each)
    return Launch("pair_pass", blocks.total(), tile.threads, count, memory)


def launches(call: Call, direction: str) -> tuple[Launch, ...]:
    if call.pairs * call.orientations == 0:
        return ()
    return tuple(one_pass(call, gradients) for gradients in (False, True)[: 1 + (direction == "backward")])


def predict(case: Case, device: Device) -> Prediction:
    """Gradients are those of rel."""
    call = Call.of(case)
    return Prediction(device, launches(call, case.direction), call.real)
