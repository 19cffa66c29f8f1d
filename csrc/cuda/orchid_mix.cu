// orchid_mix on a GPU, at the lengths for which conditioned_conv has kernels (conditioned_conv.cu).
//
//   x0, x1, v, query, key: short convolutions of z's thirds        y = x0 conditioned_conv(x1 v, query, key)
//
// conditioned_conv's blocks take one row each, so in (B, L, D) they ask for a sector of 32 bytes for every
// number. Here they are given rows: (B, D, L) in the workspace, of the type that is computed in.
//
//   forward    mix_streams        z -> rows of x1 v, query, key
//              conditioned_conv   -> rows, in the place of x1 v
//              mix_streams        those and z -> y, gated by x0, which is made here
//   backward   mix_streams        z, grad_out -> rows of x0, x1 v, query, key, grad_out
//              conditioned_conv   -> rows of their gradients, each in the place of what it is the gradient of
//              mix_gradients      those and z -> grad_z, and the weights' gradients, run by run
//              mix_totals         the sums over runs
//
// A block of 256 threads walks along a run of tiles of 32 channels by 64 positions (short_conv_tiles.cuh), a
// thread on one channel and 8 neighbouring positions. How many runs there are depends on the sizes alone, and
// so do the bits. Lengths are powers of two from 64 on, so every tile is whole. What taps reach beyond a tile
// is read with it, on both sides, by 8 positions or 16: whole sectors of rows.
//
// Shared memory, of float32: two tiles, and six times the taps of 32 channels, 31 KB for 3 taps (41 for 16);
// backward three tiles, taps, their sums and those of warps, 51 KB (81). Bound by memory: for each number of
// y there are 12 read or written forward and 28 backward (model_orchid_mix.py). Counted and compiled, not yet
// run on a GPU.
#include "orchid_mix.h"

#include <algorithm>

#include "conditioned_conv.h"
#include "device.cuh"
#include "launch.cuh"
#include "short_conv_tiles.cuh"

namespace equiconv::cuda {
namespace {

constexpr int kTileSize = kLanesOfTile * kPitch;
constexpr std::int64_t kBlocksOfRuns = 512;  // enough for every multiprocessor there is

// What all launches of a call share.
struct MixTiles {
  std::int64_t groups, each, count, runs;  // of lanes; tiles of a sample; of all; what blocks walk along
  int reach;                               // positions read on both sides of a tile
  int weights;                             // numbers of a signal's taps and bias, of all lanes

  MixTiles(const ConditionedConv& size, const OrchidMix& mix)
      : groups((size.channels + kLanesOfTile - 1) / kLanesOfTile),
        each(size.length / kTile),
        count(size.batch * each),
        runs(std::max<std::int64_t>(1, std::min(count, kBlocksOfRuns / groups))) {
    std::int64_t most = 1;
    for (const MixShort& s : mix.of) most = std::max(most, s.taps);
    reach = int(most - 1 + kEach - 1) / kEach * kEach;
    weights = int(most + 1) * kLanesOfTile;
  }
};

// A block's tiles.
struct MixRun {
  std::int64_t group, run, begin, end;
  int lanes;

  __device__ MixRun(const MixTiles& tiles, std::int64_t channels)
      : group(blockIdx.x % tiles.groups),
        run(blockIdx.x / tiles.groups),
        begin(tiles.count * run / tiles.runs),
        end(tiles.count * (run + 1) / tiles.runs),
        lanes(int(min(std::int64_t(kLanesOfTile), channels - group * kLanesOfTile))) {}

