// implicit_filter on a GPU: layer after layer, kPositions positions of all L at a time.
//
//   h_0 = sin(first_weight z + first_bias)     h_m = sin(inner_weight_m h_{m-1} + inner_bias_m)
//   filter[d, i] = exp(-t_i rates_d) (output_weight h_M)[i, d]
//
// A layer is a product of matrices and a launch of its own, so that no width is too large for a block; what
// it makes stays in the L2 cache for the next. Forward has M + 2 launches:
//   sine_layer         a layer with its sines, of which forward keeps the last two, backward all, and cosines
//   filter_taps        the output layer with its window, (channel, position)
// Backward keeps nothing of forward and has 2 M + 4 for each kPositions, and one:
//   sine_layer         as forward
//   window_gradients   what reaches the output layer, (position, channel)
//   angle_gradients    from a layer's outputs to its inputs, times the cosines, in their place
//   weight_gradients   of all layers at once, over a part of the positions; a thread sums its row's biases
//   weight_totals      adds the parts in their order
// Parts and the order of every sum follow from the sizes alone.
//
// What bounds it is what the multiplications read from shared memory, 1.2 times as long as they take
// themselves: fused multiply-adds of float32, not of its upper bits. Not yet run on a GPU.
#include "implicit_filter.h"

#include <algorithm>
#include <type_traits>

#include "device.cuh"
#include "implicit_filter_sines.cuh"
#include "implicit_filter_tile.cuh"
#include "launch.cuh"

namespace equiconv::cuda {
namespace {

constexpr std::int64_t kPositions = 1 << 14;  // at a time: the workspace does not grow with L beyond
constexpr int kFewestOfPart = 64;             // positions
constexpr int kBlocksWanted = 512;            // of weight_gradients
constexpr int kThreads = 256;                 // of weight_totals
constexpr int kSquare = 32, kAcross = 8;      // of window_gradients: a warp has the rows of a tile in turns
constexpr int kTogether = 4;                  // rows of a column whose sines are made side by side

__host__ __device__ constexpr std::int64_t quotient_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

template <class R>
constexpr DType kMade = sizeof(R) == sizeof(double) ? DType::float64 : DType::float32;  // in the workspace

// ---- forward ------------------------------------------------------------------------------------------

// The sums of a launch, (row, column). A launch has less than 2^31 tiles.
template <class R>
struct Tiles {
  std::int64_t rows, columns;

  __host__ __device__ std::int64_t across() const { return quotient_up(columns, kColumns<R>); }
  __host__ __device__ std::int64_t count() const { return quotient_up(rows, kRows) * across(); }
};

// A tile of them, and which of it a thread takes at last: rows `row`, row + kRowsApart ... of a column.
template <class R>
struct Tile {
  static constexpr int kRowsApart = kTileThreads / kColumns<R>;
  std::int64_t first_row, first_column, column;
  int rows, row, place;  // place: of the column in the tile
  bool exists;           // the column

