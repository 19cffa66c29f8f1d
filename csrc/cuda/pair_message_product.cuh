// The products of pair_message: a weight's rows by rows of pairs, both contiguous along what is summed over.
//
// A warp makes 64 weight rows by kPairs pairs at a time. The tensor cores take 16 terms of the sum (tf32: 8)
// of 16 weight rows and 8 pairs, and may be given terms, rows and pairs in any order. So lane 4 g + t reads
// terms 4 t ... 4 t + 3 of each 16, one load of 8 or 16 bytes, and is left with what it can use as it is:
// weight rows 8 g ... 8 g + 7 of each 64, for pairs t kRun ... t kRun + kRun - 1 of its tile.
//
// What the tensor cores round is given them in parts. A float32 number is the sum of two of tf32, but for
// 2^-22 of it; the product of two numbers of a half type is so exactly. Of two parts by two, the product of
// the smaller ones is left out.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>
#include <type_traits>

#include "pair_message_tiles.cuh"
#include "ptx.cuh"

namespace equiconv::cuda {

constexpr int kRows = 64, kOwn = 8;  // weight rows of a warp at a time, and of those a lane's
constexpr int kTerms = 16;           // terms of a sum at a time

// Stored: the type of everything but the weight. Operand: what is multiplied, a type of ptx::mma or double.
// In how many parts weight and rows are given it. Exact: sums leave the tensor cores, which do not round to
// nearest, after every 16 terms.
template <class Stored_, class Operand_, int Weight, int Rows, bool Exact>
struct Scheme {
  using Stored = Stored_;
  using Operand = Operand_;
  using Real = std::conditional_t<std::is_same_v<Operand, double>, double, float>;
  static constexpr int kWeightParts = Weight, kRowParts = Rows;
  static constexpr bool kExact = Exact;
  static constexpr bool kHalves = sizeof(Operand_) == 2 && !std::is_same_v<Operand_, ptx::tf32>;
  // How a weight lies in shared memory: its parts, or as it is.
  using WeightElement = std::conditional_t<kHalves, Operand, Real>;
  static constexpr int kWeightCopies = kHalves ? Weight : 1;
  static constexpr int kPairs = sizeof(Stored) == 2 ? 32 : 16;  // of a tile
  static constexpr int kRun = kPairs / 4;                       // of those a lane's
};

template <class T>
struct alignas(16) Vector {
  static constexpr int kWidth = 16 / int(sizeof(T));
  T value[kWidth];
};
template <class T>
struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) Quad {
  T value[4];
};

// Four numbers as mma wants them: each part two words of two 16-bit numbers, or four of tf32.
template <class Operand, int Parts>
struct Packed {
  static constexpr int kWords = std::is_same_v<Operand, ptx::tf32> ? 4 : 2;
  std::uint32_t word[Parts][kWords];
};

__device__ __forceinline__ __nv_bfloat162 rounded(float a, float b, __nv_bfloat16) {
  return __floats2bfloat162_rn(a, b);
}
__device__ __forceinline__ __half2 rounded(float a, float b, __half) { return __floats2half2_rn(a, b); }

// What a first part leaves: nothing of infinity, of which inf - inf would make NaN.
__device__ __forceinline__ float rest(float x, float part) {
  return fabsf(part) < __uint_as_float(0x7f800000u) ? x - part : 0.f;
}

template <class Operand, int Parts>
__device__ __forceinline__ Packed<Operand, Parts> pack(float (&v)[4]) {
  Packed<Operand, Parts> packed;
#pragma unroll
  for (int part = 0; part < Parts; ++part) {
    if constexpr (std::is_same_v<Operand, ptx::tf32>) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        packed.word[part][i] = ptx::cvt_tf32(v[i]);
        if (part + 1 < Parts) v[i] = rest(v[i], __uint_as_float(packed.word[part][i]));
      }
    } else {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const auto two = rounded(v[i], v[i + 1], Operand());
        std::memcpy(&packed.word[part][i / 2], &two, sizeof two);
        if (part + 1 < Parts) v[i] = rest(v[i], float(two.x)), v[i + 1] = rest(v[i + 1], float(two.y));
      }
    }
  }
  return packed;
}

