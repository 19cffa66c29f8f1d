// short_conv on CUDA: a few taps along the sequence, channels apart.
//
//   p[b, c, t] = sum over taps j of filter[c, j] x[b, c, t - j + ahead] + bias[c]         y = epilogue(p)
//
// A block of 256 threads works on tiles of 32 lanes (channels, or parts of them) by 64 positions, a thread on
// one lane and 8 neighbouring positions, for which each value of x is read from shared memory once. Both
// layouts, and any strides, differ only in how tiles are read and written (short_conv_tiles.cuh).
//
// Backward makes the gradients of the sums anew, in shared memory, with what the taps reach on both sides;
// grad_x is their sum with the taps in reverse order. A block walks along a run of tiles with the weights'
// gradients in registers, a thread those of its lane; its warps' are added at the end, then those of the
// runs, in their order. How many runs there are depends on the sizes alone, and so do the bits.
//
// Shared memory: of each stream (one, or three if gated) a tile of x with its reach, 32 x 113 numbers,
// backward one more for the gradients of its sums, and the taps: 17 KB of float32 forward and 31 KB backward,
// gated 50 and 93. Bound by memory: everything is read and written once, but for what tiles reach.
#include "short_conv.h"

#include <algorithm>

#include "activations.cuh"
#include "launch.cuh"
#include "short_conv_tiles.cuh"

namespace equiconv::cuda {
namespace {

// The tiles of a call: groups of lanes fastest, then along the sequence, then samples.
struct Tiles {
  std::int64_t groups, each, count;