  __device__ __forceinline__ Tile(const Tiles<R>& tiles, unsigned tile)
      : first_row(std::int64_t(tile / unsigned(tiles.across())) * kRows),
        first_column(std::int64_t(tile % unsigned(tiles.across())) * kColumns<R>),
        column(first_column + threadIdx.x % kColumns<R>),
        rows(int(min(tiles.rows - first_row, std::int64_t(kRows)))),
        row(threadIdx.x / kColumns<R>),
        place(threadIdx.x % kColumns<R>),
        exists(column < tiles.columns) {}
};

struct Nothing {
  template <class V>
  __device__ __forceinline__ void operator()(const V&) const {}
};

template <class R>
struct Layer {
  Tiles<R> tiles;  // (position, output)
  std::int64_t terms;
  Factor<Along::terms> inputs, weight;
  Input bias;
  R *sines, *cosines;  // (position, output); null: without cosines
};

template <class R>
__global__ void __launch_bounds__(kTileThreads) sine_layer(const Layer<R> l) {
  __shared__ TileShared<R> shared;
  const Tile<R> tile(l.tiles, blockIdx.x);
  multiply(shared, l.inputs, tile.first_row, l.weight, tile.first_column, 0, l.terms, Nothing());

  if (!tile.exists) return;
  const R bias = load_one<R>(l.bias, tile.column * l.bias.channel);
  const auto put = [&](int row, R sine, R cosine) {
    if (row >= tile.rows) return;
    const std::int64_t at = (tile.first_row + row) * l.tiles.columns + tile.column;
    l.sines[at] = sine;
    if (l.cosines) l.cosines[at] = cosine;
  };
#pragma unroll 1
  for (int row = tile.row * kTogether; row < tile.rows; row += tile.kRowsApart * kTogether) {
    if constexpr (sizeof(R) == sizeof(float)) {
      R angle[kTogether];
      bool near = true;
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        angle[k] = shared.sums[row + k][tile.place] + bias;
        near = near && is_near(angle[k]);
      }
      if (near) {
#pragma unroll
        for (int k = 0; k < kTogether; ++k) {
          R sine, cosine;
          sine_and_cosine(angle[k], sine, cosine);
          put(row + k, sine, cosine);
        }
        continue;
      }
    }
#pragma unroll 1
    for (int k = 0; k < kTogether; ++k) {
      const R angle = shared.sums[row + k][tile.place] + bias;
      R sine, cosine;
      if constexpr (sizeof(R) == sizeof(float)) sincosf(angle, &sine, &cosine);
      else sincos(angle, &sine, &cosine);
      put(row + k, sine, cosine);
    }
  }
}

template <class R>
struct Taps {
  Tiles<R> tiles;  // (channel, position)
  std::int64_t terms;
  Factor<Along::terms> weight, sines;
  Input times, rates;  // `position` is the stride of times
  Output filter;
};

template <class R>
__global__ void __launch_bounds__(kTileThreads) filter_taps(const Taps<R> t) {
  __shared__ TileShared<R> shared;
  const Tile<R> tile(t.tiles, blockIdx.x);
  multiply(shared, t.weight, tile.first_row, t.sines, tile.first_column, 0, t.terms, Nothing());

  if (!tile.exists) return;
  const R time = load_one<R>(t.times, tile.column * t.times.position);
#pragma unroll 4
  for (int i = tile.row; i < tile.rows; i += tile.kRowsApart) {
    const std::int64_t channel = tile.first_row + i;
    const R rate = load_one<R>(t.rates, channel * t.rates.channel);
    store_one<R>(shared.sums[i][tile.place] * exp(-rate * time), t.filter,
                 channel * t.filter.channel + tile.column * t.filter.position);
  }
}

// ---- backward -----------------------------------------------------------------------------------------

// A tile of 32 positions and channels, read as it lies and written as (position, channel).
template <class R>
struct Windowed {
  std::int64_t positions, channels;
  Input grad_out, times, rates;  // `position` is the stride of times
  R* to;