// The same from where they are stored, which may be as they are wanted.
template <class Operand, int Parts, class T>
__device__ __forceinline__ Packed<Operand, Parts> pack(const Quad<T> quad) {
  if constexpr (std::is_same_v<Operand, T>) {
    static_assert(Parts == 1);
    Packed<Operand, Parts> packed;
    std::memcpy(packed.word, &quad, sizeof quad);
    return packed;
  } else {
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = float(quad.value[i]);
    return pack<Operand, Parts>(v);
  }
}

// d += 16 weight rows by 8 pairs; the lane's two rows are `upper` and `lower`. Small parts first.
template <class Operand, int L, int R>
__device__ __forceinline__ void multiply_add(float (&d)[4], const Packed<Operand, L>& upper,
                                             const Packed<Operand, L>& lower,
                                             const Packed<Operand, R>& right) {
#pragma unroll
  for (int sum = (L > R ? L : R) - 1; sum >= 0; --sum)
#pragma unroll
    for (int i = 0; i < L; ++i) {
      const int j = sum - i;
      if (j < 0 || j >= R) continue;
#pragma unroll
      for (int k = 0; k < Packed<Operand, L>::kWords; k += 2) {
        const std::uint32_t a[4] = {upper.word[i][k], lower.word[i][k], upper.word[i][k + 1],
                                    lower.word[i][k + 1]};
        const std::uint32_t b[2] = {right.word[j][k], right.word[j][k + 1]};
        ptx::mma<Operand>(d, a, b);
      }
    }
}

// ---- rows in shared memory -------------------------------------------------------------------------

// Entries from one row to the next, so that eight rows' loads of 4 entries meet in no bank.
template <class T>
__host__ __device__ constexpr int pitch_of(int terms) {  // a multiple of kTerms
  if (sizeof(T) == 8) return terms + 2;
  return terms / kTerms % 2 ? terms : terms + kTerms;
}

// Where pair p of a tile lies: in the order in which lanes come by.
template <int kPairs>
__device__ __forceinline__ int slot_of(int p) {
  constexpr int kRun = kPairs / 4;
  return 8 * (p % kRun / 2) + 2 * (p / kRun) + p % 2;
}

// A weight's rows, those that a lane owns 8 rows apart. Between blocks of 8 rows 16 bytes keep those who
// write neighbouring rows apart.
template <class S>
struct WeightRows {
  using T = typename S::WeightElement;
  static constexpr int kWidth = Vector<T>::kWidth;
  T* data;
  int pitch, rows;

  __host__ __device__ static constexpr int block(int pitch) { return 8 * pitch + kWidth; }
  __host__ __device__ static constexpr std::int64_t bytes(int rows, int terms) {
    return std::int64_t(S::kWeightCopies) * (rows / 8) * block(pitch_of<T>(terms)) * std::int64_t(sizeof(T));
  }
  // Row kOwn g + own of 64, those from kRows * chunk on.
  __device__ __forceinline__ T* row(int chunk, int g, int own, int copy = 0) const {
    return data + (copy * (rows / 8) + chunk * 8 + own) * block(pitch) + g * pitch;
  }
};

// A weight's entries: its rows those of the result, its terms what is summed over.
struct WeightSource {
  const void* data;
  DType dtype;
  std::int64_t row, term;  // strides
  int rows, terms;
};

// Rows first_row … of the weight, terms first_term …, zeros where it has none; all threads of the block.
template <class S>
__device__ void load_weight(const WeightRows<S>& to, const WeightSource& w, int first_row, int first_term,
                            int terms) {
  using T = typename S::WeightElement;
  using Real = typename S::Real;
  constexpr int kWidth = WeightRows<S>::kWidth;
  const int vectors = terms / kWidth;
  const bool rows_fastest = w.row < w.term;
#pragma unroll 1
  for (int i = threadIdx.x; i < to.rows * vectors; i += blockDim.x) {
    const int row = rows_fastest ? i % to.rows : i / vectors;
    const int term = (rows_fastest ? i / to.rows : i % vectors) * kWidth;
    const std::int64_t at = (first_row + row) * w.row + (first_term + term) * w.term;
    const int left = first_row + row < w.rows ? min(w.terms - first_term - term, kWidth) : 0;
    Real value[kWidth];
    const auto read = [&](auto* data) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) value[k] = k < left ? Real(data[at + k * w.term]) : Real(0);
    };
    if constexpr (std::is_same_v<Real, double>) read(static_cast<const double*>(w.data));
    else if (std::is_same_v<typename S::Stored, float> || w.dtype == DType::float32)
      read(static_cast<const float*>(w.data));
    else if constexpr (!std::is_same_v<typename S::Stored, float>)
      read(static_cast<const typename S::Stored*>(w.data));
