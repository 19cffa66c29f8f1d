// Products of matrices for implicit_filter: a tile of 64 rows and 64 columns (float64: 32) to a block of 64
// threads.
//
// A thread has 8 rows and 8 columns of sums (float64: 4), in pieces of 16 bytes, so that 16 numbers of shared
// memory make 64 products. Terms come eight at a time: the next are on their way from memory while these are
// multiplied. Sums go to shared memory last, and from there a thread takes a column: what is left to do with
// them is a loop over rows, its accesses to memory side by side.
//
//   shared memory   two times eight terms of both factors, or the sums: 17 KB
#pragma once
#include "fft_conv_tensors.cuh"

namespace equiconv::cuda {

constexpr int kTileThreads = 64, kSide = 8;  // threads down, and across
constexpr int kTerms = 8;                    // at a time
constexpr int kRows = 64;
template <class R>
constexpr int kColumns = 256 / int(sizeof(R));

template <class R>
constexpr int kNumbersOfPiece = 16 / int(sizeof(R));
// Of so many numbers; eight terms of four of them lie in banks of their own.
template <class R>
constexpr int pitch_of(int numbers) {
  return numbers + kNumbersOfPiece<R>;
}

template <class R>
struct alignas(16) TileShared {
  union {
    struct {
      R left[2][kTerms][pitch_of<R>(kRows)], right[2][kTerms][pitch_of<R>(kColumns<R>)];
    } factors;
    R sums[kRows][pitch_of<R>(kColumns<R>)];
  };
};

// What neighbouring threads fetch of a factor: best what is contiguous.
enum class Along : bool { rows, terms };

// A factor, (row, term), of any strides.
template <Along kAlong>
struct Factor {
  const void* data = nullptr;
  DType dtype = DType::float32;
  std::int64_t row = 0, term = 0, rows = 0;  // strides; how many rows
};

// What a thread brings of eight terms and N * 8 rows to shared memory.
template <class R, Along kAlong, int N>
struct Brought {
  static constexpr int kRowsOfTile = N * kSide;
  static constexpr bool kTermsFirst = kAlong == Along::terms;
  R value[N];

  // Which row and term of them the k-th is.
  static __device__ __forceinline__ int row_of(int k) {
    const int thread = int(threadIdx.x);
    return kTermsFirst ? k * (kTileThreads / kTerms) + thread / kTerms : thread % kRowsOfTile;
  }
  static __device__ __forceinline__ int term_of(int k) {
    const int thread = int(threadIdx.x);
    return kTermsFirst ? thread % kTerms : k * (kTileThreads / kRowsOfTile) + thread / kRowsOfTile;
  }

  // From row `first_row` on, the terms from `first` on and before `end`; past the last row 0.
  __device__ __forceinline__ void fetch(const Factor<kAlong>& f, std::int64_t first_row, std::int64_t first,
                                        std::int64_t end) {
    const std::int64_t row = first_row + row_of(0), term = first + term_of(0);
    const std::int64_t at = row * f.row + term * f.term;
    const std::int64_t far =
        kTermsFirst ? f.row * (row_of(1) - row_of(0)) : f.term * (term_of(1) - term_of(0));
    const int rows_left = int(min(f.rows - first_row, std::int64_t(kRowsOfTile))),
              terms_left = int(min(end - first, std::int64_t(kTerms)));
    with_stored_type<R>(f.dtype, [&](auto type) {
      using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
      const T* p = static_cast<const T*>(f.data) + at;
#pragma unroll
      for (int k = 0; k < N; ++k, p += far) {
        T stored{};
        if (row_of(k) < rows_left && term_of(k) < terms_left) stored = *p;
        value[k] = R(stored);
      }
    });
  }
  template <int Pitch>
  __device__ __forceinline__ void put(R (&to)[kTerms][Pitch]) const {
#pragma unroll
    for (int k = 0; k < N; ++k) to[term_of(k)][row_of(k)] = value[k];
  }
};

// A thread's rows, or columns, of one term.
template <class R, int N>
__device__ __forceinline__ void read_pieces(R (&v)[N], const R* from, int place) {
  constexpr int kWidth = kNumbersOfPiece<R>;
#pragma unroll
  for (int k = 0; k < N; k += kWidth) {
    const auto piece = *reinterpret_cast<const Wide<R>*>(from + k * kSide + place * kWidth);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) v[k + i] = piece.value[i];
  }
}

// Leaves in shared.sums what rows of `left` and columns, rows of `right`, make together over the terms
// begin … end - 1. `see` is given all that a thread brings of `left`: along rows, always of row threadIdx.x.
template <class R, Along kLeft, Along kRight, class See>
__device__ __forceinline__ void multiply(TileShared<R>& shared, const Factor<kLeft>& left,
                                         std::int64_t first_row, const Factor<kRight>& right,
                                         std::int64_t first_column, std::int64_t begin, std::int64_t end,
                                         See see) {
  constexpr int kDown = kRows / kSide, kAcross = kColumns<R> / kSide, kWidth = kNumbersOfPiece<R>;
  const int down = int(threadIdx.x) / kSide, across = int(threadIdx.x) % kSide;
  R sums[kDown][kAcross] = {};
  Brought<R, kLeft, kDown> a;
  Brought<R, kRight, kAcross> b;
  a.fetch(left, first_row, begin, end), b.fetch(right, first_column, begin, end);
  int turn = 0;
#pragma unroll 1
  for (std::int64_t first = begin; first < end; first += kTerms, turn ^= 1) {
    see(a.value);
    a.put(shared.factors.left[turn]), b.put(shared.factors.right[turn]);
    if (const std::int64_t next = first + kTerms; next < end) {
      a.fetch(left, first_row, next, end);
      b.fetch(right, first_column, next, end);
    }
    __syncthreads();  // these terms are there, and the ones before are read
#pragma unroll
    for (int t = 0; t < kTerms; ++t) {
      R x[kDown], y[kAcross];
      read_pieces(x, shared.factors.left[turn][t], down);
      read_pieces(y, shared.factors.right[turn][t], across);
#pragma unroll
      for (int i = 0; i < kDown; ++i)
#pragma unroll
        for (int j = 0; j < kAcross; ++j) sums[i][j] += x[i] * y[j];
    }
  }

  __syncthreads();  // the last terms are read
#pragma unroll
  for (int i = 0; i < kDown; ++i)
#pragma unroll
    for (int j = 0; j < kAcross; j += kWidth) {
      Wide<R> piece;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) piece.value[k] = sums[i][j + k];
      const int row = i / kWidth * kWidth * kSide + down * kWidth + i % kWidth;
      *reinterpret_cast<Wide<R>*>(&shared.sums[row][j * kSide + across * kWidth]) = piece;
    }
  __syncthreads();  // all sums are there
}

}  // namespace equiconv::cuda
