// Products of small matrices in registers: a tile of M rows by V vectors of columns.
#pragma once
#include <algorithm>
#include <cstdint>

#include "simd.h"

namespace {

// A tile that fills the registers: 24 of 32 vectors are sums, or 12 of 16.
constexpr int kTileVectors = 2;
#if defined(__AVX512F__)
constexpr int kTileRows = 12;
constexpr int kShortTile = 4;  // rows that are left over come in multiples of it
#else
constexpr int kTileRows = 6;
constexpr int kShortTile = 2;
#endif

template <class T>
constexpr std::int64_t kTileColumns = kTileVectors * kLanes<T>;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

// Asks for a row that is needed later.
EQUICONV_INLINE void fetch_row(const void* row, std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(row) + i);
}

// What a sum is increased by: a product of numbers. (row_product_dot.h has two.)
struct AddProduct {
  template <class V>
  EQUICONV_INLINE void operator()(V& sum, V a, V b) const {
    sum += a * b;
  }
};

// sum[m][v] = sum over k < depth of left(m, k) * right[k * pitch + v-th vector]; so many rows of `right`
// ahead are asked for.
template <class T, int ahead = 0, int M, int V, class Left, class Entry, class Add = AddProduct>
EQUICONV_INLINE void multiply(std::int64_t depth, const Left& left, const Entry* right, std::int64_t pitch,
                              Vec<T> (&sum)[M][V], Add add = {}) {
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[m][v] = Vec<T>{};
  for (std::int64_t k = 0; k < depth; ++k, right += pitch) {
    if constexpr (ahead) fetch_row(right + ahead * pitch, V * kVectorBytes);
    Vec<Entry> b[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) b[v] = load(right + v * kLanes<Entry>);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const Vec<Entry> a = splat(left(m, k));
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) add(sum[m][v], a, b[v]);
    }
  }
}

// Such sums in memory: for a function that is not inlined, as they are in registers otherwise.
template <class T, int M, int V>
struct Stored {
  Vec<T> of[M][V];
  EQUICONV_INLINE explicit Stored(const Vec<T> (&sum)[M][V]) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) of[m][v] = sum[m][v];
  }
};

// left(m, k) of rows that lie anywhere, contiguous in k ...
template <class T, int M>
struct RowsOfLeft {
  const T* row[M];
  EQUICONV_INLINE T operator()(int m, std::int64_t k) const { return row[m][k]; }
};
// ... or of columns that do, contiguous in m.
template <class T>
struct ColumnsOfLeft {
  const T* const* column;
  std::int64_t first;
  EQUICONV_INLINE T operator()(int m, std::int64_t k) const { return column[k][first + m]; }
};

// Calls f(V, column) for the blocks of V vectors that cover `columns`: full tiles, then one vector if that
// is enough for the rest. V is a constant.
template <class T, class F>
EQUICONV_INLINE void for_columns(std::int64_t columns, F f) {
  constexpr std::int64_t W = kLanes<T>;
  std::int64_t c = 0;
  for (; columns - c > W; c += kTileColumns<T>) f(std::integral_constant<int, kTileVectors>{}, c);
  if (c < columns) f(std::integral_constant<int, 1>{}, c);
}

// Calls f(M, row) for the blocks of M rows that cover `rows`, a multiple of kShortTile: full tiles, then what
// is left over. M is a constant.
template <class F>
EQUICONV_INLINE void for_rows(std::int64_t rows, F f) {
  static_assert(kTileRows == 3 * kShortTile, "what is left over is none, one or two short tiles");
  std::int64_t row = 0;
  for (; rows - row >= kTileRows; row += kTileRows) f(std::integral_constant<int, kTileRows>{}, row);
  if (rows - row == 2 * kShortTile) f(std::integral_constant<int, 2 * kShortTile>{}, row);
  else if (row < rows) f(std::integral_constant<int, kShortTile>{}, row);
}

// A right-hand matrix (depth, columns) in blocks as for_columns visits them, so that each block's rows follow
// one another; zeros beyond its columns. The block of column c begins at c * depth.
template <class T, class Entry>
void pack(std::int64_t depth, std::int64_t columns, const Entry& entry, T* out) {
  for_columns<T>(columns, [&](auto vectors, std::int64_t c) {
    constexpr std::int64_t width = vectors() * kLanes<T>;
    for (std::int64_t k = 0; k < depth; ++k)
      for (std::int64_t i = 0; i < width; ++i) *out++ = c + i < columns ? entry(k, c + i) : T(0);
  });
}
template <class T>
std::int64_t packed_size(std::int64_t depth, std::int64_t columns) {
  return depth * round_up(columns, kLanes<T>);
}

// A row of a strided array, as vectors: `count` elements from `at` on, zeros after them.
template <class S>
struct StridedRow {
  using T = typename Arithmetic<S>::type;
  const S* first;
  std::int64_t stride;
  EQUICONV_INLINE Vec<T> vector(std::int64_t at, std::int64_t count) const {
    if (stride == 1 && count >= kLanes<T>) return load(first + at);
    return some(at, std::min<std::int64_t>(count, kLanes<T>));
  }

 private:
  __attribute__((noinline)) Vec<T> some(std::int64_t at, std::int64_t count) const {
    if (stride == 1) return load_some<T>(first + at, int(count));
    T all[kLanes<T>] = {};
    for (int i = 0; i < count; ++i) all[i] = widen(first[(at + i) * stride]);
    return load(all);
  }
};
template <class S, class T>
EQUICONV_INLINE void put(S* to, Vec<T> v, std::int64_t count) {
  if (count >= kLanes<T>) store(to, v);
  else store_some<T>(to, v, int(count));
}

}  // namespace
