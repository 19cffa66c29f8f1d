// pair_message on the CPU: the sums of messages, and the gradients of basis and weight.
//
// A tile is some consecutive pairs by some channels of one orientation. Their filters, basis times weight,
// are made in registers, multiplied there with the features that the pairs' other points send, and summed
// over each group, so that of everything that has a pair and a channel nothing is ever stored. The weight
// lies in blocks of a tile's columns, which pass through the inner caches again and again; basis and out go
// by once, features as often as they are sent.
//
// bfloat16 is multiplied on a matrix unit where there is one, and it pays (row_product_amx.h), or by dot
// products where these are fast (row_product_dot.h, pair_message_dot.h).
//
// Both gradients start from rows p = x[s] * grad_out[r], some dozens at a time: that of basis is p times the
// transposed weight, that of the weight the basis transposed times p. Where a basis row serves both
// directions of a pair, p is the sum of both directions' products.
//
// A sum's order is that of its group, or depends on the sizes alone, whatever the number of threads.
// Bound by arithmetic, 2 * functions operations a pair, orientation and channel, from 64 functions or so.
#include "pair_message.h"

#include <algorithm>
#include <vector>

#include "arena.h"
#include "pair_message_both_ways.h"
#include "pairs.h"
#include "row_product.h"
#include "team.h"
#include "weight_runs.h"
#if defined(__AMX_BF16__)
#include "row_product_amx.h"
#elif defined(__AVX512BF16__)
#include "pair_message_dot.h"
#include "row_product_dot.h"
#endif

namespace {

using namespace equiconv;

// The bfloat16 that a number is the sum of.
int parts_of(DType dtype) { return dtype == DType::bfloat16 ? 1 : 3; }

// ---- the sums of messages ------------------------------------------------------------------------
template <class T, class Product>
class Aggregate {
 public:
  Aggregate(const PairMessage& size, const PairAggregate& a, int threads, cpu::Parallel parallel)
      : size_(size),
        a_(a),
        groups_(a.pairs, a.groups),
        product_(size.functions, size.channels, parts_of(a.basis.dtype), parts_of(a.weight.dtype)),
        basis_(a.basis, size.functions, Product::kMultiple, size.antipodes),
        team_{parallel, threads},
        columns_(round_up(size.channels, kLanes<T>)),
        basis_bytes_(size.functions * bytes_of(a.basis.dtype)),
        share_(int(round_up(kRows * kTileColumns<T>, size.channels) / size.channels)) {
    // Groups go to threads in runs with about as many pairs; where there are few groups, orientations as
    // well.
    pieces_ = threads == 1 ? 1 : std::min<std::int64_t>(a.groups, 4 * threads);
    cuts_ = pieces_ < 4 * threads && threads > 1 ? std::min<std::int64_t>(size.orientations, 2 * threads) : 1;
  }

  std::int64_t scratch() const {
    Arena arena(nullptr);
    typename Product::Right(product_, arena);
    for (std::int64_t i = 0; i < pieces_ * cuts_; ++i) Slot(*this, arena);
    return arena.used();
  }

  void run(void* scratch) const {
    const FlushSubnormals flush;
    Arena arena(scratch);
    typename Product::Right weight(product_, arena);
    pack_weight<T>(a_.weight, product_, false, weight);
    std::vector<Slot> slots;
    for (std::int64_t i = 0; i < pieces_ * cuts_; ++i) slots.emplace_back(*this, arena);
    with_arithmetic_storage<T>(a_.x.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      team_(pieces_ * cuts_, [&](std::int64_t i) {
        [[maybe_unused]] const typename Product::Session session;
        const std::int64_t piece = i / cuts_, cut = i % cuts_;
        const Work work{groups_.first_of(piece, pieces_), groups_.first_of(piece + 1, pieces_),
                        size_.orientations * cut / cuts_, size_.orientations * (cut + 1) / cuts_};
        groups<S>(work, weight, slots[std::size_t(i)]);
      });
    });
  }

