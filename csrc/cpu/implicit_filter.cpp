// implicit_filter on a CPU.
//
//   h = sin(W h + b), layer after layer, then filter[d, i] = exp(-t_i rates[d]) (output_weight h_i)[d]
//
// A tile of kPositions positions goes through all layers while it is in the caches: rows times a packed
// matrix, in registers, then sines. Backward makes a tile anew, sines and cosines, goes back through the
// layers, and adds the products of both to the weights' sums. These are summed in runs of tiles that depend
// on the sizes alone and added in their order, so the bits do not depend on the number of threads.
//
// What bounds it is arithmetic: with E features, widths of H and D outputs, 2 (E H + M H H + H D) operations
// a position forward, not quite four times as many with backward.
#include "implicit_filter.h"

#include <algorithm>
#include <vector>

#include "arena.h"
#include "row_product.h"
#include "sine.h"
#include "storage.h"
#include "team.h"
#include "tile.h"

namespace {

using namespace equiconv;

constexpr std::int64_t kPositions = 96;  // of a tile: whole tiles of registers, and whole vectors
static_assert(kPositions % kTileRows == 0 && kPositions % kLanes<float> == 0);

// ---- weights -----------------------------------------------------------------------------------------

// An entry of a weight of (layer, row, column), which are batch, channel and position of an array.
template <class S>
auto entry(const Input& a, std::int64_t layer, std::int64_t row, std::int64_t column) {
  return widen(static_cast<const S*>(a.data)[layer * a.batch + row * a.channel + column * a.position]);
}

// The layers of sines, and the one behind them; widths in whole vectors.
template <class T>
struct Sizes {
  std::int64_t layers, features, order, channels;
  explicit Sizes(const ImplicitFilter& n)
      : layers(1 + n.inner),
        features(whole(n.features)),
        order(whole(n.order)),
        channels(whole(n.channels)) {}
  static std::int64_t whole(std::int64_t width) { return round_up(width, kLanes<T>); }
};

template <class S>
class Weights {
 public:
  using T = typename Arithmetic<S>::type;

  Weights(const ImplicitFilter& n, bool backward, Arena& arena) : n_(n), sizes_(n), backward_(backward) {
    for (std::int64_t j = 0; j < sizes_.layers; ++j) {
      matrix_.push_back(arena.take<T>(packed_size<T>(depth(j), n.order)));
      bias_.push_back(arena.take<T>(sizes_.order));
      back_.push_back(arena.take<T>(backward && j ? packed_size<T>(n.order, n.order) : 0));
    }
    output_ = arena.take<T>(packed_size<T>(n.order, n.channels));
    output_back_ = arena.take<T>(backward ? packed_size<T>(n.channels, n.order) : 0);
    rates_ = arena.take<T>(sizes_.channels);
  }

  template <class Arguments>
  void fill(const Arguments& a, const Team& team) {
    const std::int64_t H = n_.order, D = n_.channels;
    team(sizes_.layers + 1, [&](std::int64_t j) {
      if (j == sizes_.layers) {
        pack<T>(H, D, [&](auto k, auto c) { return entry<S>(a.output_weight, 0, c, k); }, output_);
        if (backward_)
          pack<T>(D, H, [&](auto k, auto c) { return entry<S>(a.output_weight, 0, k, c); }, output_back_);
        for (std::int64_t c = 0; c < sizes_.channels; ++c)
          rates_[c] = c < D ? entry<S>(a.rates, 0, c, 0) : T(0);
        return;
      }
      const auto at = std::size_t(j);
      const Input &weight = j ? a.inner_weight : a.first_weight, &bias = j ? a.inner_bias : a.first_bias;
      const std::int64_t layer = std::max<std::int64_t>(j - 1, 0);
      pack<T>(depth(j), H, [&](auto k, auto c) { return entry<S>(weight, layer, c, k); }, matrix_[at]);
      if (backward_ && j)
        pack<T>(H, H, [&](auto k, auto c) { return entry<S>(weight, layer, k, c); }, back_[at]);
      for (std::int64_t c = 0; c < sizes_.order; ++c)
        bias_[at][c] = c < H ? entry<S>(bias, layer, c, 0) : T(0);
    });
  }

