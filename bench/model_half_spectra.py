"""Parts of the models of conditioned_conv and spectral_conv: what a block does for a row whose spectrum is in
its shared memory (csrc/cuda/half_spectra.cuh), and how many blocks there are (half_spectra_blocks.cuh)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .harness import DTYPES, Case
from .model import Count
from .model_fft_conv_tiles import GROUP, Ring

if TYPE_CHECKING:
    from typing_extensions import Self

ENOUGH_BLOCKS = 1024
OPERATIONS = {"get": 12, "put": 16, "tap": 6, "product": 8}  # of two frequencies; a tap's of each of them


def has_kernels(case: Case) -> bool:
    log = case.length.bit_length() - 1
    return case.length == 1 << log and 6 <= log <= (12 if case.dtype == "float64" else 13)


def chunks_of(case: Case) -> int:
    """Of the batch."""
    return min(max(-(-ENOUGH_BLOCKS // case.channels), 1), case.batch)


@dataclass(frozen=True)
class HalfSpectra:
    """What a block does for a row of 2 N numbers."""

    ring: Ring
    item: int
    apart: int  # positions: 1, then two are read at a time, or as many as there are channels

    @classmethod
    def of(cls, case: Case, **more: Any) -> Self:
        item = DTYPES[case.dtype].itemsize
        ring = Ring(case.length.bit_length() - 2, max(item, 4))
        return cls(ring, item, 1 if case.layout == "bdl" else case.channels, **more)

    @property
    def threads(self) -> int:
        return max(self.ring.groups, 32)

    # ---- tensors -------------------------------------------------------------------------------------------

    @property
    def tensor(self) -> int:
        """Bytes asked for: one by one, a warp's lanes ask for every second position."""
        each = self.item if self.apart == 1 else min(2 * self.apart * self.item, 32)
        return 2 * self.ring.n * each

    def load(self, tensors: int) -> Count:
        return Count(loads=tensors * self.tensor, operations=2 * self.ring.n * tensors)

    def store(self, tensors: int) -> Count:
        return Count(stores=tensors * self.tensor)

    # ---- transforms ----------------------------------------------------------------------------------------

    @property
    def transform(self) -> Count:
        return self.ring.forward() + self.sorting

    @property
    def way_back(self) -> Count:
        return self.sorting + self.ring.begin_inverse() + self.ring.inverse()

    @property
    def sorting(self) -> Count:
        """From the ring's order of points to that of frequencies, or back: the side that conflicts."""
        n, log = self.ring.n, self.ring.log_n

        def reversed_bits(i: int, bits: int) -> int:
            return int(f"{i:0{bits}b}"[::-1], 2)

        places = [lambda g, k=k: (n - reversed_bits(g * GROUP + k, log)) % n for k in range(GROUP)]
        return self.reads(places, self.ring.groups - 1)

    # ---- spectra -------------------------------------------------------------------------------------------

    def reads(self, places: Iterable[Callable[[int], int]], last: int | None = None) -> Count:
        """Wavefronts of one complex number at each of the places f(i), for the frequencies i up to `last`."""
        last = self.ring.n // 2 if last is None else last
        lanes = 64 // self.ring.real
        waves = 0
        for place in places:
            for first in range(0, last + 1, lanes):
                slots = [place(i) for i in range(first, min(first + lanes, last + 1))]
                banks = {slot: (slot + (slot >> 4)) % lanes for slot in slots}
                waves += max(list(banks.values()).count(bank) for bank in set(banks.values()))
        return Count(wavefronts=waves)

    @property
    def two(self) -> Count:
        """A frequency and its mirror image."""
        return self.reads([lambda i: i, lambda i: self.ring.n - i])

    @property
    def half(self) -> int:
        return self.ring.n // 2 + 1

    def operations(self, **times: int) -> Count:
        return Count(operations=self.half * sum(OPERATIONS[name] * n for name, n in times.items()))
