"""What fft_conv's CUDA kernels have to do: the launchers of csrc/cuda/fft_conv.cu, as counts.

Left out: the sine and cosine of the factors, two for 16 points and block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .harness import Case
from .model import MIB, NOTHING, Count, Device, Launch, Prediction, sectors
from .model_fft_conv_tiles import GROUP, Call, Lanes, Ring, Tile, is_wide


def predict(case: Case, device: Device) -> Prediction:
    """The forward call of a case, and where its direction is backward the backward call too."""
    call = Call.of(case)
    launches = [*forward(call, device)]
    if case.direction == "backward":
        launches += backward(call, device)
    return Prediction(device, tuple(launches), call.real)


# ---- the launchers (csrc/cuda/fft_conv.cu) -----------------------------------------------------------------


def log2_at_least(n: int) -> int:
    return (n - 1).bit_length() if n > 1 else 0


def log_n_of(call: Call) -> int:
    return max(5, log2_at_least(call.length))


def one_launch(call: Call, device: Device) -> bool:
    log_n = log_n_of(call)
    return log_n <= 14 and Ring(log_n, call.real).shared_bytes <= device.block_shared


def ring_of_rows(call: Call, rows: int) -> Ring:
    log_n, single = log_n_of(call), call.real == 4
    rows_fastest = call.layout == "bld" and call.channels != 1
    log_rows = max(10 + single - log_n, 0)
    if rows_fastest:
        log_rows = max(log_rows, min(max(11 + single - log_n, 0), 4))
    return Ring(log_n, call.real, min(log_rows, log2_at_least(rows)), rows_fastest)


def whole_rows(call: Call, ring: Ring, existing: float) -> Tile:
    """From tensors: runs of 16 bytes a thread where rows are wide; parts of a filter's gradient go alike."""
    positions = min(ring.n // GROUP, 32)
    signal = ring.rows if ring.rows_fastest else positions
    filter = max(32 // ring.rows, 1) if ring.rows_fastest else positions
    if call.wide:
        signal = positions * 16 // call.item
    if call.mode == "causal" and is_wide(call.filter_item, call.taps):
        filter = positions * 16 // call.filter_item
    return Tile(call, ring, Lanes(signal, filter, 32), existing, whole=True)


def chunks_of(enough: int, tiles: int, repeats: int) -> int:
    return min(max(-(-enough // max(tiles, 1)), 1), max(repeats, 1))


def spectra_outside(ring: Ring, count: int, device: Device) -> int:
    """Of a block's spectra, those for which shared memory has no room."""
    return count - min(count, (device.block_shared - ring.shared_bytes) // ring.spectrum_bytes)


@dataclass(frozen=True)
class Spectra:
    """Where a block keeps its spectra: in shared memory as far as they fit, else in the workspace."""

    tile: Tile
    outside: int
    count: int

    def touch(self, i: int, *, loads: int = 0, stores: int = 0) -> Count:
        if i < self.count - self.outside:
            return self.tile.ring.touch * (GROUP * (loads + stores))
        whole = sectors(GROUP * self.tile.ring.groups, 2 * self.tile.ring.real, 32)
        return Count(loads=loads * whole, stores=stores * whole)


def forward(call: Call, device: Device) -> Iterator[Launch]:
    if not call.rows or not call.length:
        return
    if not one_launch(call, device):
        yield from three_launches(call, device, forward=True)
        return
    ring = ring_of_rows(call, call.rows)
    over_batch = call.shared and call.channels >= ring.rows
    ids, repeats = (call.channels, call.batch) if over_batch else (call.rows, 1)
    tiles = -(-ids // ring.rows)
    chunks = chunks_of(2048, tiles, repeats)
    tile = whole_rows(call, ring, ids / tiles)
    spectra = Spectra(tile, spectra_outside(ring, 1, device), 1)

    filters = tile.load_filter() + ring.forward() + spectra.touch(0, stores=1)
    signals = tile.load_signal() + ring.forward() + spectra.touch(0, loads=1) + ring.every_point(4)
    results = ring.begin_inverse() + ring.inverse() + tile.store_y()
    units = tiles * chunks
    blocks = blocks_of(ring, units, spectra, device)
    count = ring.fill_factors() * blocks + filters * units + (signals + results) * (tiles * repeats)
    memory = call.signal_bytes * (2 + call.pre_gate + call.post_gate) + call.filter_bytes
    yield Launch("convolve", blocks, ring.threads, count, memory)


def blocks_of(ring: Ring, units: int, spectra: Spectra, device: Device) -> int:
    if not spectra.outside:
        return units
    shared = ring.shared_bytes + (spectra.count - spectra.outside) * ring.spectrum_bytes
    return min(units, device.multiprocessors * max(1, device.block_shared // shared))


@dataclass(frozen=True)
class Wanted:
    signal: bool
    post_gate: bool
    filter: bool
    summed: bool

    @staticmethod
    def of(call: Call) -> Wanted:
        filter = call.wants("filter") or call.wants("skip")
        signal = call.wants("x") or call.wants("pre_gate")
        return Wanted(signal, call.wants("post_gate"), filter, filter and call.shared)

    @property
    def filters(self) -> bool:
        """Whether filters are transformed; and so on."""
        return self.signal or self.post_gate

    @property
    def signals(self) -> bool:
        return self.post_gate or self.filter

    @property
    def gradients(self) -> bool:
        return self.signal or self.filter


def backward(call: Call, device: Device) -> Iterator[Launch]:
    wanted = Wanted.of(call)
    if not call.rows or not call.length or not (wanted.gradients or wanted.post_gate):
        return
    if one_launch(call, device):
        yield from one_launch_backward(call, wanted, device)
    else:
        yield from three_launches(call, device, forward=False)
    if call.wants("skip"):
        lags = (1 if call.shared else call.batch) * call.channels * call.real
        count = Count(loads=lags, stores=call.channels * call.filter_item, operations=lags / call.real)
        yield Launch("collect_skip", -(-call.channels // 256), 256, count, 0)


def one_launch_backward(call: Call, wanted: Wanted, device: Device) -> Iterator[Launch]:
    ids, repeats = (call.channels, call.batch) if call.shared else (call.rows, 1)
    ring = ring_of_rows(call, ids)
    tiles = -(-ids // ring.rows)
    chunks = chunks_of(264 if wanted.summed else 2048, tiles, repeats)
    tile = whole_rows(call, ring, ids / tiles)
    kept = 3 if wanted.summed else 2 if wanted.filter else 1
    spectra = Spectra(tile, spectra_outside(ring, kept, device), kept)
    in_parts = wanted.summed and chunks > 1

    first, each, last = correlate(call, ring, spectra, wanted, sum_at=2 if wanted.summed else 1)
    if wanted.filters:
        first += tile.load_filter()
    if wanted.signals:
        each += tile.load_signal()
    if wanted.post_gate:
        each += tile.store_grad_post_gate()
    if wanted.gradients:
        each += tile.load_gradient()
    if wanted.signal:
        each += tile.store_grad_signal()
    if wanted.filter:
        last += parts_of(tile) if in_parts else taps_of(call, tile)
    units = tiles * chunks
    blocks = blocks_of(ring, units, spectra, device)
    count = ring.fill_factors() * blocks + (first + last) * units + each * (tiles * repeats)
    yield Launch("correlate", blocks, ring.threads, count, backward_memory(call, wanted, in_parts))
    if in_parts:
        yield collect_taps(call, chunks, ring.n)


def correlate(
    call: Call, ring: Ring, spectra: Spectra, wanted: Wanted, sum_at: int
) -> tuple[Count, Count, Count]:
    """What a unit does first, for each repeat, and last, without the tensors."""
    first = each = last = NOTHING
    if wanted.filters:
        first += ring.forward() + spectra.touch(0, stores=1)
    if wanted.summed:
        first += spectra.touch(sum_at, stores=1)
    if wanted.signals:
        each += ring.forward()
    if wanted.filter:
        each += spectra.touch(1, stores=1)
    if wanted.post_gate:
        each += spectra.touch(0, loads=1) + ring.every_point(4) + ring.begin_inverse() + ring.inverse()
    if wanted.gradients:
        each += ring.forward()
    if wanted.filter:
        each += spectra.touch(1, loads=1) + spectra.touch(sum_at, loads=wanted.summed, stores=1)
        each += ring.every_point(6 if wanted.summed else 4)
        last += spectra.touch(sum_at, loads=1) + ring.begin_inverse() + ring.inverse()
    if wanted.signal:
        each += spectra.touch(0, loads=1) + ring.every_point(4) + ring.begin_inverse() + ring.inverse()
    return first, each, last


def points_of_a_tap(call: Call) -> int:
    return 2 if call.mode == "circular" else 1


def taps_of(call: Call, tile: Tile) -> Count:
    """The filter's gradient goes through shared memory once more: a tap may draw on two points."""
    elements = tile.existing * call.taps if call.wants("filter") else 0
    count = Count(
        stores=sectors(elements, call.filter_item, 32),
        wavefronts=elements * points_of_a_tap(call) * 2 * tile.ring.real / 128,
        operations=elements * 2 * points_of_a_tap(call),
    )
    return count + tile.ring.touch * GROUP


def parts_of(tile: Tile) -> Count:
    stores = tile.existing * tile.ring.n * 2 * tile.ring.real
    return tile.ring.touch * (2 * GROUP) + Count(stores=stores)


def collect_taps(call: Call, parts: int, n: int, ids: int = 0) -> Launch:
    ids = ids or (call.channels if call.shared else call.rows)
    elements = ids * (call.taps if call.wants("filter") else 1)
    points = elements * points_of_a_tap(call) * parts
    stored = elements * call.filter_item if call.wants("filter") else 0
    count = Count(points * 2 * call.real, stored, 0, 2 * points)
    return Launch("collect_taps", -(-elements // 256), 256, count, parts * ids * n * 2 * call.real + stored)


def backward_memory(call: Call, wanted: Wanted, in_parts: bool) -> float:
    """Each tensor once; a gradient that is collected from parts is written by another launch."""
    signals = (wanted.signals or call.wants("pre_gate")) + (wanted.signals and call.pre_gate)
    signals += 1 + call.post_gate  # grad_out and its gate
    signals += sum(call.wants(name) for name in ("x", "pre_gate", "post_gate"))
    filters = wanted.filters + (call.wants("filter") and not in_parts)
    return call.signal_bytes * signals + call.filter_bytes * filters


PORTION_BYTES = 64 * MIB


def three_launches(call: Call, device: Device, forward: bool) -> Iterator[Launch]:
    ids, repeats = (call.channels, call.batch) if call.shared else (call.rows, 1)
    wanted = Wanted(False, False, False, False) if forward else Wanted.of(call)
    log_n = log_n_of(call)
    log_n2 = min(12, log_n - 5)
    log_n1 = log_n - log_n2
    columns = Ring(log_n1, call.real, max(4 if call.real == 4 else 3, 11 - log_n1), True)
    while columns.shared_bytes > device.block_shared:
        columns = replace(columns, log_rows=columns.log_rows - 1)
    rows = Ring(log_n2, call.real)

    # The portions.
    polynomial = 2 * call.real << log_n
    loads_filters, loads_signals = forward or wanted.filters, forward or wanted.signals
    loads_gradients = not forward and wanted.gradients
    per_id = (loads_filters + wanted.filter) * polynomial
    per_repeat = (loads_signals + loads_gradients) * polynomial
    ids_at_once = min(max(PORTION_BYTES // (per_id + max(repeats, 1) * per_repeat), 1), max(ids, 1))
    repeats_at_once = repeats
    if ids_at_once == 1:
        repeats_at_once = min(max((PORTION_BYTES - per_id) // per_repeat, 1), max(repeats, 1))
    portion_bytes = ids_at_once * (per_id + repeats_at_once * per_repeat)
    in_memory = portion_bytes > device.l2_bytes  # else what is written stays in the L2 cache

    # A column is N1 of a row's N points; `part` rows' worth of elements lie in a block.
    part = columns.rows / (1 << log_n2)
    run = min(columns.rows, 32)
    along = run if call.layout == "bdl" or call.channels == 1 else 1
    tile = Tile(call, columns, Lanes(along, run, run), part)
    whole = Tile(call, rows, Lanes(32, 32, 32), 1)
    spectra = Spectra(whole, spectra_outside(rows, 1 + wanted.filter, device), 1 + wanted.filter)

    for first_id in range(0, ids, ids_at_once):
        n_ids = min(ids_at_once, ids - first_id)
        for first in range(0, max(repeats, 1), repeats_at_once):
            n_repeats = min(repeats_at_once, repeats - first)
            last = first + n_repeats == repeats
            signals = n_ids * n_repeats
            portion = Portion(
                call, wanted, forward, n_ids, n_repeats, first == 0, last, polynomial, in_memory
            )
            yield portion.columns_forward(tile, log_n2)
            yield portion.rows(whole, spectra, log_n1, signals)
            yield portion.columns_inverse(tile, log_n2)
        if wanted.filter:
            yield collect_taps(call, 1, 1 << log_n, n_ids)


@dataclass(frozen=True)
class Portion:
    call: Call
    wanted: Wanted
    forward: bool
    ids: int
    repeats: int
    first: bool
    last: bool
    polynomial: int
    in_memory: bool

    @property
    def signals(self) -> int:
        return self.ids * self.repeats

    def _memory(self, polynomials: int, signals: int, filters: int) -> float:
        """Bytes: `signals` tensors of this portion's rows, `filters` of its filters, polynomials if they
        do not stay in the L2 cache."""
        call = self.call
        row, filter = call.length * call.item, call.taps * call.filter_item
        return (
            signals * self.signals * row
            + filters * self.ids * filter
            + self.in_memory * polynomials * self.polynomial
        )

    def columns_forward(self, tile: Tile, log_n2: int) -> Launch:
        call, ring = self.call, tile.ring
        each = ring.forward() + tile.polynomials(stores=1)
        filters = self.forward or self.wanted.filters
        signals = self.forward or self.wanted.signals
        gradients = not self.forward and self.wanted.gradients
        count = (each + tile.load_filter()) * (filters * self.ids)
        count += (each + tile.load_signal()) * (signals * self.signals)
        count += (each + tile.load_gradient()) * (gradients * self.signals)
        polynomials = filters * self.ids + (signals + gradients) * self.signals
        tensors = signals * (1 + call.pre_gate) + gradients * (1 + call.post_gate)
        memory = self._memory(polynomials, tensors, filters)
        return self._columns("columns_forward", tile, log_n2, count, polynomials, memory)

    def _columns(
        self, kernel: str, tile: Tile, log_n2: int, count: Count, polynomials: int, memory: float
    ) -> Launch:
        blocks_each = 1 << (log_n2 - tile.ring.log_rows)
        count = (count + tile.ring.fill_factors() * polynomials) * blocks_each
        return Launch(kernel, polynomials * blocks_each, tile.ring.threads, count, memory)

    def rows(self, tile: Tile, spectra: Spectra, log_n1: int, signals: int) -> Launch:
        call, ring, wanted = self.call, tile.ring, self.wanted
        if self.forward:
            first = ring.forward() + spectra.touch(0, stores=1) + tile.polynomials(loads=1)
            each = ring.forward() + spectra.touch(0, loads=1) + ring.every_point(4)
            each += ring.begin_inverse() + ring.inverse() + tile.polynomials(loads=1, stores=1)
            last = NOTHING
            moved = self.ids + 2 * signals
        else:
            # A sum lives in the workspace, where its polynomial will be.
            outside = replace(spectra, count=3, outside=1 + spectra.outside) if wanted.summed else spectra
            first, each, last = correlate(call, ring, outside, wanted, sum_at=2 if wanted.summed else 1)
            if wanted.summed and not self.first:
                first += spectra_start(outside) * -1
            first += tile.polynomials(loads=wanted.filters)
            each += tile.polynomials(
                loads=wanted.signals + wanted.gradients, stores=wanted.post_gate + wanted.signal
            )
            last = last + tile.polynomials(stores=1) if wanted.filter and self.last else NOTHING
            touched = wanted.signals + wanted.gradients + wanted.post_gate + wanted.signal
            moved = (wanted.filters + wanted.filter) * self.ids + touched * signals
        rows = 1 << log_n1
        count = (ring.fill_factors() + first + last) * (rows * self.ids) + each * (rows * signals)
        kernel = "convolve" if self.forward else "correlate"
        return Launch(kernel, rows * self.ids, ring.threads, count, self._memory(moved, 0, 0))

    def columns_inverse(self, tile: Tile, log_n2: int) -> Launch:
        call, ring, wanted = self.call, tile.ring, self.wanted
        each = ring.begin_inverse() + ring.inverse() + tile.polynomials(loads=1)
        again = call.skip * (1 + call.pre_gate)
        count, tensors, polynomials, written = NOTHING, 0, 0, 0
        if self.forward:
            count += (each + tile.store_y()) * self.signals
            tensors, polynomials = 1 + call.post_gate + again, self.signals
        if wanted.post_gate:
            count += (each + tile.store_grad_post_gate()) * self.signals
            tensors, polynomials = tensors + 2 + again, polynomials + self.signals
        if wanted.signal:
            count += (each + tile.store_grad_signal()) * self.signals
            tensors += call.skip * (1 + call.post_gate) + 2 * call.wants("pre_gate")
            tensors += call.wants("x") * (1 + (call.pre_gate and not again))
            polynomials += self.signals
        if wanted.filter and self.last:
            count += (each + tile.polynomials(stores=1)) * self.ids
            polynomials, written = polynomials + self.ids, self.ids
        memory = self._memory(polynomials + written, tensors, 0)
        return self._columns("columns_inverse", tile, log_n2, count, polynomials, memory)


def spectra_start(spectra: Spectra) -> Count:
    return spectra.touch(2, stores=1)
