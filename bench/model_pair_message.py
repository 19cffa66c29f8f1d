"""What pair_message's CUDA kernels have to do: the launchers of csrc/cuda/pair_message.cu, as counts.

Of tensors that are contiguous, with rows of whole 16 bytes. Left out: shuffles between the lanes of a warp,
and instructions that cut a number into parts. Tiles are counted as if every piece were full.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .bench_pair_message import BULK, NARROW, TASKS, PairCase
from .harness import Case
from .model import Count, Device, Launch, Prediction, sectors

if TYPE_CHECKING:
    from typing_extensions import Self

ITEM = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
CHUNK, TERMS, WARPS = 64, 16, 8  # weight rows a warp makes at a time, terms of a sum, warps of a block
WHOLE, PIECES = 4096, 1024  # pairs that are one launch; else so many pieces of them
INDEX = 4

CASES: tuple[PairCase, ...] = tuple(
    replace(case, dtype=dtype, direction=direction)
    for direction in ("forward", "backward")
    for dtype in ("float32", "bfloat16")
    for case in (BULK, replace(BULK, antipodal=True), NARROW, *TASKS)
)


def up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


@dataclass(frozen=True)
class Parts:
    """In how many parts the factors of a product are given to the tensor cores, and of what type."""

    weight: int
    rows: int
    tf32: bool

    @property
    def products(self) -> int:
        """Of parts: two by two are three, the smaller ones' is left out. In terms of 16-bit ones."""
        count = 3 if self.weight == self.rows == 2 else self.weight * self.rows
        return count * (2 if self.tf32 else 1)


@dataclass(frozen=True)
class PairCall:
    """The sizes of a call that goes through the pairs of a graph."""

    pairs: int
    receivers: int
    senders: int
    orientations: int
    functions: int
    channels: int
    dtype: str

    @classmethod
    def of(cls, case: Case) -> Self:
        assert isinstance(case, PairCase)
        return cls(
            case.length * case.degree, case.length, case.length,
            case.orientations, case.functions, case.channels, case.dtype,
        )  # fmt: skip

    @property
    def item(self) -> int:
        return ITEM[self.dtype]

    def point_bytes(self, points: int) -> int:
        return points * self.orientations * self.channels * self.item

    @property
    def graph_bytes(self) -> int:
        return (2 * self.pairs + self.receivers) * INDEX


@dataclass(frozen=True)
class Call(PairCall):
    reversals: int = 0  # pairs that have the basis row of another

    @classmethod
    def of(cls, case: Case) -> Self:
        assert isinstance(case, PairCase)
        return replace(super().of(case), reversals=case.reversals)

    @property
    def half(self) -> bool:
        return self.item == 2

    @property
    def tile(self) -> int:
        """Pairs of one."""
        return 32 if self.half else 16

    @property
    def rows(self) -> int:
        return self.pairs * self.orientations

    @property
    def tiles(self) -> int:
        return math.ceil(self.pairs / self.tile) * self.orientations

    @property
    def basis_bytes(self) -> int:
        return self.one_way.rows * self.functions * self.item

    @property
    def one_way(self) -> Call:
        """With the pairs alone that have a basis row of their own."""
        return replace(self, pairs=self.pairs - self.reversals, reversals=0)

    @property
    def directions(self) -> int:
        """Of which the gradients of basis and weight stage the points of a row."""
        return 2 if self.reversals else 1

    @property
    def tile_index(self) -> Count:
        """Neighbours and rows of a tile's pairs, and 33 offsets of groups, each asked for on its own."""
        return Count(loads=2 * sectors(self.tile, INDEX, self.tile) + 5 * 32)


# ---- the kernels of which every warp works on its own (csrc/cuda/pair_message_warps.cuh) -------------------


