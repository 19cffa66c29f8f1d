"""conditioned_conv's cost on a GPU: model.py, for the launches of csrc/cuda/conditioned_conv.cu on contiguous
tensors, at the lengths that have kernels.

All tensors of a benchmark's case are there: both gates, a static filter of the whole length, bias and skip,
of the dtype of x; backward makes every gradient. A spectrum's neighbours lie at places enumerated here.
tests/test_model_conditioned_conv.py counts all but the operations, which are estimates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .bench_conditioned_conv import ConditionedCase
from .harness import DIRECTIONS, DTYPES, Case
from .model import Count, Device, Launch, Prediction
from .model_half_spectra import HalfSpectra, chunks_of, has_kernels

CASES = [
    ConditionedCase(
        length=length, batch=2**26 // (256 * length), channels=256, direction=direction, keyed=keyed,
        layout="bld", device="cuda",
    )
    for length in (1024, 4096, 8192)
    for keyed in (False, True)
    for direction in DIRECTIONS
]  # fmt: skip

WEIGHTS = 18


def predict(case: Case, device: Device) -> Prediction:
    """Forward, or forward and backward."""
    if not has_kernels(case):
        raise ValueError(f"conditioned_conv has no kernels for {case.length} positions of {case.dtype}")
    assert isinstance(case, ConditionedCase)
    launches: tuple[Launch, ...] = (forward(case),) if case.elements else ()
    if case.elements and case.direction == "backward":
        launches += backward(case)
    return Prediction(device, launches, max(DTYPES[case.dtype].itemsize, 4))


def forward(case: ConditionedCase, gates: int = 2, dtype: str = "") -> Launch:
    """dtype: that of the weights, where it is not that of the signals."""
    row = Row.of(case, keyed=case.keyed, gates=gates, weight=_weight(case, dtype))
    blocks, signal, weights = _sizes(case, row)
    return Launch(
        "conditioned_rows", blocks, row.threads,
        (row.setup + row.static_transform) * blocks + row.forward * (case.batch * case.channels),
        signal * (3 + gates + case.keyed) + weights,
    )  # fmt: skip


def backward(case: ConditionedCase, gates: int = 2, dtype: str = "") -> tuple[Launch, ...]:
    """gates: with one it is the post gate."""
    row = Row.of(case, keyed=case.keyed, gates=gates, weight=_weight(case, dtype))
    real, rows = row.ring.real, case.batch * case.channels
    blocks, signal, weights = _sizes(case, row)
    sums, filters = blocks * WEIGHTS * real, blocks * (case.length + 2) * real
    gradients = Launch(
        "conditioned_gradients", blocks, row.threads,
        row.setup * blocks + row.backward * rows + row.filter_sums(rows, blocks)
        + Count(stores=blocks * 96 if real == 4 else blocks * 160),
        signal * (5 + 2 * gates + 2 * case.keyed) + weights + sums + filters,
    )  # fmt: skip
    each = WEIGHTS + case.length
    totals = Launch(
        "conditioned_totals", -(-case.channels * each // 256), 256,
        # a channel's 18 weights stand before its taps, so what a warp asks for lies across whole sectors
        Count(
            loads=(sums + filters) * (1 + 1 / real),
            stores=weights * (1 + 1 / row.weight),
            operations=blocks * each,
        ),
        sums + filters + weights,
    )  # fmt: skip
    return gradients, totals


def _weight(case: ConditionedCase, dtype: str) -> int:
    return DTYPES[dtype or case.dtype].itemsize


def _sizes(case: ConditionedCase, row: Row) -> tuple[int, int, int]:
    """Blocks; bytes of a signal, and of the weights with the static filter."""
    weights = case.channels * (3 + 1 + 1 + case.length) * row.weight
    return case.channels * chunks_of(case), case.elements * row.item, weights


@dataclass(frozen=True)
class Row(HalfSpectra):
    """What a block does for a row of 2 N numbers."""

    keyed: bool = False
    gates: int = 2
    weight: int = 4  # bytes of one

    @property
    def setup(self) -> Count:
        return self.ring.fill_factors() + self.weights

    @property
    def weights(self) -> Count:
        """A channel's taps, bias and skip; a warp's broadcast of one of them is a wavefront."""
        return Count(loads=3 * 32, wavefronts=math.ceil(WEIGHTS * self.ring.real / 128))

    @property
    def static_transform(self) -> Count:
        """A filter lies as (D, L)."""
        return self.transform + Count(loads=2 * self.ring.n * self.weight)

    def taps(self, width: int = 3) -> Count:
        """H at two frequencies: the neighbours of each, and as many broadcasts of weights, and two more."""
        n, mid = self.ring.n, width // 2
        near = [lambda i, j=j: self._inside(i + mid - j) for j in range(width)]
        far = [lambda i, j=j: self._inside(n - i + mid - j) for j in range(width)]
        warps = math.ceil(self.half / 32)
        broadcasts = Count(wavefronts=warps * (width + 2))
        return self.reads(near + far) + broadcasts + self.operations(tap=2 * width)

    def _inside(self, i: int) -> int:
        return -i if i < 0 else 2 * self.ring.n - i if i > self.ring.n else i

    @property
    def conditioning(self) -> Count:
        signals = 1 + self.keyed
        return self.two * (signals + 1) + self.operations(get=signals, product=1)

    # ---- a row ---------------------------------------------------------------------------------------------

    @property
    def forward(self) -> Count:
        inputs = 2 + self.keyed  # x, query, key
        count = self.transform * inputs + self.load(inputs) + self.conditioning
        count += self.taps() + self.two * 3 + self.operations(get=2, put=1, product=1)
        return count + self.way_back + self.load(self.gates) + self.store(1)

    @property
    def backward(self) -> Count:
        signals = 3 + 2 * self.keyed  # x, grad_out, query, key twice
        count = self.transform * signals + self.load(signals + self.gates)
        count += self.static_transform + self.conditioning * 2
        count += self.taps() + self.two * 2 + self.operations(get=1)  # H
        count += self.two * 6 + self.operations(get=2, put=2, product=3)  # the product
        count += self._weight_sums() + self._adjoint()
        ways_back = 3 + self.keyed
        # a row that goes back to the gradients of x and of its gate is multiplied with x either way
        count += self.way_back * ways_back + self.load(1 + self.gates)
        return count + self.store(ways_back - 1 + self.gates)

    def _weight_sums(self, width: int = 3) -> Count:
        n, mid = self.ring.n, width // 2
        places = [lambda i: i, *(lambda i, j=j: self._inside(i + mid - j) for j in range(width))]
        warps = max(self.ring.groups // 32, 1)
        # to shared memory by the first lane of each warp, and back by a thread for each
        kept = Count(wavefronts=2 * WEIGHTS * warps, operations=(n + 1) * 4 * width)
        return self.reads(places, n) + kept

    def _adjoint(self, width: int = 3) -> Count:
        signals = 1 + self.keyed
        count = self.taps(width) + self.two * (2 * signals)
        return count + self.operations(get=signals, put=signals, product=signals)

    def filter_sums(self, rows: int, blocks: int) -> Count:
        """The sums over a chunk's rows, and back in time: complex numbers of the workspace."""
        spectrum = 2 * self.ring.real * (self.ring.n + 1)
        back = self.two + self.way_back + self.operations(put=1)
        count = Count(loads=rows * spectrum, stores=rows * spectrum)
        return count + (back + Count(stores=2 * self.ring.real * self.ring.n)) * blocks