 private:
  static constexpr int kRows = Product::kRows;
  using Entry = typename Product::Entry;
  // Groups and orientations of one piece of work.
  struct Work {
    std::int64_t group, group_end, o, o_end;
  };
  struct Slot {
    T* open;        // the sums of a group that goes on in the next tile
    Entry* copies;  // a tile's basis rows
    typename Product::LeftRoom left;
    Slot(const Aggregate& f, Arena& arena) : left(f.product_, arena) {
      open = arena.take<T>((f.size_.orientations + f.cuts_ - 1) / f.cuts_ * f.columns_);
      copies = arena.take<Entry>(f.basis_.room(kRows));
    }
  };
  // Consecutive pairs: bit m of `ends` tells that pair m is its group's last. Of more rows than pairs the
  // last are computed, and left.
  struct Tile {
    int count = 0;
    unsigned ends = 0;
    bool open = false;  // the first group began in an earlier tile
    std::int64_t row[kRows] = {}, sent[kRows] = {}, sum[kRows] = {};  // where x and out have the pair's rows
  };

  template <class S>
  void groups(const Work& work, const typename Product::Right& weight, Slot& slot) const {
    Tile tiles[2];  // one that is multiplied, and the next, which is fetched meanwhile
    Tile *tile = &tiles[0], *next = &tiles[1];
    const auto turn = [&](bool open) {
      if (tile->count) messages<S>(*tile, *next, work, weight, slot);
      std::swap(tile, next);
      next->count = 0, next->ends = 0, next->open = open;
    };
    for (std::int64_t g = work.group; g < work.group_end; ++g) {
      const std::int64_t begin = groups_.offset[g], end = groups_.offset[g + 1];
      for (std::int64_t i = begin; i < end; ++i) {
        const int m = next->count++;
        next->row[m] = groups_.row[i];
        next->sent[m] = groups_.neighbour[i] * a_.x.row, next->sum[m] = g * a_.out.row;
        if (i + 1 == end) next->ends |= 1u << m;
        if (next->count == kRows) turn(i + 1 < end);
      }
      if (begin == end)
        for (std::int64_t o = work.o; o < work.o_end; ++o)
          std::fill_n(row_of<S>(a_.out, g, o), size_.channels, S{});
    }
    for (int m = next->count; m < kRows; ++m) next->row[m] = next->row[0], next->sent[m] = next->sent[0];
    turn(false), turn(false);
  }

  template <class S>
  void messages(const Tile& tile, const Tile& next, const Work& work, const typename Product::Right& weight,
                Slot& slot) const {
    const std::int64_t together = size_.shared ? work.o_end - work.o : 1;  // orientations of one filter
    for (std::int64_t o = work.o; o < work.o_end; o += together) {
      const Entry* basis[kRows];
      for (int m = 0; m < kRows; ++m) basis[m] = basis_.get(tile.row[m], o, m, slot.copies);
      const auto left = product_.prepare(basis, slot.left);
      const bool last = o + together >= work.o_end;
      const Tile& tile_then = last ? next : tile;
      const std::int64_t o_then = last ? work.o : o + together;
      int fetched = 0;
      for_columns<T>(size_.channels, [&](auto vectors, std::int64_t c) {
        constexpr int V = vectors();
        const int fetch_end = std::min(fetched + share_, kRows);
        for (; fetched < fetch_end; ++fetched)
          fetch_row(basis_.place(tile_then.row[fetched], o_then), basis_bytes_);
        Vec<T> filter[kRows][V];
        product_.template multiply<V>(left, weight, c, filter);
        const bool whole = a_.x.entry == 1 && size_.channels - c >= V * kLanes<T>;
        for (std::int64_t p = o; p < o + together; ++p) {
          fetch<S, V>(tile_then, p + o_then - o, c);
          T* open = slot.open + (p - work.o) * columns_ + c;
          if (whole) sums<S, V, true>(tile, p, c, filter, open);
          else sums_of_part<S>(tile, p, c, Stored<T, kRows, V>(filter), open);
        }
      });
    }
  }

