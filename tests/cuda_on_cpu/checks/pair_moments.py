"""What pair_moments' CUDA kernels are checked with: samples of its contract, the quick ones."""

from __future__ import annotations

from . import Allowance, Mutation, Sampled

CUDA, TILE = "pair_moments.cu", "pair_moments_tile.cuh"

FLOAT32 = ("many-orientations", "odd", "deep", "one-receiver", "shared-large", "strided-shared", "isolated")
OTHERS = ("many-orientations", "strided")

CALLS = [
    *((Sampled("pair_moments", sample, "float32"), 90) for sample in FLOAT32),
    *((Sampled("pair_moments", sample, dtype), 90)
      for dtype in ("float64", "bfloat16", "float16") for sample in OTHERS),
]  # fmt: skip

ACCESSES = [
    *(Sampled("pair_moments", "tiles", dtype) for dtype in ("float32", "float64", "bfloat16", "float16")),
    Sampled("pair_moments", "shared-wide", "float32"),
]

ALLOWANCES = [
    Allowance("moments|pair_products|sum_messages", "global", 1.3, lambda call: True,
              "what a group has of the lists of pairs begins anywhere in a sector"),
]  # fmt: skip

MUTATIONS = [
    Mutation("missing barrier", "before a receiver's terms are read", CUDA,
             "__syncwarp();  // the receiver's terms are there", "// the receiver's terms are there"),
    Mutation("missing barrier", "before a receiver's terms are overwritten", CUDA,
             "__syncwarp();  // the receiver's terms are read", "// the receiver's terms are read"),
    Mutation("missing barrier", "before a matrix's terms are read", CUDA,
             "__syncwarp();  // the matrix's terms are there", "// the matrix's terms are there"),
    Mutation("missing barrier", "before a matrix's terms are overwritten", CUDA,
             "__syncwarp();  // the matrix's terms are read", "// the matrix's terms are read"),
    Mutation("missing guard", "pieces past the end of a line", TILE, "    if (left > 0) {\n", "    {\n"),
    Mutation("missing guard", "numbers past the end of a line", TILE,
             "if (i < left) piece.value[i]", "piece.value[i]"),
    Mutation("missing guard", "pieces past the last column", TILE,
             "if (left > 0) *reinterpret_cast", "*reinterpret_cast"),
    Mutation("missing guard", "numbers past the last column", TILE, "if (k < left) to[", "to["),
    Mutation("missing guard", "a sender's numbers past the last channel", CUDA,
             "if (channel + k < job.channels) to", "to"),
    Mutation("missing guard", "rows past the last", TILE,
             "row < rows ? columns - first : 0", "columns - first"),
    Mutation("wrong alignment", "pieces of rows of any length", CUDA,
             "a.row | a.orientation | entries", "0"),
    Mutation("too little shared memory", "of one factor for all warps", CUDA,
             "right(own + kStep * left.pitch, shape.columns())", "right(own, shape.columns())"),
    Mutation("too little workspace", "messages of one orientation", CUDA,
             "take<R>(size.pairs * together() * pitch())", "take<R>(size.pairs * pitch())"),
    Mutation("wrong layout", "places of readers and writers differ", TILE,
             "*to.at(i + k, l) = ", "*to.at(i, l + k) = "),
    Mutation("wrong index", "features in the order of pairs", CUDA,
             "sender = job.groups.neighbour[mine];", "sender = job.groups.row[mine];"),
    Mutation("wrong index", "messages in the order of receivers", CUDA,
             "to = job.groups.row[mine], from", "to = mine, from"),
    Mutation("wrong index", "one tile of functions for all", CUDA,
             "unit.tile / job.across * shape.rows()", "unit.tile / job.across * 0"),
    Mutation("wrong index", "the first terms for all", CUDA,
             "+ term * job.rows.entry", "+ 0 * job.rows.entry"),
    Mutation("wrong sum", "the first sixteen pairs", CUDA, "pair += kStep) {", "pair = end) {"),
    Mutation("wrong sum", "one orientation of a shared basis", CUDA,
             "o < (unit.orientation + 1) * job.together", "o < unit.orientation * job.together + 1"),
    Mutation("wrong sum", "a term too few", CUDA, "sums.add(left, right, kShape, terms)",
             "sums.add(left, right, kShape, terms - 1)"),
    Mutation("off by one", "a sender's last pair", CUDA, "pair < end; ++pair", "pair + 1 < end; ++pair"),
    Mutation("wrong stride", "entries taken for contiguous", TILE,
             "line[(first + i) * stride]", "line[first + i]"),
]  # fmt: skip
