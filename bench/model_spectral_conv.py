"""spectral_conv's cost on a GPU: model.py, for the launches of csrc/cuda/spectral_conv.cu on contiguous
tensors, at the lengths that have kernels. At all others it is fft_conv, and what torch.fft.irfft takes is not
counted.

The spectrum is complex; skip is there, of the dtype of x; backward makes every gradient.
tests/test_model_spectral_conv.py counts all but the operations, which are estimates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import model_fft_conv
from .harness import Case
from .model import Count, Device, Launch, Prediction
from .model_half_spectra import HalfSpectra, chunks_of, has_kernels


def predict(case: Case, device: Device) -> Prediction:
    """Forward, or forward and backward."""
    if not has_kernels(case):
        return model_fft_conv.predict(replace(case, op="fft_conv", mode="circular"), device)
    row = Row.of(case, gates=case.gates, shared=case.filter == "shared")
    real = row.ring.real
    if case.elements == 0:
        return Prediction(device, (), real)
    rows, chunks = case.batch * case.channels, chunks_of(case)
    blocks = case.channels * chunks
    signal = rows * case.length * row.item
    spectra = (case.channels if row.shared else rows) * row.frequencies * row.entry
    skip = case.channels * row.item

    forward = Launch(
        "spectral_rows", blocks, row.threads,
        row.ring.fill_factors() * blocks + (row.forward + row.skip) * rows,
        signal * (2 + 2 * row.gates) + spectra + skip,
    )  # fmt: skip
    if case.direction == "forward":
        return Prediction(device, (forward,), real)

    numbers = case.channels * (1 + row.shared * 2 * row.frequencies)  # a chunk's sums
    sums = chunks * numbers * real
    read, written = sectors(numbers * real), sectors(skip) + row.shared * sectors(spectra)
    gradients = Launch(
        "spectral_gradients", blocks, row.threads,
        (row.ring.fill_factors() + row.skip + row.block_sums) * blocks + row.backward * rows
        + (row.own_gradient * rows if not row.shared else row.shared_gradient(rows, blocks)),
        signal * (3 + 4 * row.gates) + spectra + skip + sums + (0 if row.shared else spectra),
    )  # fmt: skip
    totals = Launch(
        "spectral_totals", -(-numbers // 256), 256,
        Count(loads=chunks * read, stores=written, operations=chunks * numbers),
        chunks * read + written,
    )  # fmt: skip
    return Prediction(device, (forward, gradients, totals), real)


def sectors(size: int) -> int:
    """Bytes of those that hold so many."""
    return -(-size // 32) * 32


@dataclass(frozen=True)
class Row(HalfSpectra):
    """What a block does for a row of 2 N numbers."""

    gates: bool = True
    shared: bool = False

    @property
    def frequencies(self) -> int:
        return self.ring.n + 1

    @property
    def entry(self) -> int:
        """Bytes of a frequency: spectra are float32 beside half types."""
        return 2 * self.ring.real

    @property
    def spectrum(self) -> int:
        """Bytes asked for: 32 neighbours, upwards or downwards, which lie across a sector more where they do
        not begin with one, and a last one alone."""
        whole, run = divmod(self.ring.n // 2, 32)
        runs = whole * (32 * self.entry + 32 - self.entry) + (32 if run == 0 else (run + 1) * self.entry)
        return 2 * runs

    @property
    def skip(self) -> Count:
        """One number for all threads of a warp."""
        return Count(loads=self.threads)

    @property
    def forward(self) -> Count:
        count = self.transform + self.load(1 + self.gates) + Count(loads=self.spectrum)
        count += self.two * 2 + self.operations(get=1, put=1, product=1)
        return count + self.way_back + self.load(self.gates) + self.store(1)

    @property
    def backward(self) -> Count:
        count = self.transform * 2 + self.load(2 + 2 * self.gates) + Count(loads=self.spectrum)
        count += self.two * 4 + self.operations(get=2, put=2, product=3)
        ways_back = 1 + self.gates
        return count + self.way_back * ways_back + self.load(3 * self.gates) + self.store(1 + 2 * self.gates)

    @property
    def own_gradient(self) -> Count:
        return Count(stores=self.spectrum)

    def shared_gradient(self, rows: int, blocks: int) -> Count:
        """Sums of a chunk's rows in shared memory, and from there to the workspace."""
        return self.two * (2 * rows - blocks) + self.own_gradient * blocks

    @property
    def block_sums(self) -> Count:
        """Of skip: each warp's first lane writes, one thread reads them and writes the sum."""
        return Count(stores=32, wavefronts=2 * (self.threads // 32))