  __device__ TilePlace place(std::int64_t batch) const { return {batch, 0, group * kLanesOfTile}; }
};

// The sums of a short convolution at a thread's positions; `row` is its input at the first of them.
template <class R>
__device__ __forceinline__ void convolve(R (&sums)[kEach], const R* row, const R* taps, const ShortConv& n) {
  const R bias = taps[n.taps * kLanesOfTile];
#pragma unroll
  for (int k = 0; k < kEach; ++k) sums[k] = bias;
  slide(sums, row + n.ahead - (n.taps - 1), taps, n.taps, false);
}

// ---- streams ---------------------------------------------------------------------------------------------

// Reads a signal, or takes the one that was read before; convolves it, or takes it as it is; multiplies it
// with what was kept; and writes it, or keeps it.
struct MixStep {
  ShortConv size;
  Input from, filter, bias;
  Output to;
  Widths read, write;
  bool gated;
};
constexpr int kMostSteps = 6;

struct MixStreams {
  MixTiles tiles;
  int count = 0;
  MixStep step[kMostSteps] = {};
};

template <class R>
__global__ void __launch_bounds__(kThreads) mix_streams(const MixStreams plan) {
  R* const in = reinterpret_cast<R*>(dynamic_shared());
  R* const out = in + kTileSize;
  R* const taps = out + kTileSize;
  const int lane = threadIdx.x % 32, at = threadIdx.x / 32 * kEach;
  const MixRun run(plan.tiles, plan.step[0].size.channels);
  R kept[kEach] = {};

#pragma unroll 1
  for (int i = 0; i < plan.count; ++i) {
    const MixStep& step = plan.step[i];
    if (step.filter.data)
      load_taps(taps + i * plan.tiles.weights, step.filter, step.bias, step.size, run.place(0), run.lanes);
  }
  for (std::int64_t tile = run.begin; tile < run.end; ++tile) {
    const TilePlace place = run.place(tile / plan.tiles.each);
    const std::int64_t first = tile % plan.tiles.each * kTile;
#pragma unroll 1
    for (int i = 0; i < plan.count; ++i) {
      const MixStep& step = plan.step[i];
      const int reach = step.filter.data ? plan.tiles.reach : 0;
      if (step.from.data)
        load_tile(in, step.from, step.read, step.size, place, run.lanes, first - reach, kTile + 2 * reach);
      __syncthreads();  // the tile is there; the last result is stored
      R sums[kEach];
      const R* const row = in + lane * kPitch + reach + at;
      if (step.filter.data) {
        convolve(sums, row, taps + i * plan.tiles.weights + lane, step.size);
      } else {
#pragma unroll
        for (int k = 0; k < kEach; ++k) sums[k] = row[k];
      }
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        if (step.gated) sums[k] *= kept[k];
        if (step.to.data) out[lane * kPitch + at + k] = sums[k];
        else kept[k] = sums[k];
      }
      __syncthreads();  // readers of the tile are done; the result is there
      if (step.to.data) store_tile(out, step.to, step.write, step.size, place, run.lanes, first, kTile);
    }
  }
}

// ---- gradients -------------------------------------------------------------------------------------------

// What becomes of the gradient of one of the signals.
struct MixPart {
  ShortConv size;
  Input from[3];  // into the tiles: two of z, which stay where a part has none, and the gradient's
  Widths read[3];
  Input filter, bias;
  Output to;  // the gradient of a third of z, if this part is the last of it
  Widths write;
  int own;       // which tile of z the signal is made of
  int factor;    // the part whose signal, of the other tile, multiplies the gradient; -1: none
  bool weights;  // whether gradients of weights are wanted
};

struct MixGradients {
  MixTiles tiles;
  int count = 0;
  bool of_z = false;  // whether it is wanted
  MixPart part[OrchidMix::kSignals] = {};
};

// to[tap, lane] = the sum over a thread's positions of g times what the tap read, and after the taps that of
// g.
template <class R>
__device__ __forceinline__ void correlate(R* to, const R* g, const R* row, int taps) {
  R grads[kEach], window[kEach], all(0);
#pragma unroll
  for (int k = 0; k < kEach; ++k) grads[k] = g[k], window[k] = row[k + taps - 1], all += grads[k];
#pragma unroll 1
  for (int j = 0; j < taps; ++j) {
    R sum(0);
#pragma unroll
    for (int k = 0; k < kEach; ++k) sum += grads[k] * window[k];
    to[j * kLanesOfTile] = sum;
#pragma unroll
    for (int k = kEach - 1; k > 0; --k) window[k] = window[k - 1];
    if (j + 1 < taps) window[0] = row[taps - 2 - j];
  }
  to[taps * kLanesOfTile] = all;
}

// partial: (run, group, part, tap, lane), the bias after the taps.
template <class R>
__global__ void __launch_bounds__(kThreads, sizeof(R) == sizeof(float) ? 3 : 1)
    mix_gradients(const MixGradients plan, R* const partial) {
  const int weights = plan.tiles.weights;
  R* const z = reinterpret_cast<R*>(dynamic_shared());
  R* const g = z + 2 * kTileSize;
  R* const taps = z + 3 * kTileSize;
  R* const totals = taps + OrchidMix::kSignals * weights;
  R* const of_warps = totals + OrchidMix::kSignals * weights;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, at = warp * kEach;
  const int reach = plan.tiles.reach, from_here = lane * kPitch + reach + at;
  const MixRun run(plan.tiles, plan.part[0].size.channels);
  R sums[kEach] = {};

#pragma unroll 1
  for (int i = threadIdx.x; i < OrchidMix::kSignals * weights; i += kThreads) totals[i] = R(0);
#pragma unroll 1
  for (int i = 0; i < plan.count; ++i)
    load_taps(taps + i * weights, plan.part[i].filter, plan.part[i].bias, plan.part[i].size, run.place(0),
              run.lanes);

  for (std::int64_t tile = run.begin; tile < run.end; ++tile) {
    const TilePlace place = run.place(tile / plan.tiles.each);
    const std::int64_t first = tile % plan.tiles.each * kTile;
#pragma unroll 1
    for (int i = 0; i < plan.count; ++i) {
      const MixPart& part = plan.part[i];
      const int count = part.size.taps;
      // 1. z, and the gradient of what was convolved: of a product, times the other factor
#pragma unroll 1
      for (int t = 0; t < 3; ++t)
        if (part.from[t].data)
          load_tile(z + t * kTileSize, part.from[t], part.read[t], part.size, place, run.lanes, first - reach,
                    kTile + 2 * reach);
      __syncthreads();  // the tiles are there
      if (part.factor >= 0) {
        const R* const f = taps + part.factor * weights + lane;
#pragma unroll 1
        for (int k0 = 0; k0 + at < kTile + reach; k0 += kTile) {
          R values[kEach];
          convolve(values, z + (1 - part.own) * kTileSize + from_here + k0, f, plan.part[part.factor].size);
#pragma unroll
          for (int k = 0; k < kEach; ++k) g[from_here + k0 + k] *= values[k];
        }
        __syncthreads();  // the gradient is there
      }
      // 2. the sums of each thread
      if (part.weights)
        correlate(of_warps + warp * weights + lane, g + from_here,
                  z + part.own * kTileSize + from_here + part.size.ahead - (count - 1), count);
      if (plan.of_z) slide(sums, g + from_here - part.size.ahead, taps + i * weights + lane, count, true);
      __syncthreads();  // readers of the gradient are done, and the sums of warps
      // 3. of the weights over the warps, in their order
      if (part.weights)
#pragma unroll 1
        for (int j = threadIdx.x; j < (count + 1) * kLanesOfTile; j += kThreads) {
          R sum = totals[i * weights + j];
          for (int w = 0; w < kWarps; ++w) sum += of_warps[w * weights + j];
          totals[i * weights + j] = sum;
        }
      // 4. the gradient of a third of z
      if (part.to.data) {
#pragma unroll
        for (int k = 0; k < kEach; ++k) g[lane * kPitch + at + k] = sums[k], sums[k] = R(0);
        __syncthreads();  // it is there
        store_tile(g, part.to, part.write, part.size, place, run.lanes, first, kTile);
        __syncthreads();  // it is stored
      }
    }
  }
  if (!partial) return;
  __syncthreads();  // all totals are there
  R* const to = partial + (run.run * plan.tiles.groups + run.group) * plan.count * weights;
  for (int i = threadIdx.x; i < plan.count * weights; i += kThreads) to[i] = totals[i];
}

// ---- weights ---------------------------------------------------------------------------------------------

struct MixWeights {
  std::int64_t channels, groups, runs;
  int count, weights;
  struct {
    Output filter, bias;
    int taps;
  } of[OrchidMix::kSignals];
};

// The sums over runs, in their order. A thread a channel and tap.
template <class R>
__global__ void __launch_bounds__(kThreads) mix_totals(const MixWeights plan, const R* const partial) {
  const int places = plan.weights / kLanesOfTile;
  for (std::int64_t i = blockIdx.x * std::int64_t(kThreads) + threadIdx.x;
       i < plan.channels * places * plan.count; i += gridDim.x * std::int64_t(kThreads)) {
    const std::int64_t channel = i % plan.channels, group = channel / kLanesOfTile;
    const int j = int(i / plan.channels % places), part = int(i / plan.channels / places);
    const auto& of = plan.of[part];
    const Output& to = j < of.taps ? of.filter : of.bias;
    if (j > of.taps || !to.data) continue;
    R sum(0);
    for (std::int64_t run = 0; run < plan.runs; ++run)
      sum += partial[((run * plan.groups + group) * plan.count + part) * plan.weights + j * kLanesOfTile +
                     channel % kLanesOfTile];
    store_one(sum, to, channel * to.channel + (j < of.taps ? j * to.position : 0));
  }
}

// ---- launchers -------------------------------------------------------------------------------------------

constexpr std::int64_t kMostBlocks = std::int64_t{1} << 30;

template <class R>
std::int64_t streams_shared(const MixStreams& plan) {
  return (2 * kTileSize + plan.count * plan.tiles.weights) * std::int64_t(sizeof(R));
}
template <class R>
std::int64_t gradients_shared(int weights) {
  return (3 * kTileSize + (2 * OrchidMix::kSignals + kWarps) * weights) * std::int64_t(sizeof(R));
}

template <class R>
bool fuses(std::int64_t length) {
  constexpr bool wide = sizeof(R) == sizeof(double);
  Device device;
  return conditioned_conv_fuses(length, wide ? DType::float64 : DType::float32) && !Device::current(device) &&
         gradients_shared<R>((kMaxTaps + 1) * kLanesOfTile) <= device.shared;
}

Input read(const Output& a) { return {a.data, a.dtype, a.batch, a.channel, a.position}; }

// The signals that are kept as rows, in their order. Forward there are the first only; the result takes the
// place of x1 v.
enum MixRow : int { kProduct, kQueryRow, kKeyRow, kPostGateRow, kGradient, kMixRows };
constexpr int kForwardRows = kPostGateRow;

// The workspace: `count` signals, without a key one less, and what comes after.
template <class R>
struct MixRows {
  const ConditionedConv& size;
  Workspace workspace;
  R* const rows;