  // Asks for some columns of the features of pairs that are next: rows from all over the memory.
  template <class S, int V>
  EQUICONV_INLINE void fetch(const Tile& tile, std::int64_t o, std::int64_t c) const {
    const S* x = row_of<S>(a_.x, 0, o) + c;
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) fetch_row(x + tile.sent[m], V * kLanes<T> * std::int64_t(sizeof(S)));
  }

  // Adds filter * feature over the tile's groups; each that ends is stored, the last may stay open. `whole`:
  // all vectors are, and features contiguous.
  template <class S, int V, bool whole>
  EQUICONV_INLINE void sums(const Tile& tile, std::int64_t o, std::int64_t c,
                            const Vec<T> (&filter)[kRows][V], T* open) const {
    constexpr std::int64_t W = kLanes<T>;
    const std::int64_t left = size_.channels - c;
    const S* x = row_of<S>(a_.x, 0, o);
    S* out = row_of<S>(a_.out, 0, o) + c;
    Vec<T> sum[V];
    for (int v = 0; v < V; ++v) sum[v] = tile.open ? load(open + v * W) : Vec<T>{};
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        if constexpr (whole) sum[v] += filter[m][v] * load(x + tile.sent[m] + c + v * W);
        else
          sum[v] +=
              filter[m][v] * StridedRow<S>{x + tile.sent[m], a_.x.entry}.vector(c + v * W, left - v * W);
      }
      if (tile.ends >> m & 1) {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
          if constexpr (whole) store(out + tile.sum[m] + v * W, sum[v]);
          else put<S, T>(out + tile.sum[m] + v * W, sum[v], left - v * W);
          sum[v] = Vec<T>{};
        }
      }
    }
    for (int v = 0; v < V; ++v) store(open + v * W, sum[v]);
  }
  template <class S, int V>
  __attribute__((noinline)) void sums_of_part(const Tile& tile, std::int64_t o, std::int64_t c,
                                              const Stored<T, kRows, V>& filter, T* open) const {
    sums<S, V, false>(tile, o, c, filter.of, open);
  }

  PairMessage size_;
  PairAggregate a_;
  Groups groups_;
  Product product_;
  BasisRows<typename Product::Entry> basis_;
  Team team_;
  std::int64_t columns_, basis_bytes_;
  int share_;  // of a tile's rows, fetched before each product
  std::int64_t pieces_, cuts_;
};

// ---- the gradients of basis and weight -----------------------------------------------------------
template <class T, class Product, class Outer>
class Gradients {
 public:
  Gradients(const PairMessage& size, const PairGradients& a, int threads, cpu::Parallel parallel)
      : size_(size),
        a_(a),
        groups_(a.pairs, size.receivers),
        basis_(a.basis, size.functions, Outer::kWhole),
        team_{parallel, threads},
        rows_(size.rows() * size.filters()),
        columns_(round_up(size.channels, std::max<std::int64_t>(Product::kMultiple, kLanes<T>))),
        functions_(round_up(size.functions, Outer::kWhole)),
        product_(size.channels, size.functions, products_parts(), parts_of(a.weight.dtype)),
        outer_(size.functions, size.channels, columns_, parts_of(a.basis.dtype), products_parts()) {
    runs_ = weight_runs(size);
  }

  std::int64_t scratch() const {
    Arena arena(nullptr);
    typename Product::Right(product_, arena);
    for (std::int64_t i = 0; i < runs_; ++i) Slot(*this, arena);
    return arena.used();
  }