  __host__ __device__ std::int64_t across() const { return quotient_up(channels, kSquare); }
  __host__ __device__ std::int64_t count() const { return quotient_up(positions, kSquare) * across(); }
};

template <class R>
__global__ void __launch_bounds__(kThreads) window_gradients(const Windowed<R> w) {
  __shared__ R tile[kSquare][kSquare + 1];  // (channel, position)
  const int lane = threadIdx.x % kSquare, warp = threadIdx.x / kSquare;
  const unsigned across = unsigned(w.across());
  const std::int64_t position = std::int64_t(blockIdx.x / across) * kSquare,
                     channel = std::int64_t(blockIdx.x % across) * kSquare;
  const bool along_positions = w.grad_out.position == 1;
#pragma unroll
  for (int i = warp; i < kSquare; i += kAcross) {
    const int p = along_positions ? lane : i, c = along_positions ? i : lane;
    if (position + p < w.positions && channel + c < w.channels)
      tile[c][p] =
          load_one<R>(w.grad_out, (channel + c) * w.grad_out.channel + (position + p) * w.grad_out.position);
  }
  __syncthreads();  // the tile is there
  if (channel + lane >= w.channels) return;
  const R rate = load_one<R>(w.rates, (channel + lane) * w.rates.channel);
#pragma unroll
  for (int i = warp; i < kSquare; i += kAcross)
    if (position + i < w.positions)
      w.to[(position + i) * w.channels + channel + lane] =
          tile[lane][i] * exp(-load_one<R>(w.times, (position + i) * w.times.position) * rate);
}

template <class R>
struct Angles {
  Tiles<R> tiles;  // (position, input of the layer)
  std::int64_t terms;
  Factor<Along::terms> gradients;  // of the layer's outputs
  Factor<Along::rows> weight;      // (input, output)
  R* cosines;                      // of its inputs' angles, (position, input)
};

template <class R>
__global__ void __launch_bounds__(kTileThreads) angle_gradients(const Angles<R> a) {
  __shared__ TileShared<R> shared;
  const Tile<R> tile(a.tiles, blockIdx.x);
  multiply(shared, a.gradients, tile.first_row, a.weight, tile.first_column, 0, a.terms, Nothing());

  if (!tile.exists) return;
#pragma unroll 4
  for (int row = tile.row; row < tile.rows; row += tile.kRowsApart)
    a.cosines[(tile.first_row + row) * a.tiles.columns + tile.column] *= shared.sums[row][tile.place];
}

// All weights and biases, one after the other, as a part sums their gradients and as the results lie.
struct Parameters {
  std::int64_t features, order, inner, channels;

  __host__ __device__ std::int64_t first_weight() const { return 0; }
  __host__ __device__ std::int64_t first_bias() const { return order * features; }
  __host__ __device__ std::int64_t inner_weight() const { return first_bias() + order; }
  __host__ __device__ std::int64_t inner_bias() const { return inner_weight() + inner * order * order; }
  __host__ __device__ std::int64_t output_weight() const { return inner_bias() + inner * order; }
  __host__ __device__ std::int64_t count() const { return output_weight() + channels * order; }
};

// Of one kPositions, of which every part has `length`.
template <class R>
struct Weights {
  Parameters parameters;
  std::int64_t positions, length;
  bool adds;                              // to what the parts have
  Factor<Along::rows> features;           // (feature, position)
  const R *sines, *angles, *grad_filter;  // (layer, position, output), angles' and the filter's gradients
  std::int64_t layer;
  R* sums;  // (part, parameter)

