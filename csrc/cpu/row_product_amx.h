// The two products of row_product.h, of float32 that is the sum of few bfloat16, on a matrix unit. Rows that
// are not finite, or nearly too large, have no parts: these are multiplied in registers, one by one, and
// touch no other.
#pragma once
#include <algorithm>
#include <cstdint>

#include "amx.h"
#include "arena.h"
#include "tile.h"

namespace {

// Of fewer functions and channels the unit's tiles are too empty, or what is made of the product takes
// longer.
constexpr bool pays_on_matrix_unit(std::int64_t functions, std::int64_t channels) {
  return functions >= kStep && channels >= kStep && functions * channels >= 4096;
}

class AmxProduct {
 public:
  using Entry = float;
  static constexpr int kRows = 2 * kSide;
  static constexpr std::int64_t kMultiple = kStep;
  using Session = MatrixUnit;
  struct Right {
    float* plain;  // the packed matrix as it is
    AmxTile* tiles;
    bool whole = true;  // every entry has parts
    Right(const AmxProduct& p, Arena& arena)
        : plain(arena.take<float>(packed_size<float>(p.depth_, p.columns_))),
          tiles(arena.take<AmxTile>(p.steps_ * p.right_parts_ * round_up(p.columns_, kSide) / kSide)) {}
  };
  struct LeftRoom {
    AmxTile* tiles;
    LeftRoom(const AmxProduct& p, Arena& arena) : tiles(arena.take<AmxTile>(p.steps_ * p.left_parts_ * 2)) {}
  };
  struct Left {
    const AmxTile* tiles;
    std::uint32_t odd;  // bit m: row m has no parts
    RowsOfLeft<float, kRows> rows;
  };

  AmxProduct(std::int64_t depth, std::int64_t columns, int left_parts, int right_parts)
      : depth_(depth),
        columns_(columns),
        steps_(round_up(depth, kStep) / kStep),
        left_parts_(left_parts),
        right_parts_(right_parts) {}

  template <class Entry>
  void pack_right(const Entry& entry, Right& right) const {
    pack<float>(depth_, columns_, entry, right.plain);
    for_columns<float>(columns_, [&](auto vectors, std::int64_t c) {
      constexpr int V = vectors();
      const auto row = [&](std::int64_t k, int v) {
        return k < depth_ ? load(right.plain + c * depth_ + (k * V + v) * kSide) : Vec<float>{};
      };
      AmxTile* tiles = tiles_of(right, c);
      for (std::int64_t s = 0; s < steps_; ++s, tiles += right_parts_ * V)
        for (int i = 0; i < kSide; ++i)
          for (int v = 0; v < V; ++v) {
            const std::int64_t k = s * kStep + 2 * i;
            Vec<float> a = row(k, v), b = row(k + 1, v);
            for (int q = 0; q < right_parts_; ++q) write(tiles[q * V + v].word[i], take_part_in_turns(a, b));
            right.whole = right.whole && is_whole(a, b);
          }
    });
  }

  EQUICONV_INLINE Left prepare(const float* const (&rows)[kRows], const LeftRoom& room) const {
    Left left{room.tiles, 0, {}};
    for (int m = 0; m < kRows; ++m) {
      left.rows.row[m] = rows[m];
      AmxTile* tiles = room.tiles + m / kSide;
      bool whole = true;
      for (std::int64_t s = 0; s < steps_; ++s, tiles += left_parts_ * 2)
        whole &= split(rows[m] + s * kStep, left_parts_, 2 * kSide, &tiles->word[m % kSide]);
      left.odd |= std::uint32_t(!whole) << m;
    }
    return left;
  }

  template <int V>
  EQUICONV_INLINE void multiply(const Left& left, const Right& right, std::int64_t column,
                                Vec<float> (&product)[kRows][V]) const {
    settle_memory();
    clear_sum<V>();
    accumulate<V>(left.tiles, left_parts_, tiles_of(right, column), right_parts_, steps_);
    store_sum<V>(reinterpret_cast<float*>(product), V * kSide);
    const std::uint32_t odd = right.whole ? left.odd : ~std::uint32_t(0);
    if (odd) in_registers<V>(odd, left, right, column, product);
  }

 private:
  AmxTile* tiles_of(const Right& right, std::int64_t column) const {
    return right.tiles + column / kSide * steps_ * right_parts_;
  }
  template <int V>
  __attribute__((noinline)) void in_registers(std::uint32_t odd, const Left& left, const Right& right,
                                              std::int64_t column, Vec<float> (&product)[kRows][V]) const {
    for (int m = 0; m < kRows; ++m)
      if (odd >> m & 1) {
        Vec<float> one[1][V];
        ::multiply<float>(depth_, RowsOfLeft<float, 1>{{left.rows.row[m]}}, right.plain + column * depth_,
                          V * kSide, one);
        for (int v = 0; v < V; ++v) product[m][v] = one[0][v];
      }
  }

