"""What pair_message's CUDA kernels are checked with."""

from __future__ import annotations

from ..pair_cases import PAIRS, PIECES, SLABS, PairCase
from . import Allowance, Mutation

PRODUCT, ROWS, TILES = "pair_message_product.cuh", "pair_message_rows.cuh", "pair_message_tiles.cuh"
WARPS, WEIGHT = "pair_message_warps.cuh", "pair_message_weight.cuh"

CALLS = [(case, 90) for case in (*PAIRS, *PIECES, SLABS)]

ACCESSES = [
    *(PairCase(40, 30, 480, 2, 64, 64, t) for t in ("float32", "float64", "bfloat16")),
    PairCase(40, 30, 480, 2, 128, 128, "bfloat16"),
    PairCase(40, 30, 480, 2, 64, 64, "bfloat16", "float32"),
    PairCase(40, 30, 320, 4, 64, 64, shared=True),
    PairCase(40, 2, 4224, 1, 64, 64, "bfloat16", wanted=("grad_x",)),
]

ALLOWANCES = [
    Allowance("aggregate", "global", 2.05, lambda case: case.pairs <= 4096,
              "a lane's eight channels of float32 are two loads of half a sector; offsets begin anywhere"),
    Allowance("aggregate", "global", 8.0, lambda case: case.pairs > 4096,
              "what a piece has of a cut group is stored by channels of one lane each, once a piece"),
    Allowance("aggregate", "shared", 4.0, lambda case: True,
              "sums of an open group are kept by the lanes that have them, once a tile"),
    Allowance("basis_gradient", "global", 8.0, lambda case: True,
              "a transposed weight is read an entry at a time, once a block"),
    Allowance("weight_gradient", "global", 2.05, lambda case: True,
              "a lane's eight channels of a partial sum are two stores of half a sector, once a block"),
    Allowance("weight_gradient", "shared", 2.0, lambda case: case.stored == "float64",
              "products of float64: eight lanes read two numbers of one bank"),
    Allowance("join_pieces", "global", 1.3, lambda case: True, "offsets begin anywhere in a sector"),
]  # fmt: skip

