// Products of matrices on a processor's matrix unit (Intel AMX), which multiplies bfloat16 and adds float32.
//
// A float32 is the sum of three bfloat16, its parts: the nearest one, the nearest to what that leaves, and
// the nearest to what is left then. Of the nine products of two such sums six are added; the other three are
// below 2^-24 of the whole, less than the rounding of the product itself. A bfloat16 has one part, a product
// of two of them two.
//
// The unit's tiles are 16 rows of 64 bytes. One of a left factor holds 16 rows by 32 of the depth; one of a
// right factor 32 of the depth by 16 columns, two of the depth in a word; one of the result 16 by 16 float32.
// Subnormal parts count as zero: of numbers below 2^-108 fewer bits are left.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd.h"

namespace {

constexpr int kSide = 16;         // rows of a tile, columns of a result's
constexpr int kStep = 2 * kSide;  // depth of a tile
constexpr int kParts = 3;

struct alignas(64) AmxTile {
  std::uint32_t word[kSide][kSide];
};
template <class V>
EQUICONV_INLINE void write(std::uint32_t* row, V words) {
  std::memcpy(row, &words, sizeof words);
}

// While it lives, this thread may use the unit.
class MatrixUnit {
 public:
  MatrixUnit() {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t bytes_of_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {kSide, kSide, kSide, kSide, kSide, kSide, kSide, kSide};
    } configuration;
    _tile_loadconfig(&configuration);
  }
  ~MatrixUnit() { _tile_release(); }
  MatrixUnit(const MatrixUnit&) = delete;
  MatrixUnit& operator=(const MatrixUnit&) = delete;
};

// ---- parts ----------------------------------------------------------------------------------------
using Words = std::uint32_t __attribute__((vector_size(64)));
using Halves = std::uint16_t __attribute__((vector_size(64)));

// Both vectors' nearest bfloat16: those of `a` in the lower half.
EQUICONV_INLINE Halves round_both(Vec<float> a, Vec<float> b) {
  return (Halves)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
}

// (A mask of all ones: without one GCC 12 warns of what its own header leaves open.)
EQUICONV_INLINE Vec<float> widened(__m256i halves) {
  return (Vec<float>)((Words)_mm512_maskz_cvtepu16_epi32(0xffff, halves) << 16);
}

// The parts of two vectors, side by side, which are subtracted from them. What is not finite, or rounds to
// infinity, leaves NaN.
EQUICONV_INLINE Halves take_part(Vec<float>& a, Vec<float>& b) {
  const Halves part = round_both(a, b);
  a -= widened(_mm512_maskz_extracti64x4_epi64(0xff, (__m512i)part, 0));
  b -= widened(_mm512_maskz_extracti64x4_epi64(0xff, (__m512i)part, 1));
  return part;
}
// The same with the two vectors' entries in turns, as a right factor has two rows, and a left one two
// columns.
EQUICONV_INLINE Words take_part_in_turns(Vec<float>& a, Vec<float>& b) {
  const Halves both = round_both(a, b);
  const Words part =
      (Words)__builtin_shufflevector(both, both, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8,
                                     24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  a -= (Vec<float>)(part << 16);
  b -= (Vec<float>)(part & 0xffff0000u);
  return part;
}
EQUICONV_INLINE bool is_whole(Vec<float> a, Vec<float> b) {
  return !_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q);
}

// 32 entries of a row of a left factor: part p goes to row[p * pitch]. False: they have no parts, and what is
// written is zero.
EQUICONV_INLINE bool split(const float* entries, int parts, std::int64_t pitch, std::uint32_t (*row)[kSide]) {
  Vec<float> a = load(entries), b = load(entries + kSide);
  for (int p = 0; p < parts; ++p) write(row[p * pitch], take_part(a, b));
  const bool whole = is_whole(a, b);
  if (!whole)
    for (int p = 0; p < parts; ++p) write(row[p * pitch], Words{});
  return whole;
}

// ---- products --------------------------------------------------------------------------------------
// The compiler knows nothing of a tile's loads.
EQUICONV_INLINE void settle_memory() { asm volatile("" ::: "memory"); }

// sum (two tiles by V) += left * right over `steps` steps of depth. For each step, and each part, `left` has
// two tiles and `right` V.
template <int V>
EQUICONV_INLINE void accumulate(const AmxTile* left, int left_parts, const AmxTile* right, int right_parts,
                                std::int64_t steps) {
  for (std::int64_t s = 0; s < steps; ++s) {
    for (int q = 0; q < right_parts; ++q) {
      _tile_loadd(6, right + q * V, 64);
      if constexpr (V == 2) _tile_loadd(7, right + q * V + 1, 64);
      const int parts = std::min(left_parts, kParts - q);
      for (int p = 0; p < parts; ++p) {
        _tile_loadd(4, left + p * 2, 64);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (V == 2) _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + p * 2 + 1, 64);
        _tile_dpbf16ps(2, 5, 6);
        if constexpr (V == 2) _tile_dpbf16ps(3, 5, 7);
      }
    }
    left += left_parts * 2, right += right_parts * V;
  }
}
template <int V>
EQUICONV_INLINE void clear_sum() {
  _tile_zero(0);
  _tile_zero(2);
  if constexpr (V == 2) {
    _tile_zero(1);
    _tile_zero(3);
  }
}
template <int V>
EQUICONV_INLINE void load_sum(const float* from, std::int64_t pitch) {
  const std::int64_t bytes = pitch * 4;
  _tile_loadd(0, from, bytes);
  _tile_loadd(2, from + kSide * pitch, bytes);
  if constexpr (V == 2) {
    _tile_loadd(1, from + kSide, bytes);
    _tile_loadd(3, from + kSide * pitch + kSide, bytes);
  }
}
template <int V>
EQUICONV_INLINE void store_sum(float* to, std::int64_t pitch) {
  const std::int64_t bytes = pitch * 4;
  _tile_stored(0, to, bytes);
  _tile_stored(2, to + kSide * pitch, bytes);
  if constexpr (V == 2) {
    _tile_stored(1, to + kSide, bytes);
    _tile_stored(3, to + kSide * pitch + kSide, bytes);
  }
}

}  // namespace
