"""What fft_conv's CUDA kernels are checked with."""

from __future__ import annotations

from ..fft_conv_cases import SMALL, THREE_LAUNCHES, Case
from . import Allowance, Mutation

# Calls, and the device to be. Between them they reach every line of the kernels.
CALLS = [
    *((case, 90) for case in SMALL),
    (Case(33, batch=3, channels=70, layout="bld"), 90),  # rows side by side, and not all of a block's
    (Case(33, batch=7, channels=130), 90),  # parts of several rows
    (Case(50, batch=9, shared=False, gates="", channels=5), 90),
    (Case(64, batch=1, channels=2, mode="bidirectional"), 90),  # twice as many taps as points
    (Case(33, batch=1, channels=2, mode="circular"), 90),
    (Case(300, taps=6, mode="bidirectional", skip=False, stored="float16"), 90),
    (Case(8000, batch=5, channels=2, shared=False), 80),  # kept spectra outside shared memory
    (Case(8000, batch=2, channels=1, stored="float64"), 90),
    (Case(4100, channels=2, stored="float64", mode="bidirectional"), 86),  # three launches from here on
    (Case(9000, channels=3, batch=1, shared=False), 86),
    (THREE_LAUNCHES, 90),
]
# What needs many points, for the build that is quick.
LARGE = [
    (Case(70_000, batch=2, channels=1, stored="float64", gates="post", wanted=("grad_filter", "grad_x")), 86),
    (Case(200_000, batch=9, channels=1, stored="float64", gates="", wanted=("grad_filter", "grad_x")), 90),
    (Case(200_000, batch=5, channels=1, stored="float64", gates="", shared=False,
          wanted=("grad_filter", "grad_x")), 90),
]  # fmt: skip

# ---- accesses to memory -------------------------------------------------------------------------------

TYPES = ("float32", "float64", "bfloat16")

# The filter's gradient of a batch of two is a sum in two parts, that of a batch of one is stored at once.
ACCESSES = [
    *(Case(n, batch=b, channels=32, layout=layout, stored=t)
      for n, b in ((32, 1), (128, 2)) for layout in ("bdl", "bld") for t in TYPES),
    *(Case(1024, channels=8, layout=layout, stored=t) for layout in ("bdl", "bld") for t in TYPES),
    *(Case(4096, batch=1, channels=2, stored=t) for t in TYPES),
    *(Case(n, batch=1, channels=1) for n in (8192, 16384)),
    *(Case(32768, batch=1, channels=1, stored=t) for t in TYPES),
    Case(20000, batch=1, channels=8, layout="bld", stored="bfloat16"),
    *(Case(n, batch=1, mode=mode) for n in (100, 1001) for mode in ("bidirectional", "circular")),
]  # fmt: skip

ALLOWANCES = [
    Allowance("con|cor|columns", "global", 16.1, lambda case: case.layout == "bld",
              "positions of (B, L, D) are D apart and a block has few rows: L2 keeps the rest for others"),
    Allowance("con|cor", "global", 1.35, lambda case: case.length % 8 != 0,
              "rows of odd length start anywhere in a sector"),
    Allowance("con|cor", "global", 2.0, lambda case: case.length <= 128 and case.mode != "causal",
              "a short row's taps, eight to a row, start anywhere in a sector"),
    Allowance("con|cor", "shared", 2.0, lambda case: case.length <= 128,
              "16 bytes a thread of several short rows meet in the banks"),
    Allowance("con|cor", "shared", 2.0, lambda case: case.stored == "float64",
              "16 bytes a thread are two numbers: every second thread meets another in the banks"),
    Allowance("cor", "shared", 2.0, lambda case: case.mode != "causal",
              "taps of the filter's gradient are read from the middle of the ring on, across the padding"),
]  # fmt: skip

# ---- mistakes -------------------------------------------------------------------------------------------

