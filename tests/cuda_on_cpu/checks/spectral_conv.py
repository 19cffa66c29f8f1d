"""What spectral_conv's CUDA kernels are checked with. In what they share with those of conditioned_conv most
mistakes are planted there."""

from __future__ import annotations

from . import Allowance, Mutation, Sampled

KERNELS, BLOCKS = "spectral_conv.cu", "half_spectra_blocks.cuh"


class Row(Sampled):
    """A sample of tests/test_cuda_spectral_conv.py, of a length that has kernels."""


def rows(dtype: str, *samples: str) -> list[tuple[Row, int]]:
    return [(Row("cuda_spectral_conv", sample, dtype), 90) for sample in samples]


# Between them every line: both types, with everything and with nothing, by twos and one by one.
CALLS = [
    *rows("float32", "shared", "per-sample", "real-shared", "plain", "strided", "channels-last",
          "batches-in-chunks"),
    *rows("float64", "shared", "strided-real"),
    *rows("bfloat16", "float32-weights", "real-per-sample"),
    *rows("float16", "per-sample"),
]  # fmt: skip

MUTATIONS = [
    Mutation("missing barrier", "before the sums of warps are read", BLOCKS,
             "  __syncthreads();\n  if (threadIdx.x < Count)", "  if (threadIdx.x < Count)"),
    Mutation("wrong index", "the first sample's spectrum for all", KERNELS,
             "batch * spectrum.batch + ", ""),
    Mutation("wrong index", "the gradients of all samples' spectra in one place", KERNELS,
             "batch * gradient.batch + ", ""),
    Mutation("wrong stride", "a spectrum's frequencies taken for neighbours", KERNELS,
             "i * spectrum.position", "i"),
    Mutation("dropped skip", "from the spectrum", KERNELS,
             "{z.re + skip, z.im}", "{z.re, z.im}"),
    Mutation("wrong conjugate", "what the gradient is multiplied with", KERNELS,
             "{conj(h.near) * g.near, conj(h.far) * g.far}", "{h.near * g.near, h.far * g.far}"),
    Mutation("wrong conjugate", "the gradient of the spectrum", KERNELS,
             "Two<R> m = {conj(u.near) * g.near, conj(u.far) * g.far};",
             "Two<R> m = {u.near * g.near, u.far * g.far};"),
    Mutation("wrong factor", "frequencies that count once", KERNELS,
             "if (f == 0) m = {{m.near.re / 2, R(0)}, {m.far.re / 2, R(0)}};", ""),
    Mutation("wrong sum", "the frequency in the middle twice", KERNELS,
             "f == n - f ? m.near.re : m.near.re + m.far.re", "m.near.re + m.far.re"),
    Mutation("wrong sum", "of a shared spectrum a chunk's last row only", KERNELS,
             "if (batch > of.begin) {", "if (batch > of.end) {"),
    Mutation("off by one", "the sums of the last chunk", KERNELS,
             "chunk < chunks; ++chunk", "chunk + 1 < chunks; ++chunk"),
    Mutation("overlapping memory", "the sums of all chunks", KERNELS,
             "sums.numbers + of.chunk * sums.pitch", "sums.numbers"),
    Mutation("wrong index", "the sums of skip among those of spectra", KERNELS,
             "of_chunk[sums.spectra + of.channel]", "of_chunk[of.channel]"),
    Mutation("swapped gate", "what the gradients of both gates are made of", KERNELS,
             "of.row(to_signal ? a.x : a.grad_out, batch)", "of.row(to_signal ? a.grad_out : a.x, batch)"),
    Mutation("too little workspace", "for one chunk", KERNELS,
             "workspace.take<R>(plan.chunks * sums.pitch)", "workspace.take<R>(sums.pitch)"),
    Mutation("too little shared memory", "two spectra of three", KERNELS,
             "block_shared<R>(ring, sums ? 3 : 2,", "block_shared<R>(ring, 2,"),
]  # fmt: skip

# ---- accesses to memory -------------------------------------------------------------------------------

ACCESSES = [
    call
    for dtype, samples in (
        ("float32", ("gates-alone", "channels-last", "long")),
        ("bfloat16", ("float32-weights",)),
    )
    for call, _ in rows(dtype, *samples)
]

ALLOWANCES = [
    Allowance("spectral_(rows|gradients)", "shared", 2.05, lambda call: True,
              "16 frequencies counted downwards lie across a seam of the padding"),
    Allowance("spectral_(rows|gradients)", "global", 4.05, lambda call: "channels-last" in str(call),
              "positions of a row are D apart, and a block has one row: its neighbours are other blocks'"),
    Allowance("spectral_(rows|gradients)", "global", 1.2, lambda call: True,
              "a spectrum has an odd number of entries, so its rows begin within a sector, as what is read "
              "downwards does"),
]  # fmt: skip