  MixRows(const ConditionedConv& size, void* memory, int count)
      : size(size),
        workspace{static_cast<char*>(memory)},
        rows(workspace.take<R>((count - !size.keyed) * size.batch * size.channels * size.length)) {}

  Output operator[](int i) const {
    const std::int64_t row = size.length, sample = size.channels * row;
    const int before = i > kKeyRow && !size.keyed ? i - 1 : i;
    return {rows ? rows + before * size.batch * sample : nullptr,
            sizeof(R) == sizeof(double) ? DType::float64 : DType::float32, sample, row, 1};
  }
};

ShortConv short_of(const ConditionedConv& size, const OrchidMix& mix, const MixShort& s) {
  return {size.batch, size.channels, size.length, int(s.taps), int(s.ahead), 1, mix.circular, Epilogue::none};
}

// A launch of mix_streams, step by step.
template <class R>
struct MixLaunch {
  const ConditionedConv& size;
  const OrchidMix& mix;
  MixStreams plan;

  MixLaunch(const ConditionedConv& size, const OrchidMix& mix)
      : size(size), mix(mix), plan{MixTiles(size, mix)} {}

  void add(const MixShort& of, const Input& from, const Output& to, bool gated = false) {
    const ShortConv n = short_of(size, mix, of);
    plan.step[plan.count++] = {n, from, of.filter, of.bias, to, widths_of(from, n), widths_of(to, n), gated};
  }
  // x1 v, query and key, as rows.
  void make(const Input& pre_gate, const Input& x, const MixRows<R>& rows) {
    add(mix.of[OrchidMix::kPreGate], pre_gate, {});
    add(mix.of[OrchidMix::kX], x, rows[kProduct], true);
    add(mix.of[OrchidMix::kQuery], {}, rows[kQueryRow]);
    if (size.keyed) add(mix.of[OrchidMix::kKey], {}, rows[kKeyRow]);
  }
  cudaError_t operator()(cudaStream_t stream) const {
    const dim3 blocks(unsigned(plan.tiles.groups * plan.tiles.runs));
    return Launch{blocks, dim3(kThreads), std::size_t(streams_shared<R>(plan)), stream}(mix_streams<R>, plan);
  }
};

template <class R>
cudaError_t run_forward(const ConditionedConv& size, const ConditionedConvForward& a, const OrchidMix& mix,
                        void* memory, cudaStream_t stream) {
  if (!fuses<R>(size.length)) return cudaErrorInvalidValue;
  const MixRows<R> rows(size, memory, kForwardRows);
  MixLaunch<R> make(size, mix), gate(size, mix);
  make.make(a.pre_gate, a.x, rows);
  if (const cudaError_t e = make(stream)) return e;

  ConditionedConvForward inner{};
  inner.x = read(rows[kProduct]), inner.query = read(rows[kQueryRow]);
  if (size.keyed) inner.key = read(rows[kKeyRow]);
  inner.frequency_filter = a.frequency_filter, inner.frequency_bias = a.frequency_bias;
  inner.filter = a.filter, inner.skip = a.skip;
  inner.y = rows[kProduct];
  if (const cudaError_t e = conditioned_conv_forward(size, inner, nullptr, stream)) return e;

  gate.add({}, read(rows[kProduct]), {});
  gate.add(mix.of[OrchidMix::kPostGate], a.post_gate, a.y, true);
  return gate(stream);
}

// What backward is made of. Without memory it is for counting only.
template <class R>
struct Backward {
  const ConditionedConv& size;
  const ConditionedConvBackward& a;
  const OrchidMix& mix;
  MixRows<R> rows;
  ConditionedConvBackward inner{};
  MixGradients gradients;
  MixWeights weights{};
  R* partial = nullptr;
  void* memory;  // conditioned_conv's