  explicit Tiles(const ShortConv& n)
      : groups((n.channels * n.parts + kLanesOfTile - 1) / kLanesOfTile),
        each((n.length + kTile - 1) / kTile),
        count(n.batch * each) {}
};

// A thread's positions are all there in a tile, if not in the sequence.
__device__ __forceinline__ int whole(int count) { return (count + kEach - 1) / kEach * kEach; }

// ---- what follows the sums -----------------------------------------------------------------------------

template <class R>
__device__ __forceinline__ Values<R> activated(Epilogue epilogue, R p) {
  if (epilogue == Epilogue::silu) {
    const Logistic<R> at(p);
    return {p * at.s, at.s * (R(1) + p * at.rest)};
  }
  const Normal<R> at(p);
  return {p * at.below, at.below + p * at.density};
}

// ---- forward -------------------------------------------------------------------------------------------

template <class R, int N>
__global__ void __launch_bounds__(kThreads, 1)
    short_conv_sums(const ShortConv n, const Tiles tiles, const ShortConvForward a, const Widths x_widths,
                    const Widths y_widths, const Widths product_widths) {
  R* const x = reinterpret_cast<R*>(dynamic_shared());  // N tiles
  R* const taps = x + N * kLanesOfTile * kPitch;
  const int lane = threadIdx.x % 32, at = threadIdx.x / 32 * kEach;
  std::int64_t taps_of = -1;
  for (std::int64_t id = blockIdx.x; id < tiles.groups * tiles.count; id += gridDim.x) {
    // 1. taps, where the lanes are others than before, and x
    const std::int64_t group = id % tiles.groups, tile = id / tiles.groups;
    const std::int64_t first = tile % tiles.each * kTile;
    const int count = int(min(std::int64_t(kTile), n.length - first));
    const int lanes = int(min(std::int64_t(kLanesOfTile), n.channels * n.parts - group * kLanesOfTile));
#pragma unroll 1
    for (int s = 0; s < N; ++s) {
      const TilePlace place{tile / tiles.each, s * n.channels, group * kLanesOfTile};
      if (group != taps_of)
        load_taps(taps + s * (kMaxTaps + 1) * kLanesOfTile, a.filter, a.bias, n, place, lanes);
      load_tile(x + s * kLanesOfTile * kPitch, a.x, x_widths, n, place, lanes, first + n.ahead - (n.taps - 1),
                whole(count) + n.taps - 1);
    }
    taps_of = group;
    __syncthreads();
    // 2. sums, and what becomes of them
    R sums[N][kEach];
#pragma unroll
    for (int s = 0; s < N; ++s) {
      const R* const f = taps + s * (kMaxTaps + 1) * kLanesOfTile + lane;
      const R start = f[n.taps * kLanesOfTile];
#pragma unroll
      for (int k = 0; k < kEach; ++k) sums[s][k] = start;
      if (at < count) slide(sums[s], x + (s * kLanesOfTile + lane) * kPitch + at, f, n.taps, false);
    }
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      if constexpr (N == 3) sums[1][k] *= sums[2][k];
      else if (n.epilogue != Epilogue::none) sums[0][k] = activated(n.epilogue, sums[0][k]).value;
    }
    __syncthreads();
    // 3. results, by way of the first tiles
#pragma unroll
    for (int r = 0; r < (N == 3 ? 2 : 1); ++r)
#pragma unroll
      for (int k = 0; k < kEach; ++k) x[(r * kLanesOfTile + lane) * kPitch + at + k] = sums[r][k];
    __syncthreads();
    const TilePlace place{tile / tiles.each, 0, group * kLanesOfTile};
    store_tile(x, a.y, y_widths, n, place, lanes, first, count);
    if constexpr (N == 3)
      store_tile(x + kLanesOfTile * kPitch, a.product, product_widths, n, place, lanes, first, count);
    __syncthreads();
  }
}

// ---- backward ------------------------------------------------------------------------------------------

// How arrays of a backward call are read and written.
struct BackwardWidths {
  Widths x, grad_out, grad_product, grad_x;
};

// Adds to sums[j] the sum over the thread's positions of g times what tap j read, and to the last g alone.
template <class R>
__device__ __forceinline__ void correlate_taps(R (&sums)[kMaxTaps + 1], const R* g, const R* row, int taps) {
  R grads[kEach], window[kEach];
#pragma unroll
  for (int k = 0; k < kEach; ++k) grads[k] = g[k], window[k] = row[k + taps - 1];
#pragma unroll
  for (int j = 0; j < kMaxTaps; ++j) {
    if (j < taps) {
      R sum(0);
#pragma unroll
      for (int k = 0; k < kEach; ++k) sum += grads[k] * window[k];
      sums[j] += sum;
#pragma unroll
      for (int k = kEach - 1; k > 0; --k) window[k] = window[k - 1];
      if (j + 1 < taps) window[0] = row[taps - 2 - j];
    }
  }
  R all(0);
#pragma unroll
  for (int k = 0; k < kEach; ++k) all += grads[k];
  sums[kMaxTaps] += all;
}

// Block (group, run) walks along the tiles of its run. partial[run][stream][j][lane], j = taps for the bias.
template <class R, int N>
__global__ void __launch_bounds__(kThreads, 1)
    short_conv_gradients(const ShortConv n, const Tiles tiles, const ShortConvBackward a,
                         const BackwardWidths widths, const std::int64_t runs, R* const partial) {
  constexpr int kTileSize = kLanesOfTile * kPitch, kTapsSize = (kMaxTaps + 1) * kLanesOfTile;
  R* const x = reinterpret_cast<R*>(dynamic_shared());  // N tiles, of x
  R* const g = x + N * kTileSize;                       // N tiles, of the gradients of the sums
  R* const taps = g + N * kTileSize;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, at = warp * kEach;
  const std::int64_t group = blockIdx.x % tiles.groups, run = blockIdx.x / tiles.groups;
  const int lanes = int(min(std::int64_t(kLanesOfTile), n.channels * n.parts - group * kLanesOfTile));
  const int reach = n.taps - 1;
  const bool anew = n.epilogue != Epilogue::none;

  R weights[N][kMaxTaps + 1] = {};
#pragma unroll 1
  for (int s = 0; s < N; ++s)
    load_taps(taps + s * kTapsSize, a.filter, a.bias, n, {0, s * n.channels, group * kLanesOfTile}, lanes);

  for (std::int64_t tile = tiles.count * run / runs; tile < tiles.count * (run + 1) / runs; ++tile) {
    const std::int64_t batch = tile / tiles.each, first = tile % tiles.each * kTile;
    const int count = int(min(std::int64_t(kTile), n.length - first)), wanted = whole(whole(count) + reach);
    // 1. x from `reach` before where the gradients of the sums begin, and the gradients of the results
#pragma unroll 1
    for (int s = 0; s < N; ++s)
      load_tile(x + s * kTileSize, a.x, widths.x, n, {batch, s * n.channels, group * kLanesOfTile}, lanes,
                first - reach, wanted + reach);
    const TilePlace place{batch, 0, group * kLanesOfTile};
    load_tile(g, a.grad_out, widths.grad_out, n, place, lanes, first - n.ahead, wanted);
    if constexpr (N == 3)
      load_tile(g + kTileSize, a.grad_product, widths.grad_product, n, place, lanes, first - n.ahead, wanted);
    __syncthreads();
    // 2. the gradients of the sums, in the place of those; each thread reads and writes its own
    if (anew) {
      for (int k0 = at; k0 < wanted; k0 += kTile) {
        R sums[N][kEach];
#pragma unroll
        for (int s = 0; s < N; ++s) {
          const R* const f = taps + s * kTapsSize + lane;
          const R start = f[n.taps * kLanesOfTile];
#pragma unroll
          for (int k = 0; k < kEach; ++k) sums[s][k] = start;
          slide(sums[s], x + s * kTileSize + lane * kPitch + k0, f, n.taps, false);
        }
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
          R* const grad = g + lane * kPitch + k0 + k;
          if constexpr (N == 3) {
            const R of_product = grad[kTileSize];
            grad[kTileSize] = of_product * sums[2][k];
            grad[2 * kTileSize] = of_product * sums[1][k];
          } else {
            grad[0] *= activated(n.epilogue, sums[0][k]).next;
          }
        }
      }
      __syncthreads();
    }
    // 3. the weights' gradients, in registers
    if (partial)
#pragma unroll
      for (int s = 0; s < N; ++s)
        if (at < count) {
          R own[kEach];
#pragma unroll
          for (int k = 0; k < kEach; ++k)
            own[k] = at + k < count ? g[s * kTileSize + lane * kPitch + n.ahead + at + k] : R(0);
          correlate_taps(weights[s], own, x + s * kTileSize + lane * kPitch + n.ahead + at, n.taps);
        }
    // 4. grad_x, by way of the tiles of x
    if (a.grad_x.data) {
      R sums[N][kEach] = {};
#pragma unroll
      for (int s = 0; s < N; ++s)
        if (at < count)
          slide(sums[s], g + s * kTileSize + lane * kPitch + at, taps + s * kTapsSize + lane, n.taps, true);
      __syncthreads();
#pragma unroll
      for (int s = 0; s < N; ++s)
#pragma unroll
        for (int k = 0; k < kEach; ++k) x[s * kTileSize + lane * kPitch + at + k] = sums[s][k];
      __syncthreads();
#pragma unroll 1
      for (int s = 0; s < N; ++s)
        store_tile(x + s * kTileSize, a.grad_x, widths.grad_x, n,
                   {batch, s * n.channels, group * kLanesOfTile}, lanes, first, count);
    }
    __syncthreads();
  }