MUTATIONS = [
    # ---- asynchronous copies and barriers
    Mutation("missing wait", "for a warp's rows", WARPS,
             "    ptx::cp_async_wait_group<Job::kBuffers - 1>();\n", ""),
    Mutation("missing wait", "for a team's rows", WEIGHT, "    ptx::cp_async_wait_group<0>();\n", ""),
    Mutation("missing barrier", "before a buffer is filled again", WARPS,
             "__syncwarp();  // the buffer", "// the buffer"),
    # ---- tensor cores
    Mutation("wrong fragment", "the words of b exchanged", PRODUCT,
             "{right.word[j][k], right.word[j][k + 1]}", "{right.word[j][k + 1], right.word[j][k]}"),
    Mutation("wrong fragment", "rows and columns of d exchanged", PRODUCT,
             "[own % 2 * 2 + pair % 2];", "[pair % 2 * 2 + own % 2];"),
    Mutation("wrong fragment", "pairs as they come", PRODUCT,
             "8 * (p % kRun / 2) + 2 * (p / kRun) + p % 2", "p"),
    Mutation("lost precision", "the larger part twice", PRODUCT,
             "if (part + 1 < Parts) v[i] = rest(v[i], __uint_as_float(packed.word[part][i]));", ""),
    # ---- guards
    Mutation("missing guard", "terms past the weight's last", PRODUCT,
             "value[k] = k < left ? Real(data[at + k * w.term]) : Real(0)",
             "value[k] = Real(data[at + k * w.term])"),
    Mutation("missing guard", "pairs that are not there", ROWS,
             "at >= 0 && first + v * kWidth < a.entries", "first + v * kWidth < a.entries"),
    Mutation("missing guard", "16 bytes past a row", ROWS,
             "if (i < left) *reinterpret_cast<Vector<T>*>(to + i) = part;",
             "*reinterpret_cast<Vector<T>*>(to + i) = part;"),
    Mutation("missing guard", "entries past a row", ROWS,
             "if (i < left) to[i * a.rows.entry]", "to[i * a.rows.entry]"),
    # ---- memory
    Mutation("too little shared memory", "one buffer of a warp", WARPS,
             "return kBuffers * kArrays * S::kPairs * pitch_of<T>(plan.terms) * std::int64_t(sizeof(T));",
             "return kArrays * S::kPairs * pitch_of<T>(plan.terms) * std::int64_t(sizeof(T));"),
    Mutation("too little shared memory", "one buffer of a team", WEIGHT,
             "return 2 * buffer()", "return buffer()"),
    Mutation("overlapping memory", "all parts of a product at one place", WEIGHT,
             "(part * S::kPairs + pair) * product_pitch", "pair * product_pitch"),
    # ---- indices and sums
    Mutation("wrong index", "the first group of 32 for all", TILES,
             "tile.group = group + below", "tile.group = group"),
    Mutation("off by one", "where a group ends", TILES, "end_here == pair + 1", "end_here == pair + 2"),
    Mutation("wrong sum", "the last part only", WARPS, "if (part == 0) sums.clear()", "sums.clear()"),
    # ---- more of all kinds
    Mutation("missing barrier", "before a tile's products are read", WEIGHT,
             "__syncthreads();  // the products are there", "// the products are there"),
    Mutation("missing barrier", "before a tile's rows are read", WEIGHT,
             "__syncthreads();  // the tile is there", "// the tile is there"),
    Mutation("missing barrier", "before a warp's rows are read", WARPS,
             "__syncwarp();  // every lane's copies", "// every lane's copies"),
    Mutation("missing wait", "for a tile's rows", WARPS,
             "cp_async_wait_group<Job::kBuffers - 1>()", "cp_async_wait_group<Job::kBuffers>()"),
    Mutation("wrong index", "rows of the basis in the order of pairs", TILES,
             "tile.row = groups.row[pair]", "tile.row = pair"),
    Mutation("wrong index", "a reversed pair's row", WARPS, "row -= antipodes.rows, ", ""),
    Mutation("wrong index", "a reversed pair's orientation", WARPS,
             "orientation = antipodes.of[orientation];", "(void)0;"),
    Mutation("wrong index", "a reversed pair's points, of the basis", WARPS,
             "bring(2, x, tile.group, opposite,", "bring(2, x, tile.neighbour, opposite,"),
    Mutation("wrong index", "a reversed pair's orientation, of the weight", WEIGHT,
             "bring(2, job.x, tile.group, opposite, reversed)", "bring(2, job.x, tile.group, o, reversed)"),
    Mutation("missing guard", "self-loops counted twice, of the basis", WARPS,
             "tile.has_lane() && tile.row < reversals", "tile.has_lane()"),
    Mutation("missing guard", "self-loops counted twice, of the weight", WEIGHT,
             "there && tile.row < job.reversals", "there"),
    Mutation("missing wait", "for the rows of both directions", WARPS,
             "cp_async_wait_group<Job::kBuffers - 1>()", "cp_async_wait_group<1>()"),
    Mutation("wrong index", "a piece that begins inside a group", TILES,
             "inside_ ? low - 1 : low", "low"),
    Mutation("wrong index", "the orientations of a span", TILES,
             "tile.orientation = int(unit_ % cut_.spans) * cut_.together",
             "tile.orientation = int(unit_ % cut_.spans)"),
    Mutation("wrong index", "teams share a partial sum", WEIGHT,
             "(std::int64_t(blockIdx.x) * teams.teams + team)", "(std::int64_t(blockIdx.x) * teams.teams)"),
    Mutation("wrong sum", "a tile forgets the last one", TILES,
             "tile.open = !first && open_;", "tile.open = false;"),
    Mutation("wrong sum", "a lane forgets the last one", WARPS,
             "head[c] += before[c];", "head[c] += Real(0);"),
    Mutation("wrong sum", "a piece in the middle of a group", WARPS,
             "p < last_piece; ++p)", "p + 1 < last_piece; ++p)"),
    Mutation("wrong sum", "the first of the partial sums", WEIGHT, "part = y; part", "part = y + 8; part"),
    Mutation("wrong sum", "large parts only", PRODUCT,
             "for (int sum = (L > R ? L : R) - 1; sum >= 0; --sum)", "for (int sum = 0; sum >= 0; --sum)"),
    Mutation("wrong stride", "one orientation for all", ROWS,
             "row * a.rows.row + orientation * a.rows.orientation", "row * a.rows.row"),
    Mutation("wrong stride", "entries taken for contiguous", ROWS,
             "i < left ? from[i * a.rows.entry]", "i < left ? from[i]"),
    Mutation("too far", "rows read to a multiple of 16", ROWS,
             "at >= 0 && first + v * kWidth < a.entries", "at >= 0"),
    Mutation("dropped zero", "of receivers without a pair", WARPS,
             "store_eight<T>(out, group, o, c, zeros);", "(void)zeros;"),
    Mutation("missing barrier", "before open sums are kept", WARPS,
             "__syncwarp();  // what the last tile left is read", "// what the last tile left is read"),
]  # fmt: skip