  __host__ __device__ Tiles<R> of_first() const { return {parameters.order, parameters.features}; }
  __host__ __device__ Tiles<R> of_inner() const { return {parameters.order, parameters.order}; }
  __host__ __device__ Tiles<R> of_output() const { return {parameters.channels, parameters.order}; }
  __host__ __device__ std::int64_t tiles() const {
    return of_first().count() + parameters.inner * of_inner().count() + of_output().count();
  }
  __device__ __forceinline__ Factor<Along::rows> of(const R* from, std::int64_t width) const {
    return {from, kMade<R>, 1, width, width};
  }
};

template <class R>
__global__ void __launch_bounds__(kTileThreads, 1) weight_gradients(const Weights<R> w) {
  __shared__ TileShared<R> shared;
  const Parameters& p = w.parameters;
  unsigned of_layer = blockIdx.x % unsigned(w.tiles());
  const std::int64_t part = blockIdx.x / unsigned(w.tiles()), begin = part * w.length;

  // Which layer's tile it is.
  Tiles<R> tiles = w.of_first();
  Factor<Along::rows> left = w.of(w.angles, p.order), right = w.features;
  std::int64_t weight = p.first_weight(), bias = p.first_bias();
  if (of_layer >= tiles.count()) {
    of_layer -= unsigned(tiles.count()), tiles = w.of_inner();
    const unsigned of_inner = unsigned(tiles.count()), m = of_layer / of_inner;
    if (m < p.inner) {
      of_layer -= m * of_inner;
      left = w.of(w.angles + (m + 1) * w.layer, p.order), right = w.of(w.sines + m * w.layer, p.order);
      weight = p.inner_weight() + m * p.order * p.order, bias = p.inner_bias() + m * p.order;
    } else {
      of_layer -= unsigned(p.inner) * of_inner, tiles = w.of_output();
      left = w.of(w.grad_filter, p.channels), right = w.of(w.sines + p.inner * w.layer, p.order);
      weight = p.output_weight(), bias = -1;
    }
  }

  const Tile<R> tile(tiles, of_layer);
  R of_bias = 0;  // of row threadIdx.x
  multiply(shared, left, tile.first_row, right, tile.first_column, begin, min(begin + w.length, w.positions),
           [&](const auto& brought) {
             R some = 0;
             for (const R value : brought) some += value;
             of_bias += some;
           });

  R* const sums = w.sums + part * p.count();
  const auto put = [&](R& to, R sum) { to = w.adds ? to + sum : sum; };
  if (bias >= 0 && tile.first_column == 0 && int(threadIdx.x) < tile.rows)
    put(sums[bias + tile.first_row + threadIdx.x], of_bias);
  if (!tile.exists) return;
#pragma unroll 4
  for (int row = tile.row; row < tile.rows; row += tile.kRowsApart)
    put(sums[weight + (tile.first_row + row) * tiles.columns + tile.column], shared.sums[row][tile.place]);
}

template <class R>
struct Totals {
  Parameters parameters;
  std::int64_t parts;
  const R* sums;
  Output first_weight, first_bias, inner_weight, inner_bias, output_weight;  // contiguous
};

template <class R>
__global__ void __launch_bounds__(kThreads) weight_totals(const Totals<R> t) {
  const Parameters& p = t.parameters;
  const std::int64_t at = blockIdx.x * std::int64_t(kThreads) + threadIdx.x;
  if (at >= p.count()) return;
  R total = 0;
#pragma unroll 4
  for (std::int64_t part = 0; part < t.parts; ++part) total += t.sums[part * p.count() + at];
  const auto put = [&](const Output& to, std::int64_t first) { store_one<R>(total, to, at - first); };
  if (at < p.first_bias()) put(t.first_weight, p.first_weight());
  else if (at < p.inner_weight()) put(t.first_bias, p.first_bias());
  else if (at < p.inner_bias()) put(t.inner_weight, p.inner_weight());
  else if (at < p.output_weight()) put(t.inner_bias, p.inner_bias());
  else put(t.output_weight, p.output_weight());
}

// ---- launchers ----------------------------------------------------------------------------------------

cudaError_t launched(std::int64_t blocks, int threads, cudaStream_t stream, auto kernel, const auto& job) {
  if (blocks >= std::int64_t(1) << 31) return cudaErrorInvalidValue;
  return Launch{dim3(unsigned(blocks)), dim3(unsigned(threads)), 0, stream}(kernel, job);
}

// One call: what it needs, or where it has a workspace, its launches.
template <class R>
class Network {
 public:
  // Forward's and backward's arguments both have the weights and biases.
  Network(const ImplicitFilter& n, const auto& a)
      : n_(n),
        positions_(std::min(n.length, kPositions)),
        features_(a.features),
        first_{a.first_weight, a.first_bias},
        inner_{a.inner_weight, a.inner_bias},
        output_weight_(a.output_weight),
        rates_(a.rates) {}

  std::int64_t forward_workspace() const {
    Workspace workspace;
    workspace.take<R>(std::min<std::int64_t>(n_.inner + 1, 2) * layer());
    return workspace.used;
  }
  std::int64_t backward_workspace() const { return Kept(*this, nullptr).workspace.used; }

  cudaError_t forward(const Output& filter, void* memory, cudaStream_t stream) const {
    R* const sines = static_cast<R*>(memory);
    const auto kept = [&](std::int64_t m) { return sines + m % 2 * layer(); };
    for (std::int64_t first = 0; first < n_.length; first += positions_) {
      for (std::int64_t m = 0; m <= n_.inner; ++m)
        if (const cudaError_t e = make_layer(m, first, kept(m + 1), kept(m), nullptr, stream)) return e;
      if (const cudaError_t e = make_taps(first, kept(n_.inner), filter, stream)) return e;
    }
    return cudaSuccess;
  }