  std::int64_t depth(std::int64_t layer) const { return layer ? n_.order : n_.features; }
  const T* matrix(std::int64_t layer) const { return matrix_[std::size_t(layer)]; }
  const T* back(std::int64_t layer) const { return back_[std::size_t(layer)]; }
  const T* bias(std::int64_t layer) const { return bias_[std::size_t(layer)]; }
  const T* output() const { return output_; }
  const T* output_back() const { return output_back_; }
  const T* rates() const { return rates_; }

 private:
  const ImplicitFilter& n_;
  Sizes<T> sizes_;
  bool backward_;
  std::vector<T*> matrix_, back_, bias_;
  T *output_, *output_back_, *rates_;
};

// out = left times a packed matrix, plus a bias where there is one; rows of pitches in whole vectors.
template <class T>
void product(std::int64_t count, const T* left, std::int64_t left_pitch, std::int64_t depth, const T* right,
             std::int64_t columns, T* out, std::int64_t pitch, const T* bias) {
  constexpr int kAhead = 8;  // the packed matrix passes through the first cache
  for_columns<T>(columns, [&](auto vectors, std::int64_t c) {
    constexpr int V = vectors();
    for (std::int64_t i = 0; i < count; i += kTileRows) {
      RowsOfLeft<T, kTileRows> rows;
      for (int m = 0; m < kTileRows; ++m) rows.row[m] = left + (i + m) * left_pitch;
      Vec<T> sum[kTileRows][V];
      multiply<T, kAhead>(depth, rows, right + c * depth, V * kLanes<T>, sum);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        const std::int64_t at = c + v * kLanes<T>;
        const Vec<T> more = bias ? load(bias + at) : Vec<T>{};
#pragma GCC unroll 16
        for (int m = 0; m < kTileRows; ++m) store(out + (i + m) * pitch + at, sum[m][v] + more);
      }
    }
  });
}

// ---- a tile --------------------------------------------------------------------------------------------

template <class S>
struct Tile {
  using T = typename Arithmetic<S>::type;

  // rows: of positions. sine, cosine: of every layer, without backward in one place and in none.
  T *rows, *angles, *taps, *times;
  std::vector<T*> sine, cosine;

  Tile(const ImplicitFilter& n, bool backward, Arena& arena) {
    const Sizes<T> sizes(n);
    const auto take = [&](std::int64_t width) { return arena.take<T>(kPositions * width); };
    rows = take(sizes.features), angles = take(sizes.order), taps = take(sizes.channels);
    times = arena.take<T>(kPositions);
    for (std::int64_t j = 0; j < sizes.layers; ++j) {
      sine.push_back(backward || j == 0 ? take(sizes.order) : sine[0]);
      cosine.push_back(backward ? take(sizes.order) : nullptr);
    }
  }

  // The sines of every layer at `count` positions from `first` on.
  void forward(const ImplicitFilter& n, const Input& features, const Weights<S>& weights, std::int64_t first,
               std::int64_t count) {
    const Sizes<T> sizes(n);
    const std::int64_t padded = round_up(count, kTileRows);
    for (std::int64_t i = 0; i < padded; ++i) {
      const S* row =
          static_cast<const S*>(features.data) + (first + std::min(i, count - 1)) * features.position;
      for (std::int64_t k = 0; k < sizes.features; k += kLanes<T>)
        store(rows + i * sizes.features + k, StridedRow<S>{row, features.channel}.vector(k, n.features - k));
      times[i] = widen(row[0]);
    }
    for (std::int64_t j = 0; j < sizes.layers; ++j) {
      const auto at = std::size_t(j);
      product(padded, j ? sine[at - 1] : rows, j ? sizes.order : sizes.features, weights.depth(j),
              weights.matrix(j), n.order, angles, sizes.order, weights.bias(j));
      sines(angles, padded * sizes.order, sine[at], cosine[at]);
    }
  }

  EQUICONV_INLINE Vec<T> window(const Weights<S>& weights, std::int64_t i, std::int64_t c) const {
    return exponential(-times[i] * load(weights.rates() + c));
  }
};

