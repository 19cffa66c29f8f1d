// Rows of pairs and points: brought to shared memory for a product, read and written eight entries at a time.
#pragma once
#include "pair_message_product.cuh"

namespace equiconv::cuda {

// An array whose rows are read. Wide: 16 bytes at a time, all rows being contiguous, of whole 16 bytes, and
// beginning at a multiple of 16.
struct Source {
  InputRows rows;
  int entries;
  bool wide;
};
struct Target {
  OutputRows rows;
  int entries;
  bool wide;
};

// Where a row begins, counted in elements; kNoRow is a row that is not there.
constexpr std::int64_t kNoRow = -1;
template <class Array>
__device__ __forceinline__ std::int64_t place_of(const Array& a, std::int64_t row, std::int64_t orientation) {
  return row * a.rows.row + orientation * a.rows.orientation;
}

template <class T, class Array>
__device__ __forceinline__ auto* row_of(const Array& a, std::int64_t row, std::int64_t orientation) {
  using Pointee = std::conditional_t<std::is_same_v<Array, Source>, const T, T>;
  return static_cast<Pointee*>(a.rows.data) + place_of(a, row, orientation);
}

// How the rows of a tile lie in shared memory: for products along them, in the order in which lanes come by;
// for products across them, each where its pair is, 32 bytes further in the banks than the one before.
template <class T, int kPairs>
struct Along {
  int pitch;
  explicit __host__ __device__ Along(int terms) : pitch(pitch_of<T>(terms)) {}
  __device__ __forceinline__ int slot(int pair) const { return slot_of<kPairs>(pair); }
};
template <class T>
struct Across {
  int pitch;
  explicit __host__ __device__ Across(int entries)
      : pitch(((entries * int(sizeof(T)) + 127) / 128 * 128 + 32) / int(sizeof(T))) {}
  __device__ __forceinline__ int slot(int pair) const { return pair; }
};

// Entries first … first + terms - 1 of one row for each of `pairs` pairs, zeros where there is none; `place`
// is that of this lane's pair. Warp `warp` of `warps` brings its share.
template <class T, class Lie>
__device__ __forceinline__ void stage(T* to, const Lie& lie, const Source& a, std::int64_t place, int pairs,
                                      int first, int terms, int warp = 0, int warps = 1) {
  constexpr int kWidth = Vector<T>::kWidth;
  if (a.wide) {
    const int vectors = terms / kWidth;
    int lanes = 32;  // to a row
    while (lanes / 2 >= vectors) lanes /= 2;
    const int rows = 32 / lanes;
#pragma unroll 2
    for (int p = warp * rows + lane() / lanes; p < pairs; p += warps * rows) {
      const std::int64_t at = __shfl_sync(kAllLanes, place, p);
      const T* from = static_cast<const T*>(a.rows.data) + at + first;
#pragma unroll 1
      for (int v = lane() % lanes; v < vectors; v += lanes) {
        const bool valid = at >= 0 && first + v * kWidth < a.entries;
        ptx::cp_async<16>(to + lie.slot(p) * lie.pitch + v * kWidth, valid ? from + v * kWidth : a.rows.data,
                          valid);
      }
    }
  } else {
#pragma unroll 1
    for (int p = warp; p < pairs; p += warps) {
      const std::int64_t at = __shfl_sync(kAllLanes, place, p);
      const T* from = static_cast<const T*>(a.rows.data) + at;
#pragma unroll 1
      for (int i = lane(); i < terms; i += 32) {
        const bool valid = at >= 0 && first + i < a.entries;
        to[lie.slot(p) * lie.pitch + i] = valid ? from[(first + i) * a.rows.entry] : T(0.f);
      }
    }
  }
}

// Eight neighbouring entries, those of them that there are.
template <class T>
struct Eight {
  Vector<T> part[8 / Vector<T>::kWidth];
  __device__ __forceinline__ T& operator[](int i) {
    return part[i / Vector<T>::kWidth].value[i % Vector<T>::kWidth];
  }
  __device__ __forceinline__ const T& operator[](int i) const {
    return part[i / Vector<T>::kWidth].value[i % Vector<T>::kWidth];
  }
};

template <class T>
__device__ __forceinline__ Eight<T> load_eight(const Source& a, std::int64_t row, std::int64_t orientation,
                                               int entry, bool valid) {
  constexpr int kWidth = Vector<T>::kWidth;
  const T* from = row_of<T>(a, row, orientation) + entry * a.rows.entry;
  const int left = valid ? a.entries - entry : 0;
  Eight<T> eight;
  if (a.wide) {
#pragma unroll
    for (int i = 0; i < 8; i += kWidth) {
      Vector<T>& part = eight.part[i / kWidth];
      if (i < left) part = *reinterpret_cast<const Vector<T>*>(from + i);
      else part = {};
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) eight[i] = i < left ? from[i * a.rows.entry] : T(0.f);
  }
  return eight;
}

template <class T, class Real>
__device__ __forceinline__ void store_eight(const Target& a, std::int64_t row, std::int64_t orientation,
                                            int entry, const Real (&value)[8]) {
  constexpr int kWidth = Vector<T>::kWidth;
  T* to = row_of<T>(a, row, orientation) + entry * a.rows.entry;
  const int left = a.entries - entry;
  if (a.wide) {
#pragma unroll
    for (int i = 0; i < 8; i += kWidth) {
      Vector<T> part;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) part.value[k] = T(value[i + k]);
      if (i < left) *reinterpret_cast<Vector<T>*>(to + i) = part;
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (i < left) to[i * a.rows.entry] = T(value[i]);
  }
}

// One entry, `at` elements from the first.
template <class Real>
__device__ __forceinline__ void store_one(const OutputRows& a, std::int64_t at, Real value) {
  if constexpr (sizeof(Real) == 8) static_cast<double*>(a.data)[at] = value;
  else if (a.dtype == DType::bfloat16) static_cast<__nv_bfloat16*>(a.data)[at] = __float2bfloat16(value);
  else if (a.dtype == DType::float16) static_cast<__half*>(a.data)[at] = __float2half(value);
  else static_cast<float*>(a.data)[at] = value;
}

// ---- what a product reads of staged rows -----------------------------------------------------------

template <class S>
struct StagedRows {
  using T = typename S::Stored;
  const T* data;
  int pitch;

