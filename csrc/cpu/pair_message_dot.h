// The gradient of the weight of pair_message by dot products of bfloat16:
//
//   grad_weight[k, c] = sum over receivers r and orientations o of grad_out[r, o, c] m[k, c],
//   m[k, c] = sum over pairs e with receiver r of basis[e, o, k] x[s(e), o, c]
//
// m is a sum of products of two bfloat16, which dot products add two pairs at a time, exact but for float32's
// rounding. It is made a tile at a time, in registers. Of d pairs d / 2 + 1 instructions are left of d, but
// the tile of grad_weight is read and written for every receiver and not for every block of pairs.
#pragma once
#include <algorithm>
#include <vector>

#include "arena.h"
#include "pairs.h"
#include "row_product_dot.h"
#include "team.h"
#include "weight_runs.h"

namespace {

// Where there are enough pairs to a receiver, and enough functions: the gradient of the basis is then made
// apart, and the rows x * grad_out, which else serve both, for it alone.
inline bool pays_by_moments(const PairMessage& size, const PairGradients& a) {
  const bool alone = size.filters() == size.orientations && size.reversals() == 0;
  return alone && a.x.dtype == DType::bfloat16 && a.grad_weight && size.pairs >= 8 * size.receivers &&
         size.functions >= 64;
}

class WeightByMoments {
 public:
  WeightByMoments(const PairMessage& size, const PairGradients& a, int threads, cpu::Parallel parallel)
      : size_(size),
        a_(a),
        groups_(a.pairs, size.receivers),
        team_{parallel, threads},
        runs_(weight_runs(size)),
        functions_(round_up(size.functions, kLanes<float>)),
        columns_(round_up(size.channels, kLanes<float>)) {}

  std::int64_t scratch() const {
    Arena arena(nullptr);
    for (std::int64_t i = 0; i < runs_; ++i) Slot(*this, arena);
    return arena.used();
  }

  void run(void* scratch) const {
    const FlushSubnormals flush;
    Arena arena(scratch);
    std::vector<Slot> slots;
    std::vector<float*> sums;
    for (std::int64_t i = 0; i < runs_; ++i) sums.push_back(slots.emplace_back(*this, arena).grad_weight);
    team_(runs_, [&](std::int64_t i) {
      Slot& slot = slots[std::size_t(i)];
      std::fill_n(slot.grad_weight, functions_ * columns_, 0.f);
      pairs(size_.pairs * i / runs_, size_.pairs * (i + 1) / runs_, slot);
    });
    add_runs(size_, a_.grad_weight, team_, sums, columns_);
  }

 private:
  static constexpr std::int64_t kWords =
      32;  // two pairs each: what is packed of them stays in the first cache
  struct Slot {
    float *grad_weight, *grad_out;    // a row of grad_out for each receiver of a block
    std::uint32_t *basis, *features;  // a row for each word
    Slot(const WeightByMoments& b, Arena& arena) {
      grad_weight = arena.take<float>(b.functions_ * b.columns_);
      grad_out = arena.take<float>(kWords * b.columns_);
      basis = arena.take<std::uint32_t>(kWords * b.functions_);
      features = arena.take<std::uint32_t>(kWords * b.columns_);
    }
  };
  // What is packed: word i belongs to the receiver and orientation whose words end behind it.
  struct Block {
    std::int64_t words = 0, moments = 0, end[kWords];
  };

  // Some pairs, as they are grouped, at every orientation.
  void pairs(std::int64_t begin, std::int64_t end, Slot& slot) const {
    Block block;
    for (std::int64_t group = begin < end ? groups_.of(begin) : 0; begin < end; ++group) {
      while (begin < std::min(end, groups_.offset[group + 1])) {
        const std::int64_t some = std::min({end, groups_.offset[group + 1], begin + 2 * kWords});
        for (std::int64_t o = 0; o < size_.orientations; ++o) {
          if (block.words + (some - begin + 1) / 2 > kWords) add(block, slot);
          pack(group, begin, some, o, block, slot);
        }
        begin = some;
      }
    }
    add(block, slot);
  }

  void pack(std::int64_t group, std::int64_t begin, std::int64_t end, std::int64_t o, Block& block,
            Slot& slot) const {
    const auto out = features<bfloat16>(a_.grad_out, group, o);
    for (std::int64_t c = 0; c < size_.channels; c += kLanes<float>)
      store(slot.grad_out + block.moments * columns_ + c, out.vector(c, size_.channels - c));
    for (; begin < end; begin += 2, ++block.words) {
      const auto row = [&](const InputRows& a, const Index& index, int i) {
        return features<bfloat16>(a, index[begin + i], o);
      };
      const int last = begin + 1 < end;  // 0: the second row is one of zeros
      pair_up(row(a_.basis, groups_.row, 0), row(a_.basis, groups_.row, last), last, size_.functions,
              slot.basis + block.words * functions_);
      pair_up(row(a_.x, groups_.neighbour, 0), row(a_.x, groups_.neighbour, last), last, size_.channels,
              slot.features + block.words * columns_);
    }
    block.end[block.moments++] = block.words;
  }
  // Of two rows, or one and zeros, each two entries in a word.
  static void pair_up(const StridedRow<bfloat16>& first, const StridedRow<bfloat16>& second, bool two,
                      std::int64_t count, std::uint32_t* words) {
    for (std::int64_t i = 0; i < count; i += kLanes<float>) {
      const auto a = (WordBits)first.vector(i, count - i),
                 b = two ? (WordBits)second.vector(i, count - i) : WordBits{};
      const WordBits both = (a >> 16) | b;
      std::memcpy(words + i, &both, sizeof both);
    }
  }

  void add(Block& block, const Slot& slot) const {
    for_columns<float>(size_.channels, [&](auto vectors, std::int64_t c) {
      for_rows(round_up(size_.functions, kShortTile),
               [&](auto rows, std::int64_t k) { add_tile<rows(), vectors()>(block, slot, k, c); });
    });
    block = Block{};
  }
  template <int M, int V>
  void add_tile(const Block& block, const Slot& slot, std::int64_t k, std::int64_t c) const {
    // (Copies, because a store may change whatever a pointer leads to.)
    const std::int64_t functions = functions_, columns = columns_, moments = block.moments;
    const std::uint32_t *basis = slot.basis + k, *features = slot.features + c;
    const float* grad_out = slot.grad_out + c;
    float* const sum = slot.grad_weight + k * columns + c;
    for (std::int64_t i = 0, word = 0; i < moments; ++i, grad_out += columns) {
      const std::int64_t words = block.end[i] - word;
      Vec<float> m[M][V], factor[V];
      multiply<float>(
          words, [=](int row, std::int64_t w) { return basis[w * functions + row]; }, features, columns, m,
          AddDotProduct{});
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) factor[v] = load(grad_out + v * kLanes<float>);
#pragma GCC unroll 16
      for (int row = 0; row < M; ++row)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
          float* total = sum + row * columns + v * kLanes<float>;
          store(total, load(total) + m[row][v] * factor[v]);
        }
      word += words, basis += words * functions, features += words * columns;
    }
  }

  PairMessage size_;
  PairGradients a_;
  Groups groups_;
  Team team_;
  std::int64_t runs_, functions_, columns_;
};

}  // namespace