// ---- forward -------------------------------------------------------------------------------------------

template <class S>
class Forward {
 public:
  using T = typename Arithmetic<S>::type;

  Forward(const ImplicitFilter& n, const ImplicitFilterForward& a, Team team)
      : n_(n), a_(a), team_(team), tiles_((n.length + kPositions - 1) / kPositions) {}

  std::int64_t run(void* scratch) {
    Arena arena(scratch);
    Weights<S> weights(n_, false, arena);
    const std::int64_t workers = std::min<std::int64_t>(team_.threads, tiles_);
    std::vector<Tile<S>> tiles;
    for (std::int64_t i = 0; i < workers; ++i) tiles.emplace_back(n_, false, arena);
    if (!scratch) return arena.used();

    weights.fill(a_, team_);
    team_(workers, [&](std::int64_t worker) {
      Tile<S>& tile = tiles[std::size_t(worker)];
      for (std::int64_t i = tiles_ * worker / workers; i < tiles_ * (worker + 1) / workers; ++i) {
        const std::int64_t first = i * kPositions, count = std::min(kPositions, n_.length - first);
        tile.forward(n_, a_.features, weights, first, count);
        write(tile, weights, first, count);
      }
    });
    return arena.used();
  }

 private:
  void write(const Tile<S>& tile, const Weights<S>& weights, std::int64_t first, std::int64_t count) const {
    constexpr std::int64_t W = kLanes<T>;
    const Sizes<T> sizes(n_);
    product(round_up(count, kTileRows), tile.sine.back(), sizes.order, n_.order, weights.output(),
            n_.channels, tile.taps, sizes.channels, static_cast<const T*>(nullptr));
    S* out = static_cast<S*>(a_.filter.data) + first * a_.filter.position;
    for (std::int64_t c = 0; c < n_.channels; c += W)
      for (std::int64_t i = 0; i < count; i += W) {
        Vec<T> lines[W];
        for (std::int64_t m = 0; m < W; ++m) {
          const std::int64_t at = std::min(i + m, count - 1);
          lines[m] = load(tile.taps + at * sizes.channels + c) * tile.window(weights, at, c);
        }
        transpose<T>(lines);
        for (std::int64_t m = 0; m < std::min(W, n_.channels - c); ++m)
          put<S, T>(out + (c + m) * a_.filter.channel + i, lines[m], count - i);
      }
  }

  const ImplicitFilter& n_;
  const ImplicitFilterForward& a_;
  Team team_;
  std::int64_t tiles_;
};

// ---- backward ------------------------------------------------------------------------------------------

template <class S>
class Backward {
 public:
  using T = typename Arithmetic<S>::type;

  Backward(const ImplicitFilter& n, const ImplicitFilterBackward& a, Team team)
      : n_(n), a_(a), team_(team), sizes_(n), tiles_((n.length + kPositions - 1) / kPositions) {}