  void run(void* scratch) const {
    if (!a_.grad_basis && !a_.grad_weight) return;
    const FlushSubnormals flush;
    Arena arena(scratch);
    typename Product::Right weight(product_, arena);
    if (a_.grad_basis) pack_weight<T>(a_.weight, product_, true, weight);
    std::vector<Slot> slots;
    for (std::int64_t i = 0; i < runs_; ++i) slots.emplace_back(*this, arena);
    with_arithmetic_storage<T>(a_.x.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      team_(runs_, [&](std::int64_t i) {
        [[maybe_unused]] const typename Product::Session session;
        Slot& slot = slots[std::size_t(i)];
        std::fill_n(slot.products, kBlock * columns_, T(0));  // beyond the channels they stay so
        if (a_.grad_weight) std::fill_n(slot.grad_weight, functions_ * columns_, T(0));
        const std::int64_t end = rows_ * (i + 1) / runs_;
        std::int64_t row = rows_ * i / runs_;
        std::int64_t group = row < end ? groups_.of(row / size_.filters()) : 0;
        for (; row < end; row += kBlock) block<S>(row, std::min(row + kBlock, end), group, slot, weight);
      });
    });
    if (!a_.grad_weight) return;
    std::vector<T*> sums;
    for (const Slot& slot : slots) sums.push_back(slot.grad_weight);
    add_runs(size_, a_.grad_weight, team_, sums, columns_);
  }

 private:
  // Of a product of two bfloat16 two parts are all of it; of a sum of them there are three.
  int products_parts() const {
    const bool alone = size_.filters() == size_.orientations && size_.reversals() == 0;
    return alone && a_.x.dtype == DType::bfloat16 ? 2 : 3;
  }
  static constexpr int kRows = Product::kRows;
  static constexpr std::int64_t kBlock = Outer::kBlock;  // rows at a time

  struct Slot {
    typename Product::LeftRoom left;
    typename Outer::Room outer;
    T *grad_weight, *products, *copies;
    Slot(const Gradients& b, Arena& arena) : left(b.product_, arena), outer(b.outer_, arena) {
      grad_weight = arena.take<T>(b.a_.grad_weight ? b.functions_ * b.columns_ : 0);
      products = arena.take<T>(kBlock * b.columns_);
      copies = arena.take<T>(b.a_.grad_weight ? b.basis_.room(kBlock) : 0);
    }
  };

  // Rows [begin, end), which are pairs and their filters; `group` is that of the first, and then of the next.
  template <class S>
  void block(std::int64_t begin, std::int64_t end, std::int64_t& group, Slot& slot,
             const typename Product::Right& weight) const {
    constexpr std::int64_t W = kLanes<T>;
    const std::int64_t filters = size_.filters(),
                       together = size_.orientations / std::max<std::int64_t>(filters, 1);
    const T* products[kBlock];
    const T* basis[kBlock];
    std::int64_t pairs[kBlock], orientations[kBlock];
    const int count = int(end - begin);
    for (int i = 0; i < count; ++i) {
      const std::int64_t pair = (begin + i) / filters, o = (begin + i) % filters;
      while (groups_.offset[group + 1] <= pair) ++group;
      pairs[i] = groups_.row[pair], orientations[i] = o;
      T* product = slot.products + i * columns_;
      products[i] = product;
      const std::int64_t sender = groups_.neighbour[pair];
      const bool both_ways = pairs[i] < size_.reversals();
      for (std::int64_t c = 0; c < size_.channels; c += W) {
        const std::int64_t left = size_.channels - c;
        const auto of = [&](const InputRows& a, std::int64_t point, std::int64_t p) {
          return features<S>(a, point, p).vector(c, left);
        };
        Vec<T> sum{};
        for (std::int64_t p = o; p < o + together; ++p) {
          sum += of(a_.x, sender, p) * of(a_.grad_out, group, p);
          if (!both_ways) continue;
          const std::int64_t opposite = size_.antipodes.of[p];
          sum += of(a_.x, group, opposite) * of(a_.grad_out, sender, opposite);
        }
        store(product + c, sum);
      }
      if (a_.grad_weight) basis[i] = basis_.get(pairs[i], o, i, slot.copies);
    }
    if (a_.grad_basis) basis_gradients<S>(count, products, pairs, orientations, slot, weight);
    if (a_.grad_weight) outer_.add(count, basis, products, slot.outer, slot.grad_weight);
  }

  template <class S>
  void basis_gradients(int count, const T* const* products, const std::int64_t* pairs,
                       const std::int64_t* orientations, const Slot& slot,
                       const typename Product::Right& weight) const {
    for (int first = 0; first < count; first += kRows) {
      const T* rows[kRows];
      S* out[kRows];
      for (int m = 0; m < kRows; ++m) {  // the last row again and again, if need be
        const int i = std::min(first + m, count - 1);
        rows[m] = products[i];
        out[m] = row_of<S>(a_.grad_basis, pairs[i], orientations[i]);
      }
      const auto left = product_.prepare(rows, slot.left);
      for_columns<T>(size_.functions, [&](auto vectors, std::int64_t k) {
        constexpr int V = vectors();
        Vec<T> sum[kRows][V];
        product_.template multiply<V>(left, weight, k, sum);
        if (k + V * kLanes<T> <= size_.functions) {
#pragma GCC unroll 16
          for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) store(out[m] + k + v * kLanes<T>, sum[m][v]);
        } else {
          T all[kRows][V * kLanes<T>];
#pragma GCC unroll 16
          for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) store(all[m] + v * kLanes<T>, sum[m][v]);
          for (int m = 0; m < kRows; ++m)
            for (std::int64_t i = 0; i < size_.functions - k; ++i) narrow(out[m] + k + i, all[m][i]);
        }
      });
    }
  }

  PairMessage size_;
  PairGradients a_;
  Groups groups_;
  BasisRows<T> basis_;
  Team team_;
  std::int64_t rows_, columns_, functions_, runs_ = 1;
  Product product_;
  Outer outer_;
};

