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

// Sums of neighbours in memory, not in registers, cost as much as what is saved of 24 to 32 functions
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
    Tile tiles[2];  // one that is multiplied, and the next, which is fetched meanwhile
    Tile *tile = &tiles[0], *next = &tiles[1];
    const auto turn = [&] {
      if (tile->count) messages(*tile, *next, work, weight, copies);
      std::swap(tile, next), next->count = 0;
    };
    for (std::int64_t g = work.group; g < work.group_end; ++g)
      for (std::int64_t i = groups_.offset[g]; i < groups_.offset[g + 1] && groups_.neighbour[i] <= g; ++i) {
        next->group[next->count] = g, next->neighbour[next->count] = groups_.neighbour[i];
        next->row[next->count++] = groups_.row[i];
        if (next->count == kRows) turn();
      }
    for (int m = next->count; m < kRows; ++m) next->row[m] = next->row[0];  // computed, and left
    turn(), turn();
  }

  void messages(const Tile& tile, const Tile& next, const Work& work, const typename Product::Right& weight,
                T* copies) const {
    for (std::int64_t couple = work.couple; couple < work.couple_end; ++couple) {
      const auto [o, opposite] = couples_[std::size_t(couple)];
      const int ways = o == opposite ? 1 : 2;
      typename Product::Left left[2];
      for (int way = 0; way < ways; ++way) {
        for (int m = 0; m < kRows; ++m)
          left[way].row[m] = basis_.get(tile.row[m], way ? opposite : o, way * kRows + m, copies);
      }
      const bool last = couple + 1 == work.couple_end;
      const Tile& then = last ? next : tile;
      const auto& couple_then = couples_[std::size_t(last ? work.couple : couple + 1)];
      const std::int64_t products =
          ways * round_up(work.column_end - work.column, kTileColumns<T>) / kTileColumns<T>;
      std::int64_t product_at = 0;
      const auto fetch_part = [&] {
        const int from = int(then.count * product_at / products),
                  to = int(then.count * (product_at + 1) / products);
        fetch(then, from, to, couple_then, work);
        ++product_at;
      };
      for_columns<T>(work.column_end - work.column, [&](auto vectors, std::int64_t column) {
        constexpr int V = vectors();
        const std::int64_t c = work.column + column;
        Vec<T> product[kRows][V];
        fetch_part();
        product_.template multiply<V>(left[0], weight, c, product);
        add_to_groups<V>(tile, o, c, product);
        if (ways == 1) return add_to_neighbours<V>(tile, o, c, product);
        const Stored<T, kRows, V> first(product);
        fetch_part();
        product_.template multiply<V>(left[1], weight, c, product);
        add_to_groups<V>(tile, opposite, c, product);
        add_to_neighbours<V>(tile, o, c, product);
        add_to_neighbours<V>(tile, opposite, c, first.of);
      });
    }
  }

  // out[group] += filter * x[neighbour]. Of a tile, all groups come before the neighbours: no point is a
  // neighbour before it has been the group, so each meets its pairs in order.
  template <int V>
  EQUICONV_INLINE void add_to_groups(const Tile& tile, std::int64_t o, std::int64_t c,
                                     const Vec<T> (&filter)[kRows][V]) const {
    constexpr std::int64_t W = kLanes<T>;
    const std::int64_t left = size_.channels - c;
    T* out = row_of<T>(a_.out, tile.group[0], o) + c;
    Vec<T> sum[V];
    for (int v = 0; v < V; ++v) sum[v] = get(out + v * W, left - v * W);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
      if (m < tile.count) {
        if (m > 0 && tile.group[m] != tile.group[m - 1]) {
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) put<T, T>(out + v * W, sum[v], left - v * W);
          out = row_of<T>(a_.out, tile.group[m], o) + c;
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) sum[v] = get(out + v * W, left - v * W);
        }
        const auto x = features<T>(a_.x, tile.neighbour[m], o);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[v] += filter[m][v] * x.vector(c + v * W, left - v * W);
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) put<T, T>(out + v * W, sum[v], left - v * W);
  }

  // out[neighbour] += filter * x[group]
  template <int V>
  EQUICONV_INLINE void add_to_neighbours(const Tile& tile, std::int64_t o, std::int64_t c,
                                         const Vec<T> (&filter)[kRows][V]) const {
    constexpr std::int64_t W = kLanes<T>;
    const std::int64_t left = size_.channels - c;
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
      if (m < tile.count && tile.group[m] != tile.neighbour[m]) {
        const auto x = features<T>(a_.x, tile.group[m], o);
        T* out = row_of<T>(a_.out, tile.neighbour[m], o) + c;
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
          const Vec<T> sum =
              get(out + v * W, left - v * W) + filter[m][v] * x.vector(c + v * W, left - v * W);
          put<T, T>(out + v * W, sum, left - v * W);
        }
      }
    }
  }
  static EQUICONV_INLINE Vec<T> get(const T* p, std::int64_t count) {
    return count >= kLanes<T> ? load(p) : load_some<T>(p, int(count));
  }

  // Asks for what some pairs need at two orientations, which are next: rows from all over the memory.
  EQUICONV_INLINE void fetch(const Tile& tile, int from, int to, const std::array<std::int64_t, 2>& couple,
                             const Work& work) const {
    const std::int64_t bytes = (work.column_end - work.column) * std::int64_t(sizeof(T));
    // GCC leaves out calls of what only prefetches
    const auto fetch_point = [&](std::int64_t point, std::int64_t o) __attribute__((always_inline)) {
      fetch_row(row_of<T>(a_.x, point, o) + work.column, bytes);
      fetch_row(row_of<T>(a_.out, point, o) + work.column, bytes);
    };
    for (int m = from; m < to; ++m)
      for (const std::int64_t o : couple) {
        fetch_row(basis_.place(tile.row[m], o), size_.functions * std::int64_t(sizeof(T)));
        fetch_point(tile.neighbour[m], o);
        if (m == 0 || tile.group[m] != tile.group[m - 1]) fetch_point(tile.group[m], o);
      }
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