  __device__ __forceinline__ auto packed(int slot, int term) const {
    return pack<typename S::Operand, S::kRowParts>(
        *reinterpret_cast<const Quad<T>*>(data + slot * pitch + term));
  }
  __device__ __forceinline__ double value(int slot, int term) const { return data[slot * pitch + term]; }
};

// The products of two rows, entry by entry; of two such pairs of rows, one after the other, their sum.
template <class S, bool kBothWays>
struct StagedProducts {
  using T = typename S::Stored;
  const T* rows;
  int pitch;

  __device__ __forceinline__ const T* row(int array, int slot) const {
    return rows + (array * S::kPairs + slot) * pitch;
  }
  __device__ __forceinline__ auto packed(int slot, int term) const {
    float v[4];
#pragma unroll
    for (int array = 0; array < (kBothWays ? 4 : 2); array += 2) {
      const Quad<T> a = *reinterpret_cast<const Quad<T>*>(row(array, slot) + term);
      const Quad<T> b = *reinterpret_cast<const Quad<T>*>(row(array + 1, slot) + term);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float product = float(a.value[i]) * float(b.value[i]);
        v[i] = array ? v[i] + product : product;
      }
    }
    return pack<typename S::Operand, S::kRowParts>(v);
  }
  __device__ __forceinline__ double value(int slot, int term) const {
    double sum = double(row(0, slot)[term]) * double(row(1, slot)[term]);
    if constexpr (kBothWays) sum += double(row(2, slot)[term]) * double(row(3, slot)[term]);
    return sum;
  }
};

}  // namespace equiconv::cuda