  // 5. the sums over the warps, in their order
  if (!partial) return;
  R* const of_warps = x;  // [warp][j][lane]
#pragma unroll
  for (int s = 0; s < N; ++s) {
#pragma unroll
    for (int j = 0; j <= kMaxTaps; ++j) {
      const int place = j < kMaxTaps ? j : n.taps;
      if (j < n.taps || j == kMaxTaps)
        of_warps[(warp * (kMaxTaps + 1) + place) * kLanesOfTile + lane] = weights[s][j];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < (n.taps + 1) * kLanesOfTile; i += kThreads) {
      R sum(0);
      for (int w = 0; w < kWarps; ++w) sum += of_warps[w * kTapsSize + i];
      partial[((run * N + s) * tiles.groups + group) * kTapsSize + i] = sum;
    }
    __syncthreads();
  }
}

// The sums over runs, and over a channel's parts, in their order. A thread a channel and tap.
template <class R>
__global__ void __launch_bounds__(kThreads)
    short_conv_totals(const ShortConv n, const std::int64_t runs, const R* const partial,
                      const Output grad_filter, const Output grad_bias) {
  const std::int64_t channels = n.channels * n.streams();
  const std::int64_t groups = (n.channels * n.parts + kLanesOfTile - 1) / kLanesOfTile;
  constexpr int kTapsSize = (kMaxTaps + 1) * kLanesOfTile;
  for (std::int64_t i = blockIdx.x * std::int64_t(kThreads) + threadIdx.x; i < channels * (n.taps + 1);
       i += gridDim.x * std::int64_t(kThreads)) {
    const std::int64_t channel = i % channels, stream = channel / n.channels;
    const int j = int(i / channels);
    if (!(j < n.taps ? grad_filter : grad_bias).data) continue;
    R sum(0);
    for (std::int64_t run = 0; run < runs; ++run)
      for (int part = 0; part < n.parts; ++part) {
        const std::int64_t lane = channel % n.channels * n.parts + part;
        sum += partial[((run * n.streams() + stream) * groups + lane / kLanesOfTile) * kTapsSize +
                       j * kLanesOfTile + lane % kLanesOfTile];
      }
    if (j < n.taps) store_one(sum, grad_filter, channel * grad_filter.channel + j * grad_filter.position);
    else store_one(sum, grad_bias, channel * grad_bias.channel);
  }
}

