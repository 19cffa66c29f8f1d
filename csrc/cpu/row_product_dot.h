// The first of the two products of row_product.h, of bfloat16, by dot products: an instruction adds two terms
// to each sum. A row is read as it lies in memory, two entries in a word; of the matrix two rows are packed
// as one. Products are exact, sums float32, each rounded as a fused multiply-add's is.
//
// Not for the gradient of the basis: a product of two features is the sum of two bfloat16, so that a term
// takes two products, as long as one of float32.
#pragma once
#include <cstdint>
#include <cstring>

#include "arena.h"
#include "tile.h"

namespace {

// Rows of an odd number of entries are copied, with a zero behind them: of few that takes longer than it
// saves.
constexpr bool pays_by_dot_products(std::int64_t functions) { return functions % 2 == 0 || functions > 32; }

struct AddDotProduct {
  EQUICONV_INLINE void operator()(Vec<float>& sum, WordBits a, WordBits b) const {
    sum = (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};

class DotProduct {
 public:
  using Entry = bfloat16;
  static constexpr int kRows = kTileRows;
  static constexpr std::int64_t kMultiple = 2;
  struct Session {};
  struct Right {
    std::uint32_t* packed;
    Right(const DotProduct& p, Arena& arena)
        : packed(arena.take<std::uint32_t>(packed_size<std::uint32_t>(p.words_, p.columns_))) {}
  };
  struct Left {
    const bfloat16* row[kRows];
    EQUICONV_INLINE std::uint32_t operator()(int m, std::int64_t word) const {
      std::uint32_t entries;
      std::memcpy(&entries, row[m] + 2 * word, sizeof entries);
      return entries;
    }
  };
  struct LeftRoom {
    LeftRoom(const DotProduct&, Arena&) {}
  };

  DotProduct(std::int64_t depth, std::int64_t columns, int /*left_parts*/, int /*right_parts*/)
      : depth_(depth), columns_(columns), words_(round_up(depth, kMultiple) / kMultiple) {}

  template <class NumberAt>
  void pack_right(const NumberAt& number, Right& right) const {
    const auto bits = [&](std::int64_t k, std::int64_t c) {
      return k < depth_ ? bit_copy<std::uint32_t>(number(k, c)) >> 16 : 0;
    };
    pack<std::uint32_t>(
        words_, columns_,
        [&](std::int64_t word, std::int64_t c) { return bits(2 * word, c) | bits(2 * word + 1, c) << 16; },
        right.packed);
  }
  EQUICONV_INLINE Left prepare(const bfloat16* const (&rows)[kRows], const LeftRoom&) const {
    Left left;
    for (int m = 0; m < kRows; ++m) left.row[m] = rows[m];
    return left;
  }
  template <int V>
  EQUICONV_INLINE void multiply(const Left& left, const Right& right, std::int64_t column,
                                Vec<float> (&product)[kRows][V]) const {
    ::multiply<float>(words_, left, right.packed + column * words_, V * kLanes<float>, product,
                      AddDotProduct{});
  }

 private:
  std::int64_t depth_, columns_, words_;
};

}  // namespace