  Backward(const ConditionedConv& size, const ConditionedConvBackward& a, const OrchidMix& mix, void* given)
      : size(size), a(a), mix(mix), rows(size, given, kMixRows), gradients{MixTiles(size, mix)} {
    plan();
    const MixTiles& tiles = gradients.tiles;
    bool any = false;
    for (int i = 0; i < gradients.count; ++i) any |= gradients.part[i].weights;
    if (any)
      partial = rows.workspace.template take<R>(tiles.runs * tiles.groups * gradients.count * tiles.weights);
    memory = rows.workspace.template take<char>(conditioned_conv_backward_workspace(size, inner));
  }

  bool wants(OrchidMix::Signal s) const { return mix.of[s].wants(); }

  void plan() {
    using Mix = OrchidMix;
    const bool of_z = a.grad_x || a.grad_pre_gate || a.grad_post_gate;
    const bool streams = of_z || wants(Mix::kPostGate) || wants(Mix::kPreGate) || wants(Mix::kX);
    const bool query = of_z || wants(Mix::kQuery), key = size.keyed && (of_z || wants(Mix::kKey));
    inner.grad_out = read(rows[kGradient]), inner.post_gate = read(rows[kPostGateRow]);
    inner.x = read(rows[kProduct]), inner.query = read(rows[kQueryRow]);
    if (size.keyed) inner.key = read(rows[kKeyRow]);
    inner.frequency_filter = a.frequency_filter, inner.frequency_bias = a.frequency_bias;
    inner.filter = a.filter, inner.skip = a.skip;
    inner.grad_frequency_filter = a.grad_frequency_filter;
    inner.grad_frequency_bias = a.grad_frequency_bias;
    inner.grad_filter = a.grad_filter, inner.grad_skip = a.grad_skip;
    if (streams) inner.grad_x = rows[kProduct], inner.grad_post_gate = rows[kPostGateRow];
    if (query) inner.grad_query = rows[kQueryRow];
    if (key) inner.grad_key = rows[kKeyRow];

    // The second tile has the last third of z, and stays until all that is made of it is done.
    gradients.of_z = of_z;
    if (streams) add(Mix::kPreGate, {a.pre_gate, a.x}, kProduct, 0, 1, a.grad_pre_gate);
    if (streams) add(Mix::kX, {}, kProduct, 1, 0, query || key ? Output{} : a.grad_x);
    if (query) add(Mix::kQuery, {{}, streams ? Input{} : a.x}, kQueryRow, 1, -1, key ? Output{} : a.grad_x);
    if (key) add(Mix::kKey, {{}, streams || query ? Input{} : a.x}, kKeyRow, 1, -1, a.grad_x);
    if (streams) add(Mix::kPostGate, {a.post_gate, {}}, kPostGateRow, 0, -1, a.grad_post_gate);
    const MixTiles& tiles = gradients.tiles;
    weights.channels = size.channels, weights.groups = tiles.groups, weights.runs = tiles.runs;
    weights.count = gradients.count, weights.weights = tiles.weights;
  }