@dataclass(frozen=True)
class Plan:
    """A weight's rows by its terms, cut for a block."""

    call: Call
    parts: Parts
    rows: int
    terms: int
    arrays: int
    carried: int  # bytes a row that a warp keeps from tile to tile
    columns: int
    warps: int

    @staticmethod
    def of(
        call: Call, parts: Parts, rows: int, terms: int, arrays: int, carried: int, device: Device
    ) -> Plan:
        columns = up(rows, CHUNK)
        while True:
            plan = Plan(call, parts, rows, up(terms, TERMS), arrays, carried, columns, 0)
            warps = min((device.block_shared - plan.weight_bytes) // plan.warp_bytes, WARPS)
            if warps >= 4 or columns == CHUNK:
                return replace(plan, warps=warps)
            columns = up(columns // 2, CHUNK)

    @property
    def pitch(self) -> int:
        return self.terms + TERMS * (self.terms // TERMS % 2 == 0)

    @property
    def copies(self) -> int:
        return 1 if self.parts.tf32 else self.parts.weight

    @property
    def weight_item(self) -> int:
        return 4 if self.parts.tf32 else 2

    @property
    def weight_bytes(self) -> int:
        return self.copies * self.columns // 8 * (8 * self.pitch * self.weight_item + 16)

    @property
    def warp_bytes(self) -> int:
        arrays = min(2 * self.arrays, 4)  # two buffers, or one of the rows of both directions
        return arrays * self.call.tile * self.pitch * self.call.item + self.carried * self.columns

    @property
    def blocks_across(self) -> int:
        return -(-self.rows // self.columns)

    def blocks(self, device: Device, units: int) -> tuple[int, int]:
        """How many, and of how many warps."""
        warps = min(max(-(-units * self.blocks_across // device.multiprocessors), 1), self.warps)
        shared = self.weight_bytes + warps * self.warp_bytes
        at_a_time = min(max(device.block_shared // (shared + 1024), 1), WARPS // warps)
        most = max(device.multiprocessors * at_a_time // self.blocks_across, 1)
        return min(-(-units // warps), most) * self.blocks_across, warps

    @property
    def load_weight(self) -> Count:
        """Of one block."""
        stored = self.columns * self.terms * self.weight_item * self.copies
        return Count(loads=self.columns * self.terms * self.call.item, wavefronts=stored / 128)

    @property
    def stage(self) -> Count:
        """A tile's rows on their way to shared memory, without what they are asked of memory."""
        return Count(wavefronts=self.arrays * self.call.tile * self.terms * self.call.item / 128)

    @property
    def multiply(self) -> Count:
        """A tile by all of a block's columns."""
        chunks, steps = self.columns // CHUNK, self.terms // TERMS
        rows = self.call.tile // 8 * self.arrays * self.call.item
        weight = 8 * self.copies * self.weight_item
        products = self.call.tile * self.columns * self.terms * self.parts.products
        return Count(wavefronts=chunks * steps * (rows + weight), products=products)


def units(call: Call) -> int:
    piece = 32 if call.pairs <= WHOLE else max(up(-(-call.pairs // PIECES), 32), 128)
    return -(-call.pairs // piece) * call.orientations


def aggregate(call: Call, points: int, groups: int, device: Device) -> list[Launch]:
    """Sums for `groups` points of features of `points`."""
    parts = Parts(1, 1, False) if call.half else Parts(2, 2, True)
    plan = Plan.of(call, parts, call.channels, call.functions, 1, 4, device)
    blocks, warps = plan.blocks(device, units(call))
    chunks = plan.columns // CHUNK
    tile = call.tile_index + plan.stage + plan.multiply
    tile += Count(loads=sectors(call.tile * call.functions, call.item, call.functions))
    tile += Count(wavefronts=3.5 * chunks, operations=call.tile * plan.columns)  # sums, and those kept
    features = Count(loads=sectors(call.rows * call.channels, call.item, call.channels))
    count = tile * (call.tiles * plan.blocks_across) + features + plan.load_weight * blocks
    stores = call.point_bytes(groups)
    count += Count(stores=stores)
    memory = call.basis_bytes + call.point_bytes(points) + stores + call.graph_bytes
    launches = [Launch("aggregate", blocks, 32 * warps, count, memory)]
    if call.pairs > WHOLE:
        pieces = units(call) // call.orientations
        partial = 2 * 4 * pieces * call.orientations * call.channels
        launches.append(Launch("join_pieces", pieces - 1, 128, Count(loads=partial), partial))
    return launches


def basis_gradient(call: Call, device: Device) -> list[Launch]:
    parts = Parts(1, 2, False) if call.half else Parts(2, 2, True)
    arrays, call = 2 * call.directions, call.one_way
    plan = Plan.of(call, parts, call.functions, call.channels, arrays, 0, device)
    blocks, warps = plan.blocks(device, units(call))
    tile = call.tile_index + plan.stage + plan.multiply
    tile += Count(loads=arrays * sectors(call.tile * call.channels, call.item, call.channels))
    count = tile * (call.tiles * plan.blocks_across) + plan.load_weight * blocks
    count += Count(stores=call.basis_bytes)
    memory = call.basis_bytes + call.point_bytes(call.senders + call.receivers) + call.graph_bytes
    return [Launch("basis_gradient", blocks, 32 * warps, count, memory)]


# ---- the gradient of the weight (csrc/cuda/pair_message_weight.cuh) ----------------------------------------


def weight_gradient(call: Call, device: Device) -> list[Launch]:
    parts = Parts(1, 1 + call.directions, False) if call.half else Parts(2, 2, True)
    points, call = 2 * call.directions, call.one_way  # rows of points that a pair has staged
    across, down = min(-(-call.channels // 32), 4), min(-(-call.functions // 64), 2)
    channels, functions = 32 * across, 64 * down
    product_item, copies = (2, parts.rows) if call.half else (4, 1)

    def pitch(entries: int, item: int) -> int:
        return up(entries * item, 128) + 32

    rows = pitch(functions, call.item) + points * pitch(channels, call.item)
    team_bytes = call.tile * (2 * rows + copies * pitch(channels, product_item))
    teams = min(WARPS // (across * down), device.block_shared // team_bytes)
    parts_of_weight = -(-call.functions // functions) * -(-call.channels // channels)
    most = max(device.multiprocessors // parts_of_weight, 1)
    blocks = min(max(call.tiles // (4 * teams), 1), most)

    staged = call.tile * (functions + points * channels) * call.item / 128
    made = call.tile * channels * (points * call.item + copies * product_item) / 128
    steps = call.tile // 16
    read = across * down * steps * (4 * copies * product_item + 4 * 2 * call.item)
    products = call.tile * functions * channels * parts.products
    sums = call.tile // 16 * functions * channels
    tile = Count(wavefronts=staged + made + read, products=products, operations=sums)
    tile += Count(loads=call.tile * (functions + points * channels) * call.item)
    tile += call.tile_index * (across * down / call.orientations)
    partial = 4 * call.functions * call.channels * blocks * teams
    count = tile * (call.tiles * parts_of_weight) + Count(stores=partial)
    memory = call.basis_bytes + call.point_bytes(call.senders + call.receivers) + call.graph_bytes
    threads = 32 * across * down * teams
    return [
        Launch("weight_gradient", blocks * parts_of_weight, threads, count, memory),
        Launch("collect_weight", -(-call.functions * call.channels // 32), 256, Count(loads=partial), 0),
    ]


# ---- a call, and the least that any kernels have to do -----------------------------------------------------


def launches(call: Call, direction: str, device: Device) -> list[Launch]:
    found = aggregate(call, call.senders, call.receivers, device)
    if direction == "backward":
        found += aggregate(call, call.receivers, call.senders, device)
        found += basis_gradient(call, device) + weight_gradient(call, device)
    return found


def least(call: Call, direction: str, device: Device) -> float:
    """Seconds for kernels of one launch each that make the products as exactly, on tensor cores, and bring
    every tensor from memory once, and to a multiprocessor each pair's basis row and features once."""
    features = call.rows * call.channels * call.item
    both = call.point_bytes(call.senders + call.receivers) + call.basis_bytes

    def seconds(parts: Parts, features: float, rows: int) -> float:
        l2 = (call.basis_bytes + features) / device.l2
        tensor = 2 * rows * call.functions * call.channels * parts.products / device.bfloat16
        return max(both / device.memory, l2, tensor) + device.launch

    one, two = (Parts(1, 1, False), Parts(1, 2, False)) if call.half else (Parts(2, 2, True),) * 2
    forward = seconds(one, features, call.rows)
    if direction == "forward":
        return forward
    return 2 * forward + 2 * seconds(two, 2 * features, call.one_way.rows)


def predict(case: Case, device: Device) -> Prediction:
    call = Call.of(case)
    found = tuple(launches(call, case.direction, device))
    return Prediction(device, found, 4, least(call, case.direction, device))
