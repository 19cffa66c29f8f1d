// pair_moments on the CPU: for each receiver and orientation the product of two small matrices, the basis of
// its pairs, transposed, and the features that these pairs send; and the gradients.
//
// With G the gradient of one such product, (functions, channels),
//
//   grad_basis  of the receiver's pairs: their features times G transposed. Made the other way round, G times
//               the features transposed, because a few features are transposed faster than G;
//   grad_x      their basis times G: a row for each pair, which is kept until all receivers are done and then
//               summed over the pairs of each sender. One orientation after another, or some together.
//
// Work is a receiver and an orientation; up to kBlock of a receiver's pairs at a time lie in the first cache.
// A sum's order is that of its group, whatever the number of threads.
// Bound by memory: 2 * degree operations for each entry of out, so written (and G read) once.
#include "pair_moments.h"

#include <algorithm>
#include <vector>

#include "arena.h"
#include "pairs.h"
#include "team.h"
#include "tile.h"

namespace {

constexpr std::int64_t kBlock = 32;  // a receiver's pairs at a time

template <class S, class Void>
auto* matrix_of(const Moments<Void>& a, std::int64_t receiver, std::int64_t orientation) {
  using Pointee = std::conditional_t<std::is_const_v<Void>, const S, S>;
  return static_cast<Pointee*>(a.data) + receiver * a.row + orientation * a.orientation;
}

// Runs of groups with about as many pairs each, times runs of orientations where there are few groups.
class Pieces {
 public:
  Pieces(const Groups& groups, std::int64_t orientations, int threads) : groups_(groups), all_(orientations) {
    runs_ = threads == 1 ? 1 : std::clamp<std::int64_t>(groups.count, 1, 8 * threads);
    cuts_ = threads == 1 || runs_ == 8 * threads ? 1 : std::min<std::int64_t>(orientations, 4 * threads);
  }
  std::int64_t count() const { return runs_ * cuts_; }
  // f(group, end, orientation, end) of piece i.
  template <class F>
  void visit(std::int64_t i, F f) const {
    const std::int64_t run = i / cuts_, cut = i % cuts_;
    f(groups_.first_of(run, runs_), groups_.first_of(run + 1, runs_), all_ * cut / cuts_,
      all_ * (cut + 1) / cuts_);
  }

 private:
  Groups groups_;
  std::int64_t all_, runs_, cuts_;
};

// ---- the moments -----------------------------------------------------------------------------------
template <class T>
class Sums {
 public:
  Sums(const PairMessage& size, const PairMoments& a, int threads, cpu::Parallel parallel)
      : size_(size),
        a_(a),
        groups_(a.pairs, size.receivers),
        basis_(a.basis, size.functions, kShortTile),
        team_{parallel, threads},
        threads_(threads),
        columns_(round_up(size.channels, kLanes<T>)),
        functions_(round_up(size.functions, kShortTile)) {}

  std::int64_t scratch() const {
    Arena arena(nullptr);
    for (std::int64_t i = 0; i < pieces().count(); ++i) Slot(*this, arena);
    return arena.used();
  }

  void run(void* scratch) const {
    const FlushSubnormals flush;
    Arena arena(scratch);
    std::vector<Slot> slots;
    const Pieces work = pieces();
    for (std::int64_t i = 0; i < work.count(); ++i) slots.emplace_back(*this, arena);
    with_arithmetic_storage<T>(a_.x.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      team_(work.count(), [&](std::int64_t i) {
        work.visit(i, [&](std::int64_t g, std::int64_t end, std::int64_t o_begin, std::int64_t o_end) {
          for (; g < end; ++g)
            for (std::int64_t o = o_begin; o < o_end; ++o) matrix<S>(g, o, slots[std::size_t(i)]);
        });
      });
    });
  }

 private:
  struct Slot {
    T *features, *copies, *sums;  // of a block of pairs; the sums of a receiver with more than one block
    Slot(const Sums& f, Arena& arena) {
      features = arena.take<T>(kBlock * f.columns_);
      copies = arena.take<T>(f.basis_.room(kBlock));
      sums = arena.take<T>(f.functions_ * f.columns_);
    }
  };

  Pieces pieces() const { return {groups_, size_.orientations, threads_}; }

