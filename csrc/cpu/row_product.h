// The two products of pair_message in registers, for any type and processor: rows times a packed matrix, a
// tile of rows at a time, and sums of outer products of rows, as implicit_filter has them. row_product_amx.h
// has the same on a matrix unit, row_product_dot.h the first by dot products.
#pragma once
#include <cstdint>

#include "../dtype.h"
#include "arena.h"
#include "tile.h"

namespace {

template <class T>
class RegisterProduct {
 public:
  using Entry = T;  // of rows
  static constexpr int kRows = kTileRows;
  static constexpr std::int64_t kMultiple = 1;  // rows are readable up to a multiple of it, zeros beyond
  struct Session {};                            // what a thread has while it multiplies
  struct Right {
    T* packed;
    Right(const RegisterProduct& p, Arena& arena)
        : packed(arena.take<T>(packed_size<T>(p.depth_, p.columns_))) {}
  };
  using Left = RowsOfLeft<T, kRows>;
  struct LeftRoom {
    LeftRoom(const RegisterProduct&, Arena&) {}
  };

  // Rows of `depth` entries, a matrix (depth, columns).
  RegisterProduct(std::int64_t depth, std::int64_t columns, int /*left_parts*/, int /*right_parts*/)
      : depth_(depth), columns_(columns) {}

  template <class Entry>
  void pack_right(const Entry& entry, Right& right) const {
    pack<T>(depth_, columns_, entry, right.packed);
  }
  EQUICONV_INLINE Left prepare(const T* const (&rows)[kRows], const LeftRoom&) const {
    Left left;
    for (int m = 0; m < kRows; ++m) left.row[m] = rows[m];
    return left;
  }
  // Some columns of the product.
  template <int V>
  EQUICONV_INLINE void multiply(const Left& left, const Right& right, std::int64_t column,
                                Vec<T> (&product)[kRows][V]) const {
    ::multiply<T, kAhead>(depth_, left, right.packed + column * depth_, V * kLanes<T>, product);
  }

 private:
  static constexpr int kAhead =
      8;  // the packed matrix passes through the first cache, rows push it out of it
  std::int64_t depth_, columns_;
};

template <class T>
class RegisterOuter {
 public:
  static constexpr std::int64_t kBlock = 48;  // rows at a time
  static constexpr std::int64_t kWhole =
      kShortTile;  // rows are readable up to a multiple of it, zeros beyond
  struct Room {
    Room(const RegisterOuter&, Arena&) {}
  };

  // Of rows of `height` and of `width` entries; the sum's rows have a pitch.
  RegisterOuter(std::int64_t height, std::int64_t width, std::int64_t pitch, int /*left_parts*/,
                int /*right_parts*/)
      : height_(round_up(height, kWhole)), width_(width), pitch_(pitch) {}

  // sum += the sum over `count` rows of left transposed times right, of which some columns stay in the first
  // cache for all rows.
  void add(int count, const T* const* left, const T* const* right, const Room&, T* sum) const {
    for_columns<T>(width_, [&](auto vectors, std::int64_t c) {
      for_rows(height_, [&](auto rows, std::int64_t k) {
        constexpr int V = vectors(), M = rows();
        Vec<T> product[M][V];
        multiply<T>(count, ColumnsOfLeft<T>{left, k}, right[0] + c, pitch_, product);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) {
            T* total = sum + (k + m) * pitch_ + c + v * kLanes<T>;
            store(total, load(total) + product[m][v]);
          }
      });
    });
  }

 private:
  std::int64_t height_, width_, pitch_;
};

}  // namespace
