// A warp's tile of sums of outer products, sum[r][c] = sum over t of left[t][r] right[t][c], and what it is
// made of: numbers brought to shared memory, 16 terms at a time, in the type in which sums are computed.
//
// Each of the 32 lanes holds 4 x 8 sums. They lie over the tile as Shape says, a lane's rows and columns in
// pieces of 16 bytes; half types are read and written in pieces of as many numbers, 8 bytes.
//
//   shared memory   number i of term t at t pitch + (i ^ (t & 8)), the pitch a piece more than a multiple of
//   16
//
// A warp fetches 8 lines of memory by 4 pieces at a time, whole sectors. A line may be what one term has or
// what all terms have at one place; either way they are written, and pieces read, without bank conflicts.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "pair_message_tiles.cuh"

namespace equiconv::cuda {

template <class T>
using RealOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Neighbouring numbers: 16 bytes of them as they are computed.
template <class T>
constexpr int kPiece = 16 / int(sizeof(RealOf<T>));
template <class T>
struct alignas(kPiece<T> * sizeof(T)) Piece {
  T value[kPiece<T>];
};

constexpr int kStep = 16;                       // terms in shared memory
constexpr int kLaneRows = 4, kLaneColumns = 8;  // of a lane

// How lanes lie over a tile. Both extents are multiples of 16.
struct Shape {
  int down, across;
  __host__ __device__ constexpr int rows() const { return kLaneRows * down; }
  __host__ __device__ constexpr int columns() const { return kLaneColumns * across; }
};
constexpr int kStaged = kStep * (16 + 4 + 64 + 4);  // numbers of both factors, in any of the shapes

// The rows of an array (row, orientation, entry). Wide: pieces are contiguous and aligned.
template <class T>
struct Table {
  T* data;
  std::int64_t row, orientation, entry;
  bool wide;
  __device__ __forceinline__ T* at(std::int64_t r, std::int64_t o) const {
    return data + r * row + o * orientation;
  }
};

// ---- to shared memory ------------------------------------------------------------------------------

template <class R>
struct Staged {
  R* data;
  int pitch;
  __device__ Staged(R* where, int numbers) : data(where), pitch(numbers + kPiece<R>) {}
  __device__ __forceinline__ R* at(int term, int i) const { return data + term * pitch + (i ^ (term & 8)); }
};

// Numbers first … first + kPiece - 1 of a line, zeros past `left` of them.
template <class T>
__device__ __forceinline__ Piece<RealOf<T>> load(const T* line, int first, int left, std::int64_t stride,
                                                 bool wide) {
  Piece<RealOf<T>> piece = {};
  if (wide) {
    if (left > 0) {
      const auto stored = *reinterpret_cast<const Piece<T>*>(line + first);
#pragma unroll
      for (int i = 0; i < kPiece<T>; ++i) piece.value[i] = RealOf<T>(stored.value[i]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i)
      if (i < left) piece.value[i] = RealOf<T>(line[(first + i) * stride]);
  }
  return piece;
}

enum class Lines { terms, places };

// How many lines there are and how long they are, to be filled and to be read: what is between are zeros.
struct Extent {
  int lines, length, lines_left, length_left;
};

// Calls line(i) for i < lines_left, in all lanes together.
template <Lines kLines, class T, class Line>
__device__ __forceinline__ void stage(const Staged<RealOf<T>>& to, const Extent& extent, std::int64_t stride,
                                      bool wide, Line line) {
  constexpr int W = kPiece<T>;
  const int first = (lane() / 8 % 2 * 2 + lane() / 16) * W;  // pieces 0 and 2, then 1 and 3
#pragma unroll 1
  for (int l = lane() % 8; l < extent.lines; l += 8) {
    const T* from = line(min(l, extent.lines_left - 1));
    const int length = l < extent.lines_left ? extent.length_left : 0;
#pragma unroll 2
    for (int i = first; i < extent.length; i += 4 * W) {
      const auto piece = load(from, i, length - i, stride, wide);
      if constexpr (kLines == Lines::terms) {
        *reinterpret_cast<Piece<RealOf<T>>*>(to.at(l, i)) = piece;
      } else {
#pragma unroll
        for (int k = 0; k < W; ++k) *to.at(i + k, l) = piece.value[k];
      }
    }
  }
}

// ---- sums ------------------------------------------------------------------------------------------

template <class R>
struct Sums {
  static constexpr int W = kPiece<R>;
  R value[kLaneRows][kLaneColumns] = {};

  __device__ __forceinline__ void add(const Staged<R>& left, const Staged<R>& right, const Shape& shape,
                                      int terms) {
    const int down = lane() / shape.across, across = lane() % shape.across;
#pragma unroll 2
    for (int t = 0; t < terms; ++t) {
      Piece<R> a[kLaneRows / W], b[kLaneColumns / W];
#pragma unroll
      for (int i = 0; i < kLaneRows / W; ++i)
        a[i] = *reinterpret_cast<const Piece<R>*>(left.at(t, (i * shape.down + down) * W));
#pragma unroll
      for (int i = 0; i < kLaneColumns / W; ++i)
        b[i] = *reinterpret_cast<const Piece<R>*>(right.at(t, (i * shape.across + across) * W));
#pragma unroll
      for (int r = 0; r < kLaneRows; ++r)
#pragma unroll
        for (int c = 0; c < kLaneColumns; ++c) value[r][c] += a[r / W].value[r % W] * b[c / W].value[c % W];
    }
  }

  // To line(r), in all lanes together, the first `rows` rows and `columns` columns.
  template <class T, class Line>
  __device__ __forceinline__ void store(const Shape& shape, int rows, int columns, std::int64_t stride,
                                        bool wide, Line line) const {
    const int down = lane() / shape.across, across = lane() % shape.across;
#pragma unroll
    for (int r = 0; r < kLaneRows; ++r) {
      const int row = (r / W * shape.down + down) * W + r % W;
      T* to = line(min(row, rows - 1));
#pragma unroll
      for (int i = 0; i < kLaneColumns; i += W) {
        const int first = (i / W * shape.across + across) * W, left = row < rows ? columns - first : 0;
        Piece<T> piece;
#pragma unroll
        for (int k = 0; k < W; ++k) piece.value[k] = T(value[r][i + k]);
        if (wide) {
          if (left > 0) *reinterpret_cast<Piece<T>*>(to + first) = piece;
        } else {
#pragma unroll
          for (int k = 0; k < W; ++k)
            if (k < left) to[(first + k) * stride] = piece.value[k];
        }
      }
    }
  }
};

}  // namespace equiconv::cuda