  cudaError_t backward(const ImplicitFilterBackward& a, void* memory, cudaStream_t stream) const {
    const Kept kept(*this, memory);
    for (std::int64_t first = 0; first < n_.length; first += positions_) {
      for (std::int64_t m = 0; m <= n_.inner; ++m) {
        R* const sines = kept.sines + m * layer();
        const R* const inputs = m ? sines - layer() : nullptr;
        if (const cudaError_t e = make_layer(m, first, inputs, sines, kept.angles + m * layer(), stream))
          return e;
      }
      if (const cudaError_t e = window(first, a.grad_out, kept.grad_filter, stream)) return e;
      for (std::int64_t m = n_.inner; m >= 0; --m)
        if (const cudaError_t e = make_angles(m, first, kept, stream)) return e;
      if (const cudaError_t e = make_weights(first, kept, stream)) return e;
    }
    const Totals<R> totals{
        parameters(),        parts(),           kept.sums,           a.grad_first_weight, a.grad_first_bias,
        a.grad_inner_weight, a.grad_inner_bias, a.grad_output_weight};
    return launched(quotient_up(parameters().count(), kThreads), kThreads, stream, weight_totals<R>, totals);
  }

 private:
  struct Affine {
    Input weight, bias;  // of inner layers `batch` is from one to the next
  };

  // What backward works with, of some positions but the sums.
  struct Kept {
    Workspace workspace;
    R *sines, *angles;  // of all layers; angles' gradients are in the place of their cosines
    R *grad_filter, *sums;

    Kept(const Network& of, void* memory)
        : workspace{static_cast<char*>(memory)},
          sines(workspace.take<R>((of.n_.inner + 1) * of.layer())),
          angles(workspace.take<R>((of.n_.inner + 1) * of.layer())),
          grad_filter(workspace.take<R>(of.positions_ * of.n_.channels)),
          sums(workspace.take<R>(of.parts() * of.parameters().count())) {}
  };

  std::int64_t layer() const { return positions_ * n_.order; }
  std::int64_t positions_from(std::int64_t first) const { return std::min(n_.length - first, positions_); }
  Parameters parameters() const { return {n_.features, n_.order, n_.inner, n_.channels}; }

  // Positions of a part, for weight_gradients to have blocks enough.
  std::int64_t part_length() const {
    Weights<R> w{};
    w.parameters = parameters();
    const std::int64_t parts = std::max<std::int64_t>(kBlocksWanted / w.tiles(), 1);
    return std::max<std::int64_t>(quotient_up(positions_, parts * kTerms) * kTerms, kFewestOfPart);
  }
  std::int64_t parts() const { return quotient_up(positions_, part_length()); }

  // An array from some element on.
  template <class A>
  static A from(A a, std::int64_t element) {
    const int item = a.dtype == DType::float64 ? 8 : a.dtype == DType::float32 ? 4 : 2;
    using Byte = std::conditional_t<std::is_same_v<A, Input>, const char, char>;
    a.data = static_cast<Byte*>(a.data) + element * item;
    return a;
  }
  Input features(std::int64_t first) const { return from(features_, first * features_.position); }
  Affine affine(std::int64_t m) const {
    if (m == 0) return first_;
    return {from(inner_.weight, (m - 1) * inner_.weight.batch),
            from(inner_.bias, (m - 1) * inner_.bias.batch)};
  }
  // (position, number) in the workspace.
  Factor<Along::terms> made(const R* numbers, std::int64_t width, std::int64_t positions) const {
    return {numbers, kMade<R>, width, 1, positions};
  }

  // Layer m, of which 0 is the first.
  cudaError_t make_layer(std::int64_t m, std::int64_t first, const R* inputs, R* sines, R* cosines,
                         cudaStream_t stream) const {
    const std::int64_t positions = positions_from(first), order = n_.order, terms = m ? order : n_.features;
    const Affine of = affine(m);
    const Input z = features(first);
    const Layer<R> l{{positions, order},
                     terms,
                     m ? made(inputs, order, positions)
                       : Factor<Along::terms>{z.data, z.dtype, z.position, z.channel, positions},
                     {of.weight.data, of.weight.dtype, of.weight.channel, of.weight.position, order},
                     of.bias,
                     sines,
                     cosines};
    return launched(l.tiles.count(), kTileThreads, stream, sine_layer<R>, l);
  }

