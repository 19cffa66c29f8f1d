"""What orchid_mix's CUDA kernels are checked with."""

from __future__ import annotations

from . import Allowance, Mutation, Sampled

KERNELS = "orchid_mix.cu"

ALSO = ("conditioned_conv",)  # which convolves the rows


class Mix(Sampled):
    """A sample of tests/test_cuda_orchid_mix.py, of a length that has kernels."""


def mixes(dtype: str, *samples: str) -> list[tuple[Mix, int]]:
    return [(Mix("cuda_orchid_mix", sample, dtype), 90) for sample in samples]


# Between them every line: both types and paddings, with everything and with nothing, all ways to read a tile.
CALLS = [
    *mixes("float32", "magnitude", "correlation", "zeros", "plain-correlation", "strided", "rows",
           "widest-magnitude"),
    *mixes("float64", "correlation"),
    *mixes("bfloat16", "float32-weights"),
    *mixes("float16", "magnitude"),
]  # fmt: skip

LARGE = mixes("float32", "runs")  # of more than one tile

MUTATIONS = [
    Mutation("missing barrier", "before a stream is made", KERNELS,
             "      __syncthreads();  // the tile is there; the last result is stored\n", ""),
    Mutation("missing barrier", "before a stream is stored", KERNELS,
             "      __syncthreads();  // readers of the tile are done; the result is there\n", ""),
    Mutation("missing barrier", "before tiles of gradients are read", KERNELS,
             "      __syncthreads();  // the tiles are there\n", ""),
    Mutation("missing barrier", "before a product's gradient is read", KERNELS,
             "        __syncthreads();  // the gradient is there\n", ""),
    Mutation("missing barrier", "before the sums of warps are added", KERNELS,
             "      __syncthreads();  // readers of the gradient are done, and the sums of warps\n", ""),
    Mutation("missing barrier", "before a gradient of z is stored", KERNELS,
             "        __syncthreads();  // it is there\n", ""),
    Mutation("missing barrier", "before a stored gradient is overwritten", KERNELS,
             "        __syncthreads();  // it is stored\n", ""),
    Mutation("off by one", "where a query's taps are centred", KERNELS,
             "slide(sums, row + n.ahead - (n.taps - 1),", "slide(sums, row + n.ahead - n.taps,"),
    Mutation("off by one", "the adjoint of what looks ahead", KERNELS,
             "slide(sums, g + from_here - part.size.ahead,", "slide(sums, g + from_here,"),
    Mutation("dropped gate", "of the product", KERNELS, "if (step.gated) sums[k] *= kept[k];", ""),
    Mutation("swapped factor", "the other stream's tile", KERNELS,
             "z + (1 - part.own) * kTileSize", "z + part.own * kTileSize"),
    Mutation("wrong tail", "of a product's gradient what lies beyond the tile", KERNELS,
             "k0 + at < kTile + reach; k0 += kTile", "k0 + at < kTile; k0 += kTile"),
    Mutation("wrong sum", "a tile's weights for a run's", KERNELS,
             "R sum = totals[i * weights + j];", "R sum(0);"),
    Mutation("wrong sum", "seven warps of eight", KERNELS, "w < kWarps; ++w", "w + 1 < kWarps; ++w"),
    Mutation("wrong sum", "a gradient that goes on into the next third", KERNELS,
             "= sums[k], sums[k] = R(0);", "= sums[k];"),
    Mutation("wrong index", "the first run's sums for all", KERNELS,
             "partial + (run.run * plan.tiles.groups + run.group)", "partial + run.group"),
    Mutation("wrong index", "the gradient of a stream with its own signal", KERNELS,
             "add(Mix::kX, {}, kProduct, 1, 0,", "add(Mix::kX, {}, kProduct, 1, 1,"),
    Mutation("off by one", "the sums of the last run", KERNELS,
             "run < plan.runs; ++run", "run + 1 < plan.runs; ++run"),
    Mutation("too far", "taps that reach beyond what is read", KERNELS,
             "reach = int(most - 1 + kEach - 1) / kEach * kEach;", "reach = 0;"),
    Mutation("overlapping memory", "the rows of gradients over those of keys", KERNELS,
             "kKeyRow, kPostGateRow, kGradient, kMixRows", "kKeyRow, kPostGateRow, kGradient = 2, kMixRows"),
    Mutation("too little workspace", "a row too few forward", KERNELS,
             "constexpr int kForwardRows = kPostGateRow;", "constexpr int kForwardRows = kKeyRow;"),
    Mutation("too little shared memory", "two tiles of three", KERNELS,
             "return (3 * kTileSize +", "return (2 * kTileSize +"),
]  # fmt: skip

# ---- accesses to memory -------------------------------------------------------------------------------

ACCESSES = [call for call, _ in mixes("float32", "columns", "rows")]

ALLOWANCES = [
    Allowance("conditioned_(rows|gradients)", "shared", 2.05, lambda call: True,
              "16 frequencies counted downwards, or from a neighbour on, lie across a seam of the padding"),
    Allowance("conditioned_gradients", "global", 1.2, lambda call: "rows" in str(call),
              "the workspace's row for the gradient of a static filter is two numbers longer than L"),
    Allowance("conditioned_totals", "global", 1.3, lambda call: True,
              "18 weights stand before a channel's taps, so 32 threads lie across five sectors for four"),
    Allowance("mix_(streams|gradients)", "global", 3.2, lambda call: True,
              "what taps reach beyond the ends of a row is read one by one; taps lie as (D, W)"),
    Allowance("mix_(streams|gradients)", "shared", 3.2, lambda call: True,
              "16 bytes along the sequence are four numbers of one lane: threads meet by twos in the banks"),
    Allowance("mix_totals", "global", 2.9, lambda call: True,
              "taps lie as (D, W), and neighbouring threads have neighbouring channels"),
]  # fmt: skip