  std::int64_t depth_, columns_, steps_;
  int left_parts_, right_parts_;
};

class AmxOuter {
 public:
  static constexpr std::int64_t kBlock = 128, kWhole = kStep;
  struct Room {
    AmxTile *left, *right;
    Room(const AmxOuter& o, Arena& arena)
        : left(arena.take<AmxTile>(kSteps * o.height_ / kSide * o.left_parts_)),
          right(arena.take<AmxTile>(kSteps * round_up(o.width_, kSide) / kSide * o.right_parts_)) {}
  };

  AmxOuter(std::int64_t height, std::int64_t width, std::int64_t pitch, int left_parts, int right_parts)
      : height_(round_up(height, kWhole)),
        width_(width),
        pitch_(pitch),
        left_parts_(left_parts),
        right_parts_(right_parts) {}

  void add(int count, const float* const* left, const float* const* right, const Room& room,
           float* sum) const {
    const float *left_row[kBlock] = {}, *right_row[kBlock] = {};  // null: zeros
    for (int i = 0; i < count; ++i) {
      if (whole(left[i], height_) && whole(right[i], width_)) left_row[i] = left[i], right_row[i] = right[i];
      else add_in_registers(left[i], right[i], sum);
    }
    const std::int64_t steps = round_up(count, kStep) / kStep;
    for (std::int64_t s = 0; s < steps; ++s) {
      for (std::int64_t k = 0; k < height_; k += kSide) {
        Vec<float> words[kParts][kSide];
        for (int i = 0; i < kSide; ++i)
          split_rows(left_row + s * kStep + 2 * i, k, left_parts_, words[0] + i, kSide);
        AmxTile* tiles = room.left + (k / kStep * steps + s) * left_parts_ * 2 + k / kSide % 2;
        for (int p = 0; p < left_parts_; ++p) {
          transpose<float>(words[p]);
          std::memcpy(tiles[p * 2].word, words[p], sizeof words[p]);
        }
      }
      for_columns<float>(width_, [&](auto vectors, std::int64_t c) {
        constexpr int V = vectors();
        AmxTile* tiles = room.right + (c / kSide * steps + s * V) * right_parts_;
        for (int i = 0; i < kSide; ++i)
          for (int v = 0; v < V; ++v)
            split_rows(right_row + s * kStep + 2 * i, c + v * kSide, right_parts_,
                       reinterpret_cast<Vec<float>*>(tiles[v].word[i]), V * kSide);
      });
    }
    settle_memory();
    for (std::int64_t k = 0; k < height_; k += kStep)
      for_columns<float>(width_, [&](auto vectors, std::int64_t c) {
        constexpr int V = vectors();
        float* total = sum + k * pitch_ + c;
        load_sum<V>(total, pitch_);
        accumulate<V>(room.left + k / kSide * steps * left_parts_, left_parts_,
                      room.right + c / kSide * steps * right_parts_, right_parts_, steps);
        store_sum<V>(total, pitch_);
      });
  }

 private:
  static constexpr std::int64_t kSteps = kBlock / kStep;
  // Whether each entry has parts: is finite, and below what rounds to infinity.
  static bool whole(const float* row, std::int64_t count) {
    const Words most = Words{} + 0x7f7f0000u;  // magnitudes from 0x7f7f8000 on round to infinity
    Words over{};
    for (std::int64_t i = 0; i < count; i += kSide) {
      const Words magnitude = (Words)load(row + i) & 0x7fffffffu;
      over |= (Words)(magnitude > most);
    }
    return !_mm512_test_epi32_mask((__m512i)over, (__m512i)over);
  }
  // 16 entries of two rows, in turns; part p goes to words[p * pitch].
  static EQUICONV_INLINE void split_rows(const float* const* rows, std::int64_t at, int parts,
                                         Vec<float>* words, std::int64_t pitch) {
    Vec<float> a = rows[0] ? load(rows[0] + at) : Vec<float>{},
               b = rows[1] ? load(rows[1] + at) : Vec<float>{};
    for (int p = 0; p < parts; ++p) words[p * pitch] = (Vec<float>)take_part_in_turns(a, b);
  }
  void add_in_registers(const float* left, const float* right, float* sum) const {
    for (std::int64_t k = 0; k < height_; ++k)
      for (std::int64_t c = 0; c < width_; c += kSide) {
        float* total = sum + k * pitch_ + c;
        store(total, load(total) + splat(left[k]) * load(right + c));
      }
  }

  std::int64_t height_, width_, pitch_;
  int left_parts_, right_parts_;
};

}  // namespace