  struct Thirds {
    Input first, second;
  };
  void add(OrchidMix::Signal s, const Thirds& z, MixRow row, int own, int factor, const Output& to) {
    const MixShort& of = mix.of[s];
    const ShortConv n = short_of(size, mix, of);
    const Input gradient = read(rows[row]);
    weights.of[gradients.count] = {of.grad_filter, of.grad_bias, n.taps};
    gradients.part[gradients.count++] = {
        n,
        {z.first, z.second, gradient},
        {widths_of(z.first, n), widths_of(z.second, n), widths_of(gradient, n)},
        of.filter,
        of.bias,
        to,
        widths_of(to, n),
        own,
        factor,
        of.wants()};
  }

  cudaError_t operator()(cudaStream_t stream) const {
    MixLaunch<R> make(size, mix);
    make.add(mix.of[OrchidMix::kPostGate], a.post_gate, rows[kPostGateRow]);
    make.make(a.pre_gate, a.x, rows);
    make.add({}, a.grad_out, rows[kGradient]);
    if (const cudaError_t e = make(stream)) return e;
    if (const cudaError_t e = conditioned_conv_backward(size, inner, memory, stream)) return e;
    if (!gradients.count) return cudaSuccess;

    const MixTiles& tiles = gradients.tiles;
    const Launch last{dim3(unsigned(tiles.groups * tiles.runs)), dim3(kThreads),
                      std::size_t(gradients_shared<R>(tiles.weights)), stream};
    if (const cudaError_t e = last(mix_gradients<R>, gradients, partial)) return e;
    if (!partial) return cudaSuccess;
    const std::int64_t threads = size.channels * (tiles.weights / kLanesOfTile) * gradients.count;
    const dim3 blocks(unsigned(std::min((threads + kThreads - 1) / kThreads, kMostBlocks)));
    return Launch{blocks, dim3(kThreads), 0, stream}(mix_totals<R>, weights, static_cast<const R*>(partial));
  }
};

template <class R>
cudaError_t run_backward(const ConditionedConv& size, const ConditionedConvBackward& a, const OrchidMix& mix,
                         void* memory, cudaStream_t stream) {
  if (!fuses<R>(size.length)) return cudaErrorInvalidValue;
  return Backward<R>(size, a, mix, memory)(stream);
}

}  // namespace