// ---- one position --------------------------------------------------------------------------------------

// A thread a channel of a sample.
template <class R>
__global__ void __launch_bounds__(kThreads) short_conv_one(const ShortConv n, const ShortConvStep a) {
  for (std::int64_t i = blockIdx.x * std::int64_t(kThreads) + threadIdx.x; i < n.batch * n.channels;
       i += gridDim.x * std::int64_t(kThreads)) {
    const std::int64_t batch = i / n.channels, c = i % n.channels;
    const R x = load_one<R>(a.x, batch * a.x.batch + c * a.x.channel);
    R sum = a.bias.data ? load_one<R>(a.bias, c * a.bias.channel) : R(0);
    sum += load_one<R>(a.filter, c * a.filter.channel) * x;
    const int kept = n.taps - 1;
    const std::int64_t from = batch * a.state.batch + c * a.state.channel;
    const std::int64_t to = batch * a.next.batch + c * a.next.channel;
    for (int j = 1; j <= kept; ++j) {  // from the newest position to the oldest
      const R before = load_one<R>(a.state, from + (kept - j) * a.state.position);
      sum += load_one<R>(a.filter, c * a.filter.channel + j * a.filter.position) * before;
      if (j < kept) store_one(before, a.next, to + (kept - j - 1) * a.next.position);
    }
    if (kept) store_one(x, a.next, to + (kept - 1) * a.next.position);
    if (n.epilogue != Epilogue::none) sum = activated(n.epilogue, sum).value;
    store_one(sum, a.y, batch * a.y.batch + c * a.y.channel);
  }
}

// ---- launchers
// -----------------------------------------------------------------------------------------------

constexpr std::int64_t kMostBlocks = std::int64_t{1} << 30;
constexpr std::int64_t kBlocksOfRuns = 512;  // enough for every multiprocessor there is

std::int64_t runs_of(const ShortConv& n) {
  const Tiles tiles(n);
  return std::max<std::int64_t>(1, std::min(tiles.count, kBlocksOfRuns / tiles.groups));
}