  template <class S>
  void matrix(std::int64_t g, std::int64_t o, Slot& slot) const {
    const std::int64_t begin = groups_.offset[g], end = groups_.offset[g + 1];
    if (begin == end)
      for (std::int64_t k = 0; k < size_.functions; ++k)
        std::fill_n(matrix_of<S>(a_.out, g, o) + k * a_.out.function, size_.channels, S{});
    for (std::int64_t i = begin; i < end; i += kBlock) {
      const int count = int(std::min(end - i, kBlock));
      const T* basis[kBlock];
      for (int m = 0; m < count; ++m) {
        basis[m] = basis_.get(groups_.row[i + m], o, m, slot.copies);
        const auto x = ::features<S>(a_.x, groups_.neighbour[i + m], o);
        for (std::int64_t c = 0; c < size_.channels; c += kLanes<T>)
          store(slot.features + m * columns_ + c, x.vector(c, size_.channels - c));
      }
      const Block block{basis, count, i == begin, i + count == end};
      S* out = matrix_of<S>(a_.out, g, o);
      for_rows(functions_, [&](auto rows, std::int64_t k) { products<S, rows()>(block, k, slot, out); });
    }
  }

  struct Block {
    const T* const* basis;
    int count;
    bool first, last;  // of its receiver's
  };

  // Rows k … k + M - 1 of what a block brings: stored, or added to what there is.
  template <class S, int M>
  void products(const Block& block, std::int64_t k, Slot& slot, S* out) const {
    constexpr std::int64_t W = kLanes<T>;
    for_columns<T>(size_.channels, [&](auto vectors, std::int64_t c) {
      constexpr int V = vectors();
      Vec<T> sum[M][V];
      multiply<T>(block.count, ColumnsOfLeft<T>{block.basis, k}, slot.features + c, columns_, sum);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
          T* total = slot.sums + (k + m) * columns_ + c + v * W;
          if (!block.first) sum[m][v] += load(total);
          if (!block.last) store(total, sum[m][v]);
          else if (k + m < size_.functions)
            put<S, T>(out + (k + m) * a_.out.function + c + v * W, sum[m][v], size_.channels - c - v * W);
        }
    });
  }

  PairMessage size_;
  PairMoments a_;
  Groups groups_;
  BasisRows<T> basis_;
  Team team_;
  int threads_;
  std::int64_t columns_, functions_;
};

// ---- the gradients ---------------------------------------------------------------------------------

// Matrices of grad_out as rows of T that are readable up to full vectors: where they lie, or copied.
template <class T>
class Matrices {
 public:
  Matrices(const PairMessage& size, const Moments<const void>& a)
      : a_(a),
        functions_(size.functions),
        channels_(size.channels),
        columns_(round_up(size.channels, kLanes<T>)) {
    with_storage(a.dtype, [&](auto* storage) {
      in_place_ = std::is_same_v<decltype(storage), T*> && a.channel == 1 && channels_ % kLanes<T> == 0;
    });
  }
  std::int64_t room() const { return in_place_ ? 0 : functions_ * columns_; }
  std::int64_t pitch() const { return in_place_ ? a_.function : columns_; }
  const T* get(std::int64_t receiver, std::int64_t orientation, T* copy) const {
    if (in_place_) return matrix_of<T>(a_, receiver, orientation);
    with_arithmetic_storage<T>(a_.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      for (std::int64_t k = 0; k < functions_; ++k) {
        const StridedRow<S> row{matrix_of<S>(a_, receiver, orientation) + k * a_.function, a_.channel};
        for (std::int64_t c = 0; c < channels_; c += kLanes<T>)
          store(copy + k * columns_ + c, row.vector(c, channels_ - c));
      }
    });
    return copy;
  }

 private:
  Moments<const void> a_;
  std::int64_t functions_, channels_, columns_;
  bool in_place_ = false;
};

template <class T>
class Gradients {
 public:
  Gradients(const PairMessage& size, const PairMomentsGradients& a, int threads, cpu::Parallel parallel)
      : size_(size),
        a_(a),
        receivers_(a.by_receiver, size.receivers),
        senders_(a.by_sender, size.senders),
        basis_(a.basis, size.functions, 1),
        matrices_(size, a.grad_out),
        team_{parallel, threads},
        threads_(threads),
        columns_(round_up(size.channels, kLanes<T>)),
        functions_(std::max(round_up(size.functions, kTileRows), round_up(size.functions, kLanes<T>))) {
    together_ =
        std::clamp<std::int64_t>((std::int64_t(1) << 20) / (size.pairs * columns_), 1, size.orientations);
  }

  std::int64_t scratch() const {
    Arena arena(nullptr);
    messages(arena);
    for (std::int64_t i = 0; i < slots(); ++i) Slot(*this, arena);
    return arena.used();
  }