bool orchid_mix_fuses(std::int64_t length, DType dtype) {
  return dtype == DType::float64 ? fuses<double>(length) : fuses<float>(length);
}
std::int64_t orchid_mix_forward_workspace(const ConditionedConv& size, const ConditionedConvForward& a,
                                          const OrchidMix&) {
  return a.x.dtype == DType::float64 ? MixRows<double>(size, nullptr, kForwardRows).workspace.used
                                     : MixRows<float>(size, nullptr, kForwardRows).workspace.used;
}
std::int64_t orchid_mix_backward_workspace(const ConditionedConv& size, const ConditionedConvBackward& a,
                                           const OrchidMix& mix) {
  return a.x.dtype == DType::float64 ? Backward<double>(size, a, mix, nullptr).rows.workspace.used
                                     : Backward<float>(size, a, mix, nullptr).rows.workspace.used;
}
cudaError_t orchid_mix_forward(const ConditionedConv& size, const ConditionedConvForward& a,
                               const OrchidMix& mix, void* workspace, cudaStream_t stream) {
  return a.x.dtype == DType::float64 ? run_forward<double>(size, a, mix, workspace, stream)
                                     : run_forward<float>(size, a, mix, workspace, stream);
}
cudaError_t orchid_mix_backward(const ConditionedConv& size, const ConditionedConvBackward& a,
                                const OrchidMix& mix, void* workspace, cudaStream_t stream) {
  return a.x.dtype == DType::float64 ? run_backward<double>(size, a, mix, workspace, stream)
                                     : run_backward<float>(size, a, mix, workspace, stream);
}

}  // namespace equiconv::cuda
