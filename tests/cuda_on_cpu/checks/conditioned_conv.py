"""What conditioned_conv's CUDA kernels are checked with."""

from __future__ import annotations

from . import Allowance, Mutation, Sampled

KERNELS, NETWORK = "conditioned_conv.cu", "conditioned_conv_network.cuh"
SPECTRA, BLOCKS = "half_spectra.cuh", "half_spectra_blocks.cuh"


class Row(Sampled):
    """A sample of tests/test_cuda_conditioned_conv.py, of a length that has kernels."""


def rows(dtype: str, *samples: str) -> list[tuple[Row, int]]:
    return [(Row("cuda_conditioned_conv", sample, dtype), 90) for sample in samples]


# Between them every line: both types, with everything and with nothing, by twos and one by one.
CALLS = [
    *rows("float32", "magnitude", "correlation", "plain-correlation", "strided", "widest-magnitude",
          "batches-in-chunks"),
    *rows("float64", "correlation", "strided-magnitude"),
    *rows("bfloat16", "float32-weights", "strided-magnitude"),
    *rows("float16", "magnitude"),
]  # fmt: skip

MUTATIONS = [
    Mutation("missing barrier", "before a transform is sorted", SPECTRA,
             "    __syncthreads();  // the last pass has read all of z\n", ""),
    Mutation("missing barrier", "before a way back", SPECTRA,
             "    __syncthreads();  // all of z is there\n", ""),
    Mutation("missing barrier", "before neighbouring frequencies are read", KERNELS,
             "          __syncthreads();  // all of a is there\n", ""),
    Mutation("missing barrier", "before weights are summed", KERNELS,
             "          __syncthreads();  // all of a and M is there\n", ""),
    Mutation("wrong index", "frequencies in the order of the ring's roots", SPECTRA,
             "padded((n - first - reversed", "padded((n + first + reversed"),
    Mutation("missing guard", "an odd number of taps", SPECTRA,
             "if (at + 1 < row.count) stored[k].second", "if (at < row.count) stored[k].second"),
    Mutation("wrong alignment", "two neighbours at odd addresses", BLOCKS,
             "bytes % (2 * size) == 0", "bytes % size == 0"),
    Mutation("wrong conjugate", "beyond the ends of a spectrum", NETWORK,
             "return inside == i ? z : conj(z);", "return z;"),
    Mutation("off by one", "where a frequency filter of even width is centred", NETWORK,
             "const int first = f + int(size.width) / 2;", "const int first = f + int(size.width - 1) / 2;"),
    Mutation("wrong sum", "what was read before frequency 0", NETWORK,
             "  if (f < kMaxWidth) sum = sum + conj(gather(-f));\n", ""),
    Mutation("wrong sum", "what was read beyond the last frequency", NETWORK,
             "  if (n - f < kMaxWidth) sum = sum + conj(gather(2 * n - f));\n", ""),
    Mutation("wrong factor", "a bias without its imaginary part", NETWORK,
             "size.keyed ? bias : R(0)", "R(0)"),
    Mutation("wrong factor", "frequencies that count once", KERNELS,
             "if (f == 0) m = {{m.near.re / 2, R(0)}, {m.far.re / 2, R(0)}};", ""),
    Mutation("wrong conjugate", "the gradient of the key", KERNELS,
             "{conj(d.near) * q.near, conj(d.far) * q.far}", "{d.near * q.near, d.far * q.far}"),
    Mutation("wrong sum", "of the static filter a chunk's last row only", KERNELS,
             "if (batch > of.begin) sum = {", "if (batch > of.end) sum = {"),
    Mutation("off by one", "the sums of the last chunk", KERNELS,
             "chunk < plan.chunks; ++chunk", "chunk + 1 < plan.chunks; ++chunk"),
    Mutation("too little workspace", "a row for a spectrum", KERNELS,
             "rows * (plan.size.length + 2)", "rows * plan.size.length"),
    Mutation("too little shared memory", "three spectra of four", KERNELS,
             "return block_shared<R>(ring, 4,", "return block_shared<R>(ring, 3,"),
]  # fmt: skip

# ---- accesses to memory -------------------------------------------------------------------------------

ACCESSES = [
    call
    for dtype, samples in (
        ("float32", ("static-alone", "channels-last", "long-magnitude")),
        ("bfloat16", ("gates-alone",)),
    )
    for call, _ in rows(dtype, *samples)
]

ALLOWANCES = [
    Allowance("conditioned_(rows|gradients)", "shared", 2.05, lambda call: True,
              "16 frequencies counted downwards, or from a neighbour on, lie across a seam of the padding"),
    Allowance("conditioned_(rows|gradients)", "global", 4.05, lambda call: "channels-last" in str(call),
              "positions of a row are D apart, and a block has one row: its neighbours are other blocks'"),
    Allowance("conditioned_totals", "global", 1.3, lambda call: True,
              "18 weights stand before a channel's taps, so 32 threads lie across five sectors for four"),
]  # fmt: skip