  void run(void* scratch) const {
    const FlushSubnormals flush;
    Arena arena(scratch);
    T* const messages = this->messages(arena);
    std::vector<Slot> slots;
    for (std::int64_t i = 0; i < this->slots(); ++i) slots.emplace_back(*this, arena);
    with_arithmetic_storage<T>(a_.x.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      if (a_.grad_basis) basis_gradient<S>(slots);
      if (a_.grad_x)
        for (std::int64_t o = 0; o < size_.orientations; o += together_)
          x_gradient<S>(o, std::min(o + together_, size_.orientations), slots, messages);
    });
  }

 private:
  struct Slot {
    T *matrix, *copies, *features, *products;
    Slot(const Gradients& b, Arena& arena) {
      matrix = arena.take<T>(b.matrices_.room());
      copies = arena.take<T>(b.a_.grad_x ? b.basis_.room(kTileRows) : 0);
      features = arena.take<T>(b.a_.grad_basis ? kBlock * b.columns_ : 0);
      products = arena.take<T>(b.a_.grad_basis ? kBlock * b.functions_ : 0);
    }
  };
  T* messages(Arena& arena) const {
    return arena.take<T>(a_.grad_x ? together_ * size_.pairs * columns_ : 0);
  }

  // Of the gradient of a basis that orientations share, they are summed in one piece.
  Pieces basis_pieces() const { return {receivers_, size_.shared ? 1 : size_.orientations, threads_}; }
  Pieces message_pieces(std::int64_t orientations) const { return {receivers_, orientations, threads_}; }
  std::int64_t slots() const { return std::max(basis_pieces().count(), message_pieces(together_).count()); }

  // ---- of the basis
  template <class S>
  void basis_gradient(std::vector<Slot>& slots) const {
    const Pieces work = basis_pieces();
    const std::int64_t together = size_.shared ? size_.orientations : 1;
    team_(work.count(), [&](std::int64_t i) {
      work.visit(i, [&](std::int64_t g, std::int64_t g_end, std::int64_t o_begin, std::int64_t o_end) {
        for (; g < g_end; ++g)
          for (std::int64_t o = o_begin; o < o_end; ++o) {
            const std::int64_t end = receivers_.offset[g + 1];
            for (std::int64_t first = receivers_.offset[g]; first < end; first += kBlock) {
              const std::int64_t count = std::min(end - first, kBlock);
              for (std::int64_t p = o; p < o + together; ++p)
                add_products<S>(g, p, first, count, p == o, slots[std::size_t(i)]);
              store_rows<S>(o, first, count, slots[std::size_t(i)]);
            }
          }
      });
    });
  }

  // products[k][i] = or += sum over c of G[k][c] x[sender of pair i][c]
  template <class S>
  void add_products(std::int64_t g, std::int64_t o, std::int64_t first, std::int64_t count, bool fresh,
                    Slot& slot) const {
    constexpr std::int64_t W = kLanes<T>;
    const T* matrix = matrices_.get(g, o, slot.matrix);
    for_columns<T>(count, [&](auto vectors, std::int64_t i) {
      constexpr int V = vectors();
      T* features = slot.features + i * size_.channels;  // (channels, V * W), in blocks one after another
      for (std::int64_t c = 0; c < size_.channels; c += W)
        for (int v = 0; v < V; ++v) {
          Vec<T> lines[W];
          for (int j = 0; j < W; ++j) {
            const std::int64_t pair = first + std::min(i + v * W + j, count - 1);
            lines[j] = ::features<S>(a_.x, receivers_.neighbour[pair], o).vector(c, size_.channels - c);
          }
          transpose<T>(lines);
          for (int j = 0; j < std::min<std::int64_t>(W, size_.channels - c); ++j)
            store(features + ((c + j) * V + v) * W, lines[j]);
        }
      for (std::int64_t k = 0; k < size_.functions; k += kTileRows) {
        RowsOfLeft<T, kTileRows> left;
        for (int m = 0; m < kTileRows; ++m)  // the last row again and again, if need be
          left.row[m] = matrix + std::min(k + m, size_.functions - 1) * matrices_.pitch();
        Vec<T> sum[kTileRows][V];
        multiply<T>(size_.channels, left, features, V * W, sum);
#pragma GCC unroll 16
        for (int m = 0; m < kTileRows; ++m)
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) {
            T* product = slot.products + (k + m) * kBlock + i + v * W;
            store(product, fresh ? sum[m][v] : load(product) + sum[m][v]);
          }
      }
    });
  }

  template <class S>
  void store_rows(std::int64_t o, std::int64_t first, std::int64_t count, const Slot& slot) const {
    constexpr std::int64_t W = kLanes<T>;
    for (std::int64_t k = 0; k < size_.functions; k += W)
      for (std::int64_t i = 0; i < count; i += W) {
        Vec<T> lines[W];
        for (int j = 0; j < W; ++j) lines[j] = load(slot.products + (k + j) * kBlock + i);
        transpose<T>(lines);
        for (int j = 0; j < std::min(W, count - i); ++j)
          put<S, T>(row_of<S>(a_.grad_basis, receivers_.row[first + i + j], o) + k, lines[j],
                    size_.functions - k);
      }
  }

  // ---- of x
  template <class S>
  void x_gradient(std::int64_t first, std::int64_t end, std::vector<Slot>& slots, T* messages) const {
    const Pieces work = message_pieces(end - first);
    team_(work.count(), [&](std::int64_t i) {
      work.visit(i, [&](std::int64_t g, std::int64_t g_end, std::int64_t o, std::int64_t o_end) {
        for (; g < g_end; ++g)
          for (std::int64_t p = o; p < o_end; ++p)
            send<S>(g, first + p, messages + p * size_.pairs * columns_, slots[std::size_t(i)]);
      });
    });
    team_.ranges(size_.senders * (end - first), [&](std::int64_t begin, std::int64_t stop) {
      for (std::int64_t i = begin; i < stop; ++i) {
        const std::int64_t s = i / (end - first), p = i % (end - first);
        S* out = row_of<S>(a_.grad_x, s, first + p);
        for (std::int64_t c = 0; c < size_.channels; c += kLanes<T>) {
          Vec<T> sum{};
          for (std::int64_t pair = senders_.offset[s]; pair < senders_.offset[s + 1]; ++pair)
            sum += load(messages + (p * size_.pairs + senders_.row[pair]) * columns_ + c);
          put<S, T>(out + c, sum, size_.channels - c);
        }
      }
    });
  }

  // The basis of a receiver's pairs times G, a row for each in its own place.
  template <class S>
  void send(std::int64_t g, std::int64_t o, T* messages, Slot& slot) const {
    const std::int64_t end = receivers_.offset[g + 1];
    const T* matrix = matrices_.get(g, o, slot.matrix);
    for (std::int64_t i = receivers_.offset[g]; i < end; i += kTileRows) {
      RowsOfLeft<T, kTileRows> left;
      T* out[kTileRows];
      for (int m = 0; m < kTileRows; ++m) {  // the last row again and again, if need be
        const std::int64_t row = receivers_.row[std::min(i + m, end - 1)];
        left.row[m] = basis_.get(row, o, m, slot.copies);
        out[m] = messages + row * columns_;
      }
      for_columns<T>(size_.channels, [&](auto vectors, std::int64_t c) {
        constexpr int V = vectors();
        Vec<T> sum[kTileRows][V];
        multiply<T>(size_.functions, left, matrix + c, matrices_.pitch(), sum);
#pragma GCC unroll 16
        for (int m = 0; m < kTileRows; ++m)
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) store(out[m] + c + v * kLanes<T>, sum[m][v]);
      });
    }
  }

  PairMessage size_;
  PairMomentsGradients a_;
  Groups receivers_, senders_;
  BasisRows<T> basis_;
  Matrices<T> matrices_;
  Team team_;
  int threads_;
  std::int64_t columns_, functions_, together_;
};

// ---- the table -----------------------------------------------------------------------------------
std::int64_t moments_scratch(const PairMessage& size, const PairMoments& a, int threads) {
  return with_arithmetic(a.x.dtype,
                         [&](auto t) { return Sums<decltype(t)>(size, a, threads, nullptr).scratch(); });
}
std::int64_t gradients_scratch(const PairMessage& size, const PairMomentsGradients& a, int threads) {
  return with_arithmetic(a.x.dtype,
                         [&](auto t) { return Gradients<decltype(t)>(size, a, threads, nullptr).scratch(); });
}
void moments(const PairMessage& size, const PairMoments& a, void* scratch, int threads,
             cpu::Parallel parallel) {
  with_arithmetic(a.x.dtype, [&](auto t) { Sums<decltype(t)>(size, a, threads, parallel).run(scratch); });
}
void gradients(const PairMessage& size, const PairMomentsGradients& a, void* scratch, int threads,
               cpu::Parallel parallel) {
  with_arithmetic(a.x.dtype,
                  [&](auto t) { Gradients<decltype(t)>(size, a, threads, parallel).run(scratch); });
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const PairMomentsKernels pair_moments;
const PairMomentsKernels pair_moments = {moments_scratch, gradients_scratch, moments, gradients};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