RING, ROWS, COLUMNS = "ring_transform.cuh", "fft_conv_rows.cuh", "fft_conv_columns.cuh"
TENSORS, LAUNCHERS = "fft_conv_tensors.cuh", "fft_conv.cu"

SERIAL_SUM = """  for (std::int64_t c = blockIdx.x * 256ll + threadIdx.x; c < channels; \
c += gridDim.x * 256ll) {
    R sum = 0;
    for (std::int64_t part = 0; part < parts; ++part) sum += lag0[part * channels + c];
    store_one(sum, grad_skip, c * grad_skip.channel);
  }
"""
SHARED_SUM = """  __shared__ R sum;
  for (std::int64_t c = blockIdx.x; c < channels; c += gridDim.x) {
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    for (std::int64_t part = threadIdx.x; part < parts; part += 256) ADD;
    __syncthreads();
    if (threadIdx.x == 0) store_one(sum, grad_skip, c * grad_skip.channel);
  }
"""
TERM = "lag0[part * channels + c]"

MUTATIONS = [
    # ---- barriers
    Mutation("missing barrier", "before a pass of the transform", RING,
             "__syncthreads();  // pass 0: readers", "// pass 0: readers"),
    Mutation("missing barrier", "before a pass of the inverse", RING,
             "__syncthreads();  // the points", "// the points"),
    Mutation("missing barrier", "before an inverse begins", RING,
             "__syncthreads();  // readers of", "// readers of"),
    Mutation("missing barrier", "before new factors", RING,
             "__syncthreads();  // the last transform's", "// the last transform's"),
    Mutation("missing barrier", "before taps are taken out", ROWS,
             "__syncthreads();\n    const R scale", "const R scale"),
    Mutation("early return before a barrier", "threads without a tap", ROWS,
             "    __syncthreads();\n    const R scale",
             "    if (int(threadIdx.x) >= t.size.taps) return;\n    __syncthreads();\n    const R scale"),
    Mutation("missing barrier", "before rows come", ROWS, "__syncthreads();  // readers of", "// readers of"),
    Mutation("missing barrier", "before rows go", ROWS,
             "__syncthreads();\n    const int log = ", "const int log = "),
    Mutation("barrier in a branch", "only warps with a group", RING,
             "      __syncthreads();  // the points",
             "      if (threadIdx.x < 32) __syncthreads();  // the points"),
    # ---- sums whose order or whole depends on the schedule
    Mutation("order of a sum", "atomicAdd for a sum in order", LAUNCHERS,
             SERIAL_SUM, SHARED_SUM.replace("ADD", f"atomicAdd(&sum, {TERM})")),
    Mutation("+= for atomicAdd", "a sum over threads", LAUNCHERS,
             SERIAL_SUM, SHARED_SUM.replace("ADD", f"sum += {TERM}")),
    Mutation("two threads, one place", "every tap writes lag 0", ROWS,
             "if (lag0 && n == 0)", "if (lag0)"),
    Mutation("two threads, one place", "every collected tap writes lag 0", LAUNCHERS,
             "if (lag0 && tap == 0)", "if (lag0)"),
    Mutation("two blocks, one place", "all blocks share a spectrum", ROWS,
             "std::int64_t(blockIdx.x) * (count - in_shared) + i", "std::int64_t(0) + i"),
    Mutation("two blocks, one place", "all chunks share a part", ROWS,
             "(std::int64_t(u.chunk) * t.ids + id)", "std::int64_t(id)"),
    # ---- shared memory and workspace
    Mutation("too little shared memory", "one table of factors forgotten", RING,
             "row_stride<R>() * rows() + 2 * factors()", "row_stride<R>() * rows() + factors()"),
    Mutation("too little shared memory", "spectra forgotten", LAUNCHERS,
             "ring.template shared_bytes<R>() + spectra.in_shared * each, kernel",
             "ring.template shared_bytes<R>(), kernel"),
    Mutation("too little shared memory", "half of the columns'", LAUNCHERS,
             "const std::int64_t shared = columns.template shared_bytes<R>();",
             "const std::int64_t shared = columns.template shared_bytes<R>() / 2;"),
    Mutation("overlapping memory", "spectra over the factors", ROWS,
             "dynamic_shared() + ring.shared_bytes<R>()", "dynamic_shared() + ring.shared_bytes<R>() - 64"),
    Mutation("overlapping memory", "two spectra at one place", ROWS,
             "shared + i * size", "shared"),
    Mutation("too little workspace", "for one spectrum of three", LAUNCHERS,
             "blocks(ring, work, spectra) * outside * ring.n()", "blocks(ring, work, spectra) * ring.n()"),
    Mutation("too little workspace", "two spectra counted of three", LAUNCHERS,
             "wanted.summed ? 3 : wanted.filter ? 2 : 1", "wanted.filter ? 2 : 1"),
    Mutation("wrong alignment", "pieces of the workspace", "device.cuh",
             "(count * std::int64_t(sizeof(T)) + 255) / 256 * 256", "count * std::int64_t(sizeof(T))"),
    Mutation("unwritten memory read", "a sum that starts from nothing", LAUNCHERS,
             "if (wanted.summed && !rows.resumes())", "if (wanted.summed && rows.resumes())"),
    Mutation("unwritten memory read", "a spectrum that is not kept", LAUNCHERS,
             "if (wanted.filter) signal.put(v, p);", "if (wanted.summed) signal.put(v, p);"),
    # ---- guards
    Mutation("missing guard", "loads past a row's end", TENSORS,
             "if (k < s.count) stored = *p;", "stored = *p;"),
    Mutation("missing guard", "16 bytes past a row's end", TENSORS,
             "if (k / kWidth < s.count) stored = ", "stored = "),
    Mutation("missing guard", "16 bytes at odd addresses", LAUNCHERS,
             "a.position == 1 && bytes % 16 == 0", "a.position == 1"),
    Mutation("missing guard", "stores past a row's end", TENSORS,
             "if (k < s.count) *p = T(v[k]);", "*p = T(v[k]);"),
    Mutation("missing guard", "an absent gate", TENSORS,
             "  if (!a.data) return;\n  R factor", "  R factor"),
    Mutation("missing guard", "an absent skip", TENSORS,
             "if (!skip.data || !s.count) return;", "if (!s.count) return;"),
    Mutation("missing guard", "skip of rows that are not there", TENSORS,
             "if (!skip.data || !s.count) return;", "if (!skip.data) return;"),
    Mutation("missing guard", "taps past the last one stored", ROWS,
             "if (t.grad_filter.data && n < t.size.taps)", "if (t.grad_filter.data)"),
    Mutation("missing guard", "taps of rows that are not there", ROWS,
             "if (id >= t.ids) continue;", ""),
    Mutation("missing guard", "taps before the first", TENSORS,
             "if (j >= begin && j < end)", "if (j < end)"),
    Mutation("missing guard", "channels past the last one", LAUNCHERS,
             "; c < channels; c +=", "; c < 256; c +="),
    # ---- bounds and tails
    Mutation("off by one", "a row more than there are", TENSORS,
             "exists = id < ids;", "exists = id <= ids;"),
    Mutation("off by one", "the last point of a row", TENSORS,
             "min(inside / far + 1, kGroup)", "min(inside / far, kGroup)"),
    Mutation("off by one", "a group past the last", RING,
             "index < ring.groups(); index += blockDim.x) {\n"
             "        const Place place = find(index, depth);\n        Group<R> v;\n        if (pass",
             "index <= ring.groups(); index += blockDim.x) {\n"
             "        const Place place = find(index, depth);\n        Group<R> v;\n        if (pass"),
    Mutation("off by one", "a part of a sum", LAUNCHERS, "part < count;", "part < count - 1;"),
    Mutation("off by one", "a repeat past the last", LAUNCHERS,
             "repeat < u.end; ++repeat) {\n      // 2. The signal's spectrum, kept",
             "repeat <= u.end; ++repeat) {\n      // 2. The signal's spectrum, kept"),
    Mutation("off by one", "a point past the polynomial", TENSORS,
             "behind < 1 << log_n", "behind <= 1 << log_n"),
    Mutation("off by one", "where a filter of even taps is centred", TENSORS,
             "int(size.taps - 1) / 2", "int(size.taps) / 2"),
    Mutation("off by one", "a collected tap past the last", LAUNCHERS,
             "; i < all; i +=", "; i <= all; i +="),
    Mutation("off by one", "where a chunk begins", ROWS,
             "std::uint64_t(w.repeats) * chunk / w.chunks",
             "std::uint64_t(w.repeats) * chunk / w.chunks + 1"),
    Mutation("wrong tail", "a group wholly past the end", TENSORS,
             "return inside >= 0 ? min(inside / far + 1, kGroup) : 0;",
             "return min(inside / far + 1, kGroup);"),
    Mutation("wrong tail", "more taps than points", ROWS,
             "t.log_n + (!parts && t.size.taps > 1 << t.log_n)", "t.log_n"),
    Mutation("wrong tail", "three levels taken for four", RING, "  if (levels == 3) return;\n", ""),
    Mutation("wrong tail", "the last portion is every portion", COLUMNS,
             "p.grad_filter && p.last_portion ?", "p.grad_filter ?"),
    # ---- indices, strides, layouts
    Mutation("wrong index", "roots in the wrong order", RING,
             "R(__brev(unsigned(b)) >> 1 >> (31 - depth))", "R(b)"),
    Mutation("wrong index", "polynomials' roots in the wrong order", ROWS,
             "R(__brev(b) >> (32 - p.log_n1))", "R(b)"),
    Mutation("wrong index", "a tile's first row", ROWS,
             "unit % w.tiles << ring.log_rows", "unit % w.tiles"),
    Mutation("wrong index", "a tile's first column", COLUMNS, "- 1)) << ring.log_rows) {}", "- 1))) {}"),
    Mutation("wrong index", "one factor for all blocks", RING,
             "(ring.n() >> 4) + place.block", "(ring.n() >> 4)"),
    Mutation("wrong index", "a block's sum by its number", LAUNCHERS,
             "sums + std::int64_t(unit) * ring.n()", "sums + std::int64_t(blockIdx.x) * ring.n()"),
    Mutation("wrong index", "a portion's first filter", LAUNCHERS,
             "t.store_grad_tap(first_id + id, tap, at)", "t.store_grad_tap(id, tap, at)"),
    Mutation("wrong batch", "the first entry for all", TENSORS,
             "s.batch * a.batch + s.channel", "s.channel"),
    Mutation("wrong batch", "repeats of different filters mixed", ROWS,
             "(id * repeats + repeat)", "(id + repeat)"),
    Mutation("wrong batch", "one repeat of a filter for all", COLUMNS,
             "const std::int64_t id = row / repeats, repeat = row % repeats;",
             "const std::int64_t id = row / repeats, repeat = 0;"),
    Mutation("wrong batch", "a portion's first repeat", COLUMNS,
             "p.first_repeat + repeat, first, step, false));", "repeat, first, step, false));"),
    Mutation("wrong index", "the halves of a row exchanged", ROWS,
             "c[k] = z.re, c[k + kGroup / 2] = z.im;", "c[k] = z.im, c[k + kGroup / 2] = z.re;"),
    Mutation("wrong stride", "positions taken for contiguous", TENSORS,
             "s.first * a.position", "s.first"),
    Mutation("wrong stride", "a kept spectrum's points", ROWS,
             "k < kGroup; ++k, at += groups) f", "k < kGroup; ++k, ++at) f"),
    Mutation("wrong stride", "half of the groups in long rows", RING,
             "index += blockDim.x) {\n        const Place place = find(index, depth);\n"
             "        Group<R> v;\n        read(v, place);\n        merge",
             "index += 2 * blockDim.x) {\n        const Place place = find(index, depth);\n"
             "        Group<R> v;\n        read(v, place);\n        merge"),
    Mutation("wrong stride", "rows of a polynomial", COLUMNS, "(row << t.log_n)", "(row << p.log_n1)"),
    Mutation("wrong layout", "padding forgotten by a reader", RING,
             "return work[row * ring.row_stride<R>() + padded(n)];",
             "return work[row * ring.row_stride<R>() + n];"),
    Mutation("wrong layout", "channel by part for part by channel", LAUNCHERS,
             TERM, "lag0[c * parts + part]"),
    Mutation("wrong type", "bfloat16 read as float16", TENSORS,
             "dtype == DType::bfloat16) f(static_cast<const __nv_bfloat16*>",
             "dtype == DType::bfloat16) f(static_cast<const __half*>"),
    # ---- arithmetic
    Mutation("wrong conjugate", "a merge's factor", RING, "conj(r) * (a - b)", "r * (a - b)"),
    Mutation("wrong conjugate", "a correlation's spectrum", ROWS,
             "v[k] = conj(kept) * v[k]", "v[k] = kept * v[k]"),
    Mutation("wrong conjugate", "the filter's gradient", LAUNCHERS,
             "conj(*kept_signal) * v[k]", "*kept_signal * v[k]"),
    Mutation("wrong factor", "a sixteenth turn's", RING, "times_i(c)), pairs(v + 12", "c), pairs(v + 12"),
    Mutation("wrong factor", "the sign of an eighth turn", RING,
             "{h * (z.re - z.im), h * (z.re + z.im)}", "{h * (z.re + z.im), h * (z.re - z.im)}"),
    Mutation("wrong factor", "a polynomial's rows keep the first root", LAUNCHERS,
             "if (!Rows::kOneRoot || unit == blockIdx.x) transform.fill_factors(rows.turns(u.id));\n\n"
             "    // 1. The filter's spectrum, kept.\n",
             "if (unit == blockIdx.x) transform.fill_factors(rows.turns(u.id));\n\n"
             "    // 1. The filter's spectrum, kept.\n"),
    Mutation("wrong sign", "taps at negative lags", TENSORS, "v[k].im = -part[k]", "v[k].im = part[k]"),
    Mutation("wrong sum", "the last repeat only", LAUNCHERS,
             "(Complex<R> a, Complex<R> b) { return a + b; }", "(Complex<R>, Complex<R> b) { return b; }"),
    Mutation("wrong sum", "a portion forgets the last one", ROWS,
             "return !p.first_portion;", "return false;"),
    Mutation("wrong sign", "of what lies a period behind", TENSORS,
             "grad -= at(behind).im;", "grad += at(behind).im;"),
    Mutation("swapped gate", "y by the pre gate", TENSORS,
             "multiply_by(c, post_gate, s);\n    store(c, y, s)",
             "multiply_by(c, pre_gate, s);\n    store(c, y, s)"),
    Mutation("swapped gate", "grad x by the post gate", TENSORS,
             "multiply_by(correlation, pre_gate, s)", "multiply_by(correlation, post_gate, s)"),
    Mutation("dropped skip", "from y", TENSORS,
             "add_skip(c, s, [&](R(&u)[kGroup]) { load_signal(u, s); });\n    multiply_by(c, post_gate, s);",
             "multiply_by(c, post_gate, s);"),
    Mutation("dropped skip", "from the gradient of the signal", TENSORS,
             "    add_skip(correlation, s, [&](R(&g)[kGroup]) { load_gradient(g, s); });\n", ""),
    Mutation("swapped results", "of the two rows kept in a workspace", ROWS,
             "Result::grad_signal ? Source::gradient : Source::signal",
             "Result::grad_signal ? Source::signal : Source::gradient"),
]  # fmt: skip
