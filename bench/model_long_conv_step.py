"""long_conv_step's cost on a GPU: model.py, for the launches of csrc/cuda/long_conv_step.cu.

    python -m equiconv bench --model h200 --op long_conv_step

A case is a sequence of `length` tokens one by one, so its floor over the length is that of a token. Rows of
whole sectors, a filter of as many taps. tests/test_model_long_conv_step.py counts the kernels, but for the
operations, which are estimates, and fft_conv's (model_fft_conv.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from equiconv.nn.long_conv_state import widest_square

from .harness import DTYPES, Case
from .model import Count, Device, Launch, Prediction, sectors
from .model_fft_conv import forward
from .model_fft_conv_tiles import Call

BLOCK, WIDEST_OF_PRODUCTS = 64, 256
LANES, WARPS = 32, 8
THREADS = LANES * WARPS
EACH = BLOCK // WARPS

CASES = [
    Case(op="long_conv_step", length=length, batch=batch, channels=channels, layout="bld", filter="shared",
         dtype=dtype)
    for length in (4096, 16384)
    for batch, channels in ((1, 256), (8, 256), (64, 1024))
    for dtype in ("float32", "bfloat16")
]  # fmt: skip


def predict(case: Case, device: Device) -> Prediction:
    of = Decoding(case)
    launches = [launch for position in range(case.length) for launch in of.token(position, device)]
    return Prediction(device, tuple(launches), of.real)


@dataclass(frozen=True)
class Decoding:
    case: Case

    @property
    def real(self) -> int:
        return max(DTYPES[self.case.dtype].itemsize, 4)

    @property
    def entries(self) -> int:
        """Batch entries of the buffer; samples with a filter each are one."""
        return self.case.batch if self.case.filter == "shared" else 1

    @property
    def channels(self) -> int:
        return self.case.channels * self.case.batch // self.entries

    @property
    def tiles(self) -> int:
        return -(-self.channels // LANES)

    @property
    def rows(self) -> int:
        return -(-self.case.length // BLOCK) * BLOCK

    def of_a_row(self, item: int) -> float:
        """Bytes of all channels of one position, of one entry."""
        return sectors(self.channels, item, min(self.channels, LANES))

    @property
    def wavefront(self) -> float:
        return LANES * self.real / 128

    def token(self, position: int, device: Device) -> Iterator[Launch]:
        """What the token at a position launches."""
        case, item = self.case, DTYPES[self.case.dtype].itemsize
        lags = position % BLOCK
        kept, given, signals = self.of_a_row(self.real), self.of_a_row(item), 1 + 2 * case.gates
        blocks = self.entries * self.tiles
        count = Count(
            loads=self.entries * (signals * given + 2 * (1 + lags) * kept),
            stores=self.entries * (given + kept),
            wavefronts=(2 * WARPS - 1) * self.wavefront * blocks,
            operations=self.entries * self.channels * (lags + WARPS + signals),
        )
        memory = self.entries * ((signals + 1) * given + (2 + lags) * kept) + (1 + lags) * kept
        yield Launch("take_tokens", blocks, THREADS, count, memory)
        here = position + 1
        width = min(here & -here, widest_square(case.length, case.length))
        if width >= BLOCK and here < self.rows:
            yield from self.square(width, min(width, self.rows - here) // BLOCK, device)

    def square(self, width: int, parts: int, device: Device) -> Iterator[Launch]:
        """Of so many blocks of positions, to `parts` blocks ahead."""
        kept, blocks = self.of_a_row(self.real), self.entries * self.tiles * parts
        ahead = self.entries * parts * BLOCK * kept
        if width > WIDEST_OF_PRODUCTS:
            dtype = "float64" if self.real == 8 else "float32"
            sizes = self.entries, self.channels, width, 2 * width - 1
            kind = "bidirectional", True, "bld", dtype
            call = Call(*sizes, *kind, pre_gate=False, post_gate=False, skip=False)
            yield from forward(call, device)
            sums = ahead / self.real
            yield Launch("add_ahead", blocks, THREADS, Count(2 * ahead, ahead, 0, sums), 3 * ahead)
            return
        chunks = width // BLOCK
        staged = 2 * BLOCK - 1 + BLOCK  # rows of shared memory
        read = EACH - 1 + EACH * 2 * EACH  # by each warp
        count = Count(
            loads=ahead + self.entries * parts * chunks * staged * kept,
            stores=ahead,
            wavefronts=blocks * chunks * (staged + WARPS * read) * self.wavefront,
            operations=self.entries * self.channels * parts * BLOCK * (width + chunks + 1),
        )
        memory = self.entries * (width * kept) + 2 * ahead + 2 * width * kept
        yield Launch("add_products", blocks, THREADS, count, memory)