template <class R>
std::size_t shared_bytes(int streams, bool backward) {
  return std::size_t(streams) * kLanesOfTile * ((backward ? 2 : 1) * kPitch + kMaxTaps + 1) * sizeof(R);
}

// Calls f with a zero of the type that is computed in and the number of streams, a constant.
template <class F>
cudaError_t with_kernel(const ShortConv& n, DType dtype, F f) {
  const bool gated = n.epilogue == Epilogue::gated;
  using One = std::integral_constant<int, 1>;
  using Three = std::integral_constant<int, 3>;
  if (dtype == DType::float64) return gated ? f(double(), Three{}) : f(double(), One{});
  return gated ? f(float(), Three{}) : f(float(), One{});
}

dim3 blocks_of(std::int64_t threads) {
  return dim3(unsigned(std::min((threads + kThreads - 1) / kThreads, kMostBlocks)));
}

}  // namespace

std::int64_t short_conv_forward_workspace(const ShortConv&, const ShortConvForward&) { return 0; }
std::int64_t short_conv_step_workspace(const ShortConv&, const ShortConvStep&) { return 0; }
std::int64_t short_conv_backward_workspace(const ShortConv& n, const ShortConvBackward& a) {
  if (!a.grad_filter.data && !a.grad_bias.data) return 0;
  const std::int64_t size = a.x.dtype == DType::float64 ? 8 : 4;
  return runs_of(n) * n.streams() * Tiles(n).groups * (kMaxTaps + 1) * kLanesOfTile * size;
}

cudaError_t short_conv_forward(const ShortConv& n, const ShortConvForward& a, void*, cudaStream_t stream) {
  return with_kernel(n, a.x.dtype, [&](auto zero, auto streams) {
    using R = decltype(zero);
    const Tiles tiles(n);
    const Launch launch{dim3(unsigned(std::min(tiles.groups * tiles.count, kMostBlocks))), dim3(kThreads),
                        shared_bytes<R>(streams(), false), stream};
    return launch(short_conv_sums<R, streams()>, n, tiles, a, widths_of(a.x, n), widths_of(a.y, n),
                  widths_of(a.product, n));
  });
}

cudaError_t short_conv_backward(const ShortConv& n, const ShortConvBackward& a, void* workspace,
                                cudaStream_t stream) {
  return with_kernel(n, a.x.dtype, [&](auto zero, auto streams) {
    using R = decltype(zero);
    const Tiles tiles(n);
    const std::int64_t runs = runs_of(n);
    const bool weights = a.grad_filter.data || a.grad_bias.data;
    R* const partial = weights ? static_cast<R*>(workspace) : nullptr;
    const BackwardWidths widths{widths_of(a.x, n), widths_of(a.grad_out, n), widths_of(a.grad_product, n),
                                widths_of(a.grad_x, n)};
    const Launch launch{dim3(unsigned(tiles.groups * runs)), dim3(kThreads), shared_bytes<R>(streams(), true),
                        stream};
    if (const cudaError_t error =
            launch(short_conv_gradients<R, streams()>, n, tiles, a, widths, runs, partial))
      return error;
    if (!weights) return cudaSuccess;
    const Launch sum{blocks_of(n.channels * n.streams() * (n.taps + 1)), dim3(kThreads), 0, stream};
    return sum(short_conv_totals<R>, n, runs, static_cast<const R*>(partial), a.grad_filter, a.grad_bias);
  });
}

cudaError_t short_conv_step(const ShortConv& n, const ShortConvStep& a, void*, cudaStream_t stream) {
  const Launch launch{blocks_of(n.batch * n.channels), dim3(kThreads), 0, stream};
  if (a.x.dtype == DType::float64) return launch(short_conv_one<double>, n, a);
  return launch(short_conv_one<float>, n, a);
}

}  // namespace equiconv::cuda