  std::int64_t run(void* scratch) {
    Arena arena(scratch);
    Weights<S> weights(n_, true, arena);
    const std::int64_t runs = std::clamp<std::int64_t>(tiles_ / kTilesOfRun, 1, kMostRuns);
    const std::int64_t workers = std::min<std::int64_t>(team_.threads, runs);
    std::vector<Slot> slots;
    for (std::int64_t i = 0; i < workers; ++i) slots.emplace_back(n_, arena);
    std::vector<Sums> sums;
    for (std::int64_t i = 0; i < runs; ++i) sums.emplace_back(*this, arena);
    if (!scratch) return arena.used();

    weights.fill(a_, team_);
    team_(workers, [&](std::int64_t worker) {
      for (std::int64_t r = runs * worker / workers; r < runs * (worker + 1) / workers; ++r) {
        std::fill_n(sums[std::size_t(r)].all, sums[0].count, T(0));
        for (std::int64_t i = tiles_ * r / runs; i < tiles_ * (r + 1) / runs; ++i)
          add(slots[std::size_t(worker)], weights, i * kPositions, sums[std::size_t(r)]);
      }
    });
    team_.ranges(sums[0].count / kLanes<T>, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin * kLanes<T>; i < end * kLanes<T>; i += kLanes<T>) {
        Vec<T> total = load(sums[0].all + i);
        for (std::int64_t r = 1; r < runs; ++r) total += load(sums[std::size_t(r)].all + i);
        store(sums[0].all + i, total);
      }
    });
    write(sums[0]);
    return arena.used();
  }

 private:
  static constexpr std::int64_t kTilesOfRun = 4, kMostRuns = 32;

  // What is summed, row by row in whole vectors.
  struct Sums {
    T* all;
    std::int64_t count;
    std::vector<T*> weight, bias;
    T* output;
    Sums(const Backward& b, Arena& arena) {
      all = arena.take<T>(0);
      const auto take = [&](std::int64_t size) { return arena.take<T>(size); };
      const auto rows = [](std::int64_t height) { return round_up(height, RegisterOuter<T>::kWhole); };
      for (std::int64_t j = 0; j < b.sizes_.layers; ++j) {
        weight.push_back(take(rows(b.n_.order) * (j ? b.sizes_.order : b.sizes_.features)));
        bias.push_back(take(b.sizes_.order));
      }
      output = take(rows(b.n_.channels) * b.sizes_.order);
      count = arena.take<T>(0) - all;
    }
  };

  // A thread's tile, and what reaches the layer that it is at.
  struct Slot {
    Tile<S> tile;
    T *reached, *below;
    Slot(const ImplicitFilter& n, Arena& arena) : tile(n, true, arena) {
      const Sizes<T> sizes(n);
      reached = arena.take<T>(kPositions * sizes.order);
      below = arena.take<T>(kPositions * sizes.order);
    }
  };

  void add(Slot& slot, const Weights<S>& weights, std::int64_t first, const Sums& sums) const {
    const std::int64_t count = std::min(kPositions, n_.length - first), padded = round_up(count, kTileRows);
    Tile<S>& tile = slot.tile;
    tile.forward(n_, a_.features, weights, first, count);
    read(tile, weights, first, count);

    const std::size_t last = tile.sine.size() - 1;
    outer(count, tile.taps, sizes_.channels, n_.channels, tile.sine[last], sizes_.order, n_.order,
          sums.output);
    product(padded, tile.taps, sizes_.channels, n_.channels, weights.output_back(), n_.order, slot.reached,
            sizes_.order, static_cast<const T*>(nullptr));
    for (std::size_t j = last + 1; j-- > 0;) {
      angle_gradients(count, tile.cosine[j], slot.reached, sums.bias[j]);
      if (j == 0) {
        outer(count, slot.reached, sizes_.order, n_.order, tile.rows, sizes_.features, n_.features,
              sums.weight[0]);
        break;
      }
      outer(count, slot.reached, sizes_.order, n_.order, tile.sine[j - 1], sizes_.order, n_.order,
            sums.weight[j]);
      product(padded, slot.reached, sizes_.order, n_.order, weights.back(std::int64_t(j)), n_.order,
              slot.below, sizes_.order, static_cast<const T*>(nullptr));
      std::swap(slot.reached, slot.below);
    }
  }

  // taps = grad_out times the window, a row for each position
  void read(Tile<S>& tile, const Weights<S>& weights, std::int64_t first, std::int64_t count) const {
    constexpr std::int64_t W = kLanes<T>;
    const Input& g = a_.grad_out;
    const S* from = static_cast<const S*>(g.data) + first * g.position;
    for (std::int64_t c = 0; c < n_.channels; c += W)
      for (std::int64_t i = 0; i < count; i += W) {
        Vec<T> lines[W];
        if (g.position == 1) {
          for (std::int64_t m = 0; m < W; ++m)
            lines[m] = c + m < n_.channels ? StridedRow<S>{from + (c + m) * g.channel, 1}.vector(i, count - i)
                                           : Vec<T>{};
          transpose<T>(lines);
        } else {
          for (std::int64_t m = 0; m < W; ++m)
            lines[m] = StridedRow<S>{from + std::min(i + m, count - 1) * g.position, g.channel}.vector(
                c, n_.channels - c);
        }
        for (std::int64_t m = 0; m < std::min(W, count - i); ++m)
          store(tile.taps + (i + m) * sizes_.channels + c, lines[m] * tile.window(weights, i + m, c));
      }
  }

  // reached = what reaches the angles of a layer; its bias' sum
  void angle_gradients(std::int64_t count, const T* cosine, T* reached, T* bias) const {
    for (std::int64_t c = 0; c < sizes_.order; c += kLanes<T>) {
      Vec<T> total = {};
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t at = i * sizes_.order + c;
        const Vec<T> made = load(reached + at) * load(cosine + at);
        store(reached + at, made);
        total += made;
      }
      store(bias + c, load(bias + c) + total);
    }
  }

  // sum += left transposed times right
  static void outer(std::int64_t count, const T* left, std::int64_t left_pitch, std::int64_t height,
                    const T* right, std::int64_t pitch, std::int64_t width, T* sum) {
    const T *lefts[kPositions], *rights[kPositions];
    for (std::int64_t i = 0; i < count; ++i) lefts[i] = left + i * left_pitch, rights[i] = right + i * pitch;
    Arena none(nullptr);
    const RegisterOuter<T> outer(height, width, pitch, 1, 1);
    outer.add(int(count), lefts, rights, {outer, none}, sum);
  }

  void write(const Sums& sums) const {
    const std::int64_t H = n_.order;
    for (std::int64_t j = 0; j < sizes_.layers; ++j) {
      const std::int64_t layer = std::max<std::int64_t>(j - 1, 0);
      write(sums.weight[std::size_t(j)], H, j ? H : n_.features,
            j ? a_.grad_inner_weight : a_.grad_first_weight, layer);
      const Output& bias = j ? a_.grad_inner_bias : a_.grad_first_bias;
      for (std::int64_t c = 0; c < H; ++c)
        narrow(static_cast<S*>(bias.data) + layer * bias.batch + c * bias.channel,
               sums.bias[std::size_t(j)][c]);
    }
    write(sums.output, n_.channels, H, a_.grad_output_weight, 0);
  }
  static void write(const T* sum, std::int64_t height, std::int64_t width, const Output& out,
                    std::int64_t layer) {
    const std::int64_t pitch = Sizes<T>::whole(width);
    for (std::int64_t k = 0; k < height; ++k)
      for (std::int64_t c = 0; c < width; ++c)
        narrow(static_cast<S*>(out.data) + layer * out.batch + k * out.channel + c * out.position,
               sum[k * pitch + c]);
  }

  const ImplicitFilter& n_;
  const ImplicitFilterBackward& a_;
  Team team_;
  Sizes<T> sizes_;
  std::int64_t tiles_;
};

