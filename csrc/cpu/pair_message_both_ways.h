// The sums of pair_message where a basis row serves both directions of a pair: the pair's filter is made
// once, and what it sends is added at both ends.
//
// A group's pairs with points of higher numbers are left to those points' groups. So every two points are met
// once, in the order in which each of them would meet the other, and sums, which are in `out` from the
// beginning, have the bits that they have one direction at a time. Two opposite orientations are taken
// together, because each adds to the other's sums.
//
// Work is shared by threads where nothing is added to by two of them: by clouds, points that have no pairs
// with others, by couples of orientations, and by columns.
#pragma once
#include <algorithm>
#include <array>
#include <vector>

#include "arena.h"
#include "pairs.h"
#include "row_product.h"
#include "team.h"

namespace {

// Sums in memory, not in registers, and of both ends, cost as much as what is saved of 24 to 32 functions
// (measured on AVX-512, where points are 1000; of clouds of 20, less).
constexpr std::int64_t kLeastFunctions = 32;
inline bool pays_both_ways(const PairMessage& size) {
  return size.reversals() > 0 && !size.shared && size.functions >= kLeastFunctions;
}

template <class T>
class BothWays {
  using Product = RegisterProduct<T>;

 public:
  BothWays(const PairMessage& size, const PairAggregate& a, int threads, cpu::Parallel parallel)
      : size_(size),
        a_(a),
        groups_(a.pairs, a.groups),
        product_(size.functions, size.channels, 1, 1),
        basis_(a.basis, size.functions, Product::kMultiple, size.antipodes),
        team_{parallel, threads} {
    for (std::int64_t o = 0; o < size.orientations; ++o)
      if (o <= size.antipodes.of[o]) couples_.push_back({o, size.antipodes.of[o]});
    const std::int64_t wanted = threads == 1 ? 1 : 4 * threads;
    find_pieces(wanted);
    const auto cut = [&](std::int64_t parts, std::int64_t most) {
      return std::clamp<std::int64_t>((wanted + parts - 1) / parts, 1, most);
    };
    couple_cuts_ = cut(pieces(), std::int64_t(couples_.size()));
    column_cuts_ = cut(pieces() * couple_cuts_, tiles_of_columns());
  }

  std::int64_t scratch() const {
    Arena arena(nullptr);
    typename Product::Right(product_, arena);
    for (std::int64_t i = 0; i < count(); ++i) arena.take<T>(basis_.room(2 * kRows));
    return arena.used();
  }

  void run(void* scratch) const {
    const FlushSubnormals flush;
    Arena arena(scratch);
    typename Product::Right weight(product_, arena);
    pack_weight<T>(a_.weight, product_, false, weight);
    std::vector<T*> copies;
    for (std::int64_t i = 0; i < count(); ++i) copies.push_back(arena.take<T>(basis_.room(2 * kRows)));
    team_(count(), [&](std::int64_t i) {
      const std::int64_t piece = i / (couple_cuts_ * column_cuts_),
                         of_couples = i / column_cuts_ % couple_cuts_, of_columns = i % column_cuts_;
      const auto part = [](std::int64_t n, std::int64_t at, std::int64_t parts) { return n * at / parts; };
      const auto couples = std::int64_t(couples_.size());
      groups({starts_[std::size_t(piece)], starts_[std::size_t(piece + 1)],
              part(couples, of_couples, couple_cuts_), part(couples, of_couples + 1, couple_cuts_),
              kTileColumns<T> * part(tiles_of_columns(), of_columns, column_cuts_),
              std::min(kTileColumns<T> * part(tiles_of_columns(), of_columns + 1, column_cuts_),
                       size_.channels)},
             weight, copies[std::size_t(i)]);
    });
  }

 private:
  static constexpr int kRows = Product::kRows;
  // Groups, couples of orientations, and columns.
  struct Work {
    std::int64_t group, group_end, couple, couple_end, column, column_end;
  };
  struct Tile {
    int count = 0;
    std::int64_t group[kRows], neighbour[kRows], row[kRows];
  };

  std::int64_t pieces() const { return std::int64_t(starts_.size()) - 1; }
  std::int64_t count() const { return pieces() * couple_cuts_ * column_cuts_; }
  std::int64_t tiles_of_columns() const {
    return std::max<std::int64_t>(1, round_up(size_.channels, kTileColumns<T>) / kTileColumns<T>);
  }

  // Where pieces begin: so many at most, of whole clouds, with about as many pairs each.
  void find_pieces(std::int64_t most) {
    starts_.push_back(groups_.count);
    std::int64_t lowest = groups_.count, goal = most - 1;
    const auto before = [&](std::int64_t g) { return groups_.offset[g] + g; };
    for (std::int64_t g = groups_.count - 1; g > 0; --g) {
      if (groups_.offset[g] < groups_.offset[g + 1])
        lowest = std::min(lowest, groups_.neighbour[groups_.offset[g]]);
      if (goal == 0) break;
      if (lowest < g || before(g) > before(groups_.count) / most * goal) continue;
      starts_.push_back(g);
      while (goal > 0 && before(g) <= before(groups_.count) / most * goal) --goal;
    }
    starts_.push_back(0);
    std::reverse(starts_.begin(), starts_.end());
  }