  cudaError_t make_taps(std::int64_t first, const R* sines, const Output& filter, cudaStream_t stream) const {
    const std::int64_t positions = positions_from(first);
    const Input& w = output_weight_;
    const Taps<R> t{{n_.channels, positions},
                    n_.order,
                    {w.data, w.dtype, w.channel, w.position, n_.channels},
                    made(sines, n_.order, positions),
                    features(first),
                    rates_,
                    from(filter, first * filter.position)};
    return launched(t.tiles.count(), kTileThreads, stream, filter_taps<R>, t);
  }

  cudaError_t window(std::int64_t first, const Input& grad_out, R* to, cudaStream_t stream) const {
    const Windowed<R> w{positions_from(first), n_.channels, from(grad_out, first * grad_out.position),
                        features(first),       rates_,      to};
    return launched(w.count(), kThreads, stream, window_gradients<R>, w);
  }

  // The gradients of layer m's angles.
  cudaError_t make_angles(std::int64_t m, std::int64_t first, const Kept& kept, cudaStream_t stream) const {
    const std::int64_t positions = positions_from(first), order = n_.order;
    const bool last = m == n_.inner;
    const std::int64_t terms = last ? n_.channels : order;
    const Input w = last ? output_weight_ : affine(m + 1).weight;
    const Angles<R> a{{positions, order},
                      terms,
                      made(last ? kept.grad_filter : kept.angles + (m + 1) * layer(), terms, positions),
                      {w.data, w.dtype, w.position, w.channel, order},
                      kept.angles + m * layer()};
    return launched(a.tiles.count(), kTileThreads, stream, angle_gradients<R>, a);
  }

  cudaError_t make_weights(std::int64_t first, const Kept& kept, cudaStream_t stream) const {
    Weights<R> w{};
    w.parameters = parameters();
    w.positions = positions_from(first), w.length = part_length();
    w.adds = first > 0;
    const Input z = features(first);
    w.features = {z.data, z.dtype, z.channel, z.position, n_.features};
    w.sines = kept.sines, w.angles = kept.angles, w.grad_filter = kept.grad_filter;
    w.layer = layer(), w.sums = kept.sums;
    return launched(w.tiles() * quotient_up(w.positions, w.length), kTileThreads, stream, weight_gradients<R>,
                    w);
  }

  ImplicitFilter n_;
  std::int64_t positions_;  // at a time
  Input features_;
  Affine first_, inner_;
  Input output_weight_, rates_;
};

// Calls f with a network of the type that is computed in.
auto with_network(const ImplicitFilter& n, const auto& a, auto f) {
  return a.features.dtype == DType::float64 ? f(Network<double>(n, a)) : f(Network<float>(n, a));
}

}  // namespace

std::int64_t implicit_filter_workspace(const ImplicitFilter& n, const ImplicitFilterForward& a) {
  return with_network(n, a, [](const auto& network) { return network.forward_workspace(); });
}
std::int64_t implicit_filter_backward_workspace(const ImplicitFilter& n, const ImplicitFilterBackward& a) {
  return with_network(n, a, [](const auto& network) { return network.backward_workspace(); });
}
cudaError_t implicit_filter(const ImplicitFilter& n, const ImplicitFilterForward& a, void* workspace,
                            cudaStream_t stream) {
  return with_network(n, a, [&](const auto& made) { return made.forward(a.filter, workspace, stream); });
}
cudaError_t implicit_filter_backward(const ImplicitFilter& n, const ImplicitFilterBackward& a,
                                     void* workspace, cudaStream_t stream) {
  return with_network(n, a, [&](const auto& made) { return made.backward(a, workspace, stream); });
}

}  // namespace equiconv::cuda