#pragma unroll
    for (int copy = 0; copy < S::kWeightCopies; ++copy) {
      Vector<T> stored;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        stored.value[k] = T(value[k]);
        if constexpr (S::kHalves) value[k] = rest(value[k], float(stored.value[k]));
      }
      T* place = to.row(row / kRows, row % kRows / kOwn, row % kOwn, copy) + term;
      *reinterpret_cast<Vector<T>*>(place) = stored;
    }
  }
}

// ---- the product -----------------------------------------------------------------------------------

// A lane's weight rows by pairs: [own / 2][pair / 2][own % 2 * 2 + pair % 2].
template <class S>
struct Sums {
  typename S::Real value[kOwn / 2][S::kRun / 2][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (auto& own : value)
#pragma unroll
      for (auto& pairs : own)
#pragma unroll
        for (auto& v : pairs) v = 0;
  }
  __device__ __forceinline__ typename S::Real get(int own, int pair) const {
    return value[own / 2][pair / 2][own % 2 * 2 + pair % 2];
  }
};

// sums += weight rows by the pairs' rows over `terms` terms. rows.packed(slot, term) is a Packed of four
// terms from `term` on, rows.value(slot, term) one term.
template <class S, class Rows>
__device__ __forceinline__ void multiply(Sums<S>& sums, const WeightRows<S>& weight, int chunk,
                                         const Rows& rows, int terms) {
  using T = typename S::WeightElement;
  const int g = lane() / 4, t = lane() % 4;
  if constexpr (std::is_same_v<typename S::Operand, double>) {
#pragma unroll 1
    for (int term = 0; term < terms; ++term) {
      double w[kOwn];
#pragma unroll
      for (int own = 0; own < kOwn; ++own) w[own] = weight.row(chunk, g, own)[term];
#pragma unroll
      for (int p = 0; p < S::kRun; ++p) {
        const double b = rows.value(p / 2 * 8 + 2 * t + p % 2, term);
#pragma unroll
        for (int own = 0; own < kOwn; ++own) sums.value[own / 2][p / 2][own % 2 * 2 + p % 2] += w[own] * b;
      }
    }
  } else {
    using Operand = typename S::Operand;
    using Left = Packed<Operand, S::kWeightParts>;
    const auto left = [&](int own, int term) {
      Left packed;
      if constexpr (S::kHalves) {
#pragma unroll
        for (int part = 0; part < S::kWeightParts; ++part) {
          const Quad<T> quad = *reinterpret_cast<const Quad<T>*>(weight.row(chunk, g, own, part) + term);
          std::memcpy(packed.word[part], &quad, sizeof quad);
        }
      } else {
        packed = pack<Operand, S::kWeightParts>(
            *reinterpret_cast<const Quad<T>*>(weight.row(chunk, g, own) + term));
      }
      return packed;
    };
#pragma unroll 1
    for (int step = 0; step < terms; step += kTerms) {
      const int term = step + 4 * t;
      Packed<Operand, S::kRowParts> right[S::kRun / 2];
#pragma unroll
      for (int n = 0; n < S::kRun / 2; ++n) right[n] = rows.packed(8 * n + g, term);
#pragma unroll
      for (int own = 0; own < kOwn; own += 2) {
        const Left upper = left(own, term), lower = left(own + 1, term);
#pragma unroll
        for (int n = 0; n < S::kRun / 2; ++n) {
          auto& sum = sums.value[own / 2][n];
          if constexpr (S::kExact) {
            float d[4] = {};
            multiply_add(d, upper, lower, right[n]);
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[i] += d[i];
          } else {
            multiply_add(sum, upper, lower, right[n]);
          }
        }
      }
    }
  }
}

}  // namespace equiconv::cuda