  void groups(const Work& work, const typename Product::Right& weight, T* copies) const {
    for (std::int64_t g = work.group; g < work.group_end; ++g)
      for (std::int64_t couple = work.couple; couple < work.couple_end; ++couple)
        for (const std::int64_t o : couples_[std::size_t(couple)])
          std::fill(row_of<T>(a_.out, g, o) + work.column, row_of<T>(a_.out, g, o) + work.column_end, T(0));
    Tile tile;
    for (std::int64_t g = work.group; g < work.group_end; ++g)
      for (std::int64_t i = groups_.offset[g]; i < groups_.offset[g + 1] && groups_.neighbour[i] <= g; ++i) {
        tile.group[tile.count] = g, tile.neighbour[tile.count] = groups_.neighbour[i];
        tile.row[tile.count++] = groups_.row[i];
        if (tile.count == kRows) messages(tile, work, weight, copies), tile.count = 0;
      }
    if (tile.count == 0) return;
    for (int m = tile.count; m < kRows; ++m) tile.row[m] = tile.row[0];  // computed, and left
    messages(tile, work, weight, copies);
  }

  void messages(const Tile& tile, const Work& work, const typename Product::Right& weight, T* copies) const {
    for (std::int64_t couple = work.couple; couple < work.couple_end; ++couple) {
      const auto [o, opposite] = couples_[std::size_t(couple)];
      const int ways = o == opposite ? 1 : 2;
      typename Product::Left left[2];
      for (int way = 0; way < ways; ++way) {
        for (int m = 0; m < kRows; ++m)
          left[way].row[m] = basis_.get(tile.row[m], way ? opposite : o, way * kRows + m, copies);
      }
      if (couple + 1 < work.couple_end) fetch(tile, couples_[std::size_t(couple + 1)]);
      for_columns<T>(work.column_end - work.column, [&](auto vectors, std::int64_t column) {
        constexpr int V = vectors();
        const std::int64_t c = work.column + column;
        T filter[2][kRows][V * kLanes<T>];
        for (int way = 0; way < ways; ++way) {
          Vec<T> product[kRows][V];
          product_.template multiply<V>(left[way], weight, c, product);
#pragma GCC unroll 16
          for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) store(filter[way][m] + v * kLanes<T>, product[m][v]);
        }
        for (int m = 0; m < tile.count; ++m) {
          const std::int64_t g = tile.group[m], n = tile.neighbour[m];
          for (int way = 0; way < ways; ++way) {
            add<V>(g, n, way ? opposite : o, c, filter[way][m]);
            if (n != g) add<V>(n, g, way ? o : opposite, c, filter[way][m]);
          }
        }
      });
    }
  }

  // out[to] += filter * x[from]
  template <int V>
  EQUICONV_INLINE void add(std::int64_t to, std::int64_t from, std::int64_t o, std::int64_t c,
                           const T* filter) const {
    constexpr std::int64_t W = kLanes<T>;
    const std::int64_t left = size_.channels - c;
    T* out = row_of<T>(a_.out, to, o) + c;
    const auto x = features<T>(a_.x, from, o);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      const std::int64_t rest = left - v * W;
      const Vec<T> sum = rest >= W ? load(out + v * W) : load_some<T>(out + v * W, int(rest));
      put<T, T>(out + v * W, sum + load(filter + v * W) * x.vector(c + v * W, rest), rest);
    }
  }

  // Asks for what some pairs need at two orientations, which are next: rows from all over the memory.
  EQUICONV_INLINE void fetch(const Tile& tile, const std::array<std::int64_t, 2>& couple) const {
    for (int m = 0; m < tile.count; ++m)
      for (const std::int64_t o : couple) {
        fetch_row(basis_.place(tile.row[m], o), size_.functions);
        for (const std::int64_t point : {tile.group[m], tile.neighbour[m]}) {
          fetch_row(reinterpret_cast<const char*>(row_of<T>(a_.x, point, o)), size_.channels);
          fetch_row(reinterpret_cast<const char*>(row_of<T>(a_.out, point, o)), size_.channels);
        }
      }
  }
  static EQUICONV_INLINE void fetch_row(const char* row, std::int64_t entries) {
    for (std::int64_t i = 0; i < entries * std::int64_t(sizeof(T)); i += 64) __builtin_prefetch(row + i);
  }

  PairMessage size_;
  PairAggregate a_;
  Groups groups_;
  Product product_;
  BasisRows<T> basis_;
  Team team_;
  std::vector<std::array<std::int64_t, 2>> couples_;
  std::vector<std::int64_t> starts_;
  std::int64_t couple_cuts_ = 1, column_cuts_ = 1;
};

}  // namespace