// ---- the table -----------------------------------------------------------------------------------
// The products that a call is made of.
template <class Real>
struct InRegisters {
  using T = Real;
  using Product = RegisterProduct<T>;
  using Outer = RegisterOuter<T>;
};
#if defined(__AMX_BF16__)
struct OnMatrixUnit {
  using T = float;
  using Product = AmxProduct;
  using Outer = AmxOuter;
};
#endif
template <class F>
auto with_products([[maybe_unused]] const PairMessage& size, DType dtype, F f) {
#if defined(__AMX_BF16__)
  if (dtype == DType::bfloat16 && pays_on_matrix_unit(size.functions, size.channels))
    return f(OnMatrixUnit{});
#endif
  return with_arithmetic(dtype, [&](auto zero) { return f(InRegisters<decltype(zero)>{}); });
}

// Two calls, in the same scratch.
template <class First, class Second>
struct InTurn {
  First first;
  Second second;
  std::int64_t scratch() const { return std::max(first.scratch(), second.scratch()); }
  void run(void* scratch) const { first.run(scratch), second.run(scratch); }
};
template <class F>
auto with_aggregate(const PairMessage& size, const PairAggregate& a, int threads, cpu::Parallel parallel,
                    F f) {
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
  if (a.basis.dtype == DType::bfloat16 && a.weight.dtype == DType::bfloat16 &&
      pays_by_dot_products(size.functions))
    return f(Aggregate<float, DotProduct>(size, a, threads, parallel));
#endif
  return with_products(size, a.x.dtype, [&](auto products) {
    using P = decltype(products);
    // Sums are in out, so not those of half types.
    if (pays_both_ways(size) && bytes_of(a.x.dtype) == sizeof(typename P::T))
      return f(BothWays<typename P::T>(size, a, threads, parallel));
    return f(Aggregate<typename P::T, typename P::Product>(size, a, threads, parallel));
  });
}
template <class F>
auto with_gradients(const PairMessage& size, const PairGradients& a, int threads, cpu::Parallel parallel,
                    F f) {
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
  if (pays_by_moments(size, a)) {
    PairGradients of_basis = a;
    of_basis.grad_weight = {};
    using OfBasis = Gradients<float, RegisterProduct<float>, RegisterOuter<float>>;
    return f(InTurn<OfBasis, WeightByMoments>{OfBasis(size, of_basis, threads, parallel),
                                              WeightByMoments(size, a, threads, parallel)});
  }
#endif
  return with_products(size, a.x.dtype, [&](auto products) {
    using P = decltype(products);
    return f(Gradients<typename P::T, typename P::Product, typename P::Outer>(size, a, threads, parallel));
  });
}

std::int64_t aggregate_scratch(const PairMessage& size, const PairAggregate& a, int threads) {
  return with_aggregate(size, a, threads, nullptr, [](const auto& call) { return call.scratch(); });
}
std::int64_t gradients_scratch(const PairMessage& size, const PairGradients& a, int threads) {
  return with_gradients(size, a, threads, nullptr, [](const auto& call) { return call.scratch(); });
}
void aggregate(const PairMessage& size, const PairAggregate& a, void* scratch, int threads,
               cpu::Parallel parallel) {
  with_aggregate(size, a, threads, parallel, [&](const auto& call) { call.run(scratch); });
}
void gradients(const PairMessage& size, const PairGradients& a, void* scratch, int threads,
               cpu::Parallel parallel) {
  with_gradients(size, a, threads, parallel, [&](const auto& call) { call.run(scratch); });
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const PairMessageKernels pair_message;
const PairMessageKernels pair_message = {aggregate_scratch, gradients_scratch, aggregate, gradients};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