// ---- the table -----------------------------------------------------------------------------------------

template <template <class> class Direction, class Arguments>
std::int64_t run(const ImplicitFilter& n, const Arguments& a, void* scratch, int threads,
                 cpu::Parallel parallel) {
  std::int64_t bytes = 0;
  with_storage(a.features.dtype, [&](auto* storage) {
    bytes = Direction<std::remove_pointer_t<decltype(storage)>>(n, a, Team{parallel, threads}).run(scratch);
  });
  return bytes;
}

std::int64_t forward_scratch(const ImplicitFilter& n, const ImplicitFilterForward& a, int threads) {
  return run<Forward>(n, a, nullptr, threads, nullptr);
}
std::int64_t backward_scratch(const ImplicitFilter& n, const ImplicitFilterBackward& a, int threads) {
  return run<Backward>(n, a, nullptr, threads, nullptr);
}
void forward(const ImplicitFilter& n, const ImplicitFilterForward& a, void* scratch, int threads,
             cpu::Parallel parallel) {
  const FlushSubnormals flush;
  run<Forward>(n, a, scratch, threads, parallel);
}
void backward(const ImplicitFilter& n, const ImplicitFilterBackward& a, void* scratch, int threads,
              cpu::Parallel parallel) {
  const FlushSubnormals flush;
  run<Backward>(n, a, scratch, threads, parallel);
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const ImplicitFilterKernels implicit_filter;
const ImplicitFilterKernels implicit_filter = {forward_scratch, backward_scratch, forward, backward};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
