// long_conv_step on a GPU: relaxed convolution, 32 channels to a block.
//
// What a token of a model costs is its launches, so it is one: a token takes all taps within its block of
// kBlock positions, 8 warps a channel's, and its gates with them. Channels never meet, so the tokens of one
// block of positions that come together are one launch too, a barrier between each and the next.
//
// Where a block of positions ends, the largest aligned block of inputs behind is convolved with the taps
// that reach as many positions ahead, and added to the sums there:
//   up to kWidestOfProducts   product by product, in a launch of its own, a tile of kBlock sums and 32
//                             channels to a block of threads. A thread has 8 sums and slides 15 taps over
//                             8 inputs at a time: 64 products for 16 numbers of shared memory;
//   wider                     by fft_conv with a filter of both sides, and a launch that adds what it made.
//
//   shared memory   a token: a number for each thread; a tile: 64 inputs and 127 taps of 32 channels
//
// What bounds it is the launch and, in it, what memory takes to answer: a token reads at most 127 numbers a
// channel. All that depends on the position is known on the host. Not yet run on a GPU.
#include "long_conv_step.h"

#include <algorithm>

#include "device.cuh"
#include "fft_conv.h"
#include "fft_conv_tensors.cuh"
#include "launch.cuh"

namespace equiconv::cuda {
namespace {

constexpr int kLanes = 32, kWarps = 8, kThreads = kLanes * kWarps;
constexpr int kEach = kBlock / kWarps;  // of a block of positions, for each warp

static_assert(kEach == kWarps, "below, eight sums of a thread, and a warp's eight lags");

template <class R>
constexpr int kLanesOfLine = kLineBytes / int(sizeof(R));

// What all kernels are given; a block of threads has 32 channels of one batch entry.
template <class R>
struct State {
  LongConvStep n;
  std::int64_t pitch, tiles;
  R* buffer;      // (batch, rows, pitch)
  const R* taps;  // (tap, pitch)

  // Where a thread's channel is, and whether it exists.
  struct Place {
    std::int64_t batch, channel;
    bool exists;
  };
  __device__ __forceinline__ Place place(std::int64_t block) const {
    const std::int64_t channel = block % tiles * kLanes + threadIdx.x % kLanes;
    return {block / tiles, channel, channel < n.filter.channels};
  }
  // The channel's number at a position, and its tap; `pitch` apart.
  __device__ __forceinline__ R* at(const Place& p, std::int64_t position) const {
    return buffer + (p.batch * n.rows + position) * pitch + p.channel;
  }
  __device__ __forceinline__ const R* tap(const Place& p, std::int64_t lag) const {
    return taps + lag * pitch + p.channel;
  }
};

// Where the tokens of a channel are: where samples have filters of their own, their channels follow each
// other.
template <class Void>
__device__ __forceinline__ std::int64_t offset_of(const Array<Void>& a, const LongConvStep& n,
                                                  std::int64_t batch, std::int64_t channel,
                                                  std::int64_t token) {
  const std::int64_t sample = n.samples > 1 ? channel / n.channels : 0;
  return (batch + sample) * a.batch + (channel - sample * n.channels) * a.channel + token * a.position;
}

// ---- tokens ----------------------------------------------------------------------------------------------

// `count` tokens of one block of positions, of the call's tokens from `first` on.
template <class R>
__global__ void __launch_bounds__(kThreads)
    take_tokens(const State<R> s, const Input x, const Input pre_gate, const Input post_gate, const Output y,
                const std::int64_t first, const int count) {
  __shared__ R shared[kWarps][kLanes];
  const auto place = s.place(blockIdx.x);
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;

#pragma unroll 1
  for (std::int64_t token = first; token < first + count; ++token) {
    const std::int64_t position = s.n.position + token;
    const int most = int(position % kBlock);  // the longest lag
    R sum = 0, u = 0, gate = 1;
    if (place.exists) {
      // All is asked for before anything is used, but for what half types have to be converted.
      R inputs[kEach] = {}, taps[kEach] = {}, tap = 0, pre = 1;
#pragma unroll
      for (int k = 0; k < kEach; ++k)
        if (const int lag = 1 + warp + k * kWarps; lag <= most)
          inputs[k] = *s.at(place, position - lag), taps[k] = *s.tap(place, lag);
      if (warp == 0) {
        sum = *s.at(place, position), tap = *s.tap(place, 0);
        u = load_one<R>(x, offset_of(x, s.n, place.batch, place.channel, token));
        if (pre_gate.data)
          pre = load_one<R>(pre_gate, offset_of(pre_gate, s.n, place.batch, place.channel, token));
        if (post_gate.data)
          gate = load_one<R>(post_gate, offset_of(post_gate, s.n, place.batch, place.channel, token));
        u *= pre;
      }
      sum += tap * u;
#pragma unroll
      for (int k = 0; k < kEach; ++k) sum += taps[k] * inputs[k];
    }
    shared[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && place.exists) {
#pragma unroll
      for (int w = 1; w < kWarps; ++w) sum += shared[w][lane];
      *s.at(place, position) = u;
      store_one<R>(gate * sum, y, offset_of(y, s.n, place.batch, place.channel, token));
    }
    if (token + 1 < first + count) __syncthreads();  // the next one's lags reach u, and its sums `shared`
  }
}

// ---- squares ---------------------------------------------------------------------------------------------

// A block of threads adds to the kBlock sums from here + kBlock `part` on.
struct Square {
  std::int64_t here, width, parts;

  __device__ __forceinline__ std::int64_t ahead(std::int64_t part) const { return here + part * kBlock; }
};

template <class R>
__global__ void __launch_bounds__(kThreads) add_products(const State<R> s, const Square square) {
  __shared__ R inputs[kBlock][kLanes], taps[2 * kBlock - 1][kLanes];
  const std::int64_t part = blockIdx.x % square.parts, ahead = square.ahead(part);
  const auto place = s.place(blockIdx.x / square.parts);
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;

  R totals[kEach] = {};
#pragma unroll 1
  for (std::int64_t behind = square.here - square.width; behind < square.here; behind += kBlock) {
    if (place.exists) {
      for (int i = warp; i < kBlock; i += kWarps) inputs[i][lane] = *s.at(place, behind + i);
      for (int i = warp; i < 2 * kBlock - 1; i += kWarps)
        taps[i][lane] = *s.tap(place, ahead - behind - (kBlock - 1) + i);
    }
    __syncthreads();
    if (place.exists) {
      // Sum i of a thread takes input k by tap i - k + 7 of 15; 8 inputs on, the taps are 8 before.
      R sums[kEach] = {}, near[2 * kEach - 1];
#pragma unroll
      for (int i = kEach; i < 2 * kEach - 1; ++i) near[i] = taps[kBlock - kEach + kEach * warp + i][lane];
#pragma unroll
      for (int first = 0; first < kBlock; first += kEach) {
#pragma unroll
        for (int i = 0; i < kEach; ++i) near[i] = taps[kBlock - kEach + kEach * warp - first + i][lane];
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
          const R u = inputs[first + k][lane];
#pragma unroll
          for (int i = 0; i < kEach; ++i) sums[i] += near[i - k + kEach - 1] * u;
        }
#pragma unroll
        for (int i = 0; i < kEach - 1; ++i) near[kEach + i] = near[i];
      }
#pragma unroll
      for (int i = 0; i < kEach; ++i) totals[i] += sums[i];
    }
    __syncthreads();
  }
  if (place.exists)
#pragma unroll
    for (int i = 0; i < kEach; ++i) *s.at(place, ahead + kEach * warp + i) += totals[i];
}

// What fft_conv made, (batch, width, pitch).
template <class R>
__global__ void __launch_bounds__(kThreads)
    add_ahead(const State<R> s, const Square square, const R* const made) {
  const std::int64_t part = blockIdx.x % square.parts;
  const auto place = s.place(blockIdx.x / square.parts);
  if (!place.exists) return;
#pragma unroll
  for (int i = threadIdx.x / kLanes; i < kBlock; i += kWarps)
    *s.at(place, square.ahead(part) + i) +=
        made[(place.batch * square.width + part * kBlock + i) * s.pitch + place.channel];
}

// ---- the filter ------------------------------------------------------------------------------------------

// A tile of 32 channels and taps: to the rows as it is, to the first taps turned.
template <class R>
__global__ void __launch_bounds__(kThreads)
    order_taps(const StepFilter size, const Input from, const std::int64_t count, const std::int64_t tiles,
               const std::int64_t pitch, R* const first, R* const rows) {
  __shared__ R tile[kLanes][kLanes + 1];
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const std::int64_t channel = blockIdx.x % tiles * kLanes, tap = blockIdx.x / tiles * kLanes;
#pragma unroll 1
  for (int i = warp; i < kLanes; i += kWarps)
    if (channel + i < size.channels && tap + lane < count) {
      const R value = load_one<R>(from, (channel + i) * from.channel + (tap + lane) * from.position);
      tile[i][lane] = value;
      if (tap + lane < size.row_taps()) rows[(channel + i) * size.row_taps() + tap + lane] = value;
    }
  __syncthreads();
#pragma unroll 1
  for (int i = warp; i < kLanes; i += kWarps)
    if (channel + lane < size.channels && tap + i < std::min(count, size.first_taps()))
      first[(tap + i) * pitch + channel + lane] = tile[lane][i];
}

// ---- launchers -------------------------------------------------------------------------------------------

// The square that ends before `here`; 0: there is none.
std::int64_t square_width(const LongConvStep& n, std::int64_t here) {
  const std::int64_t width = std::min(here & -here, n.filter.widest);
  return here < n.rows && width >= kBlock ? width : 0;
}

cudaError_t launched(std::int64_t blocks, cudaStream_t stream, auto kernel, const auto&... arguments) {
  if (blocks >= std::int64_t(1) << 31) return cudaErrorInvalidValue;
  return Launch{dim3(unsigned(blocks)), dim3(kThreads), 0, stream}(kernel, arguments...);
}

// One call: what it needs, or where it has a workspace, its launches.
template <class R>
class Steps {
 public:
  Steps(const LongConvStep& n, const LongConvStepTensors& a)
      : a_(a),
        state_{n, n.filter.pitch(kLanesOfLine<R>), (n.filter.channels + kLanes - 1) / kLanes,
               static_cast<R*>(a.buffer), static_cast<const R*>(a.filter)} {}

  std::int64_t workspace() const {
    std::int64_t most = 0;
    const auto need = [&](std::int64_t here) {
      if (const std::int64_t width = square_width(state_.n, here); width > kWidestOfProducts)
        most = std::max(most, Transformed(*this, here, width, nullptr).used());
    };
    if (!state_.n.tokens) need(state_.n.position);
    for (std::int64_t here = next_block(state_.n.position); here <= end(); here = next_block(here))
      need(here);
    return most;
  }

  cudaError_t run(void* workspace, cudaStream_t stream) const {
    const LongConvStep& n = state_.n;
    if (!n.tokens) return square(n.position, workspace, stream);
    for (std::int64_t here = n.position; here < end();) {
      const std::int64_t until = std::min(next_block(here), end());
      if (const cudaError_t e =
              launched(n.batch * state_.tiles, stream, take_tokens<R>, state_, a_.x, a_.pre_gate,
                       a_.post_gate, a_.y, here - n.position, int(until - here)))
        return e;
      here = until;
      if (const cudaError_t e = square(here, workspace, stream)) return e;
    }
    return cudaSuccess;
  }

 private:
  std::int64_t end() const { return state_.n.position + state_.n.tokens; }
  static std::int64_t next_block(std::int64_t here) { return (here / kBlock + 1) * kBlock; }

  cudaError_t square(std::int64_t here, void* workspace, cudaStream_t stream) const {
    const LongConvStep& n = state_.n;
    const std::int64_t width = square_width(n, here);
    if (!width) return cudaSuccess;
    const Square square{here, width, std::min(width, n.rows - here) / kBlock};
    const std::int64_t blocks = n.batch * state_.tiles * square.parts;
    if (width <= kWidestOfProducts) return launched(blocks, stream, add_products<R>, state_, square);
    const Transformed made(*this, here, width, workspace);
    if (const cudaError_t e = fft_conv_forward(made.size, made.arrays, made.rest, stream)) return e;
    return launched(blocks, stream, add_ahead<R>, state_, square, made.y);
  }

  // A square as a call of fft_conv: its inputs with taps 1 … 2 width - 1.
  struct Transformed {
    FftConv size;
    FftConvForward arrays{};
    Workspace workspace;
    R* y;
    void* rest = nullptr;  // what fft_conv works in

    Transformed(const Steps& of, std::int64_t here, std::int64_t width, void* memory)
        : size{of.state_.n.batch, of.state_.n.filter.channels, width,
               2 * width - 1,     Mode::bidirectional,         true},
          workspace{static_cast<char*>(memory)},
          y(workspace.take<R>(size.batch * width * of.state_.pitch)) {
      const LongConvStep& n = of.state_.n;
      const std::int64_t pitch = of.state_.pitch;
      const DType dtype = of.a_.dtype;
      arrays.x = {of.state_.buffer + (here - width) * pitch, dtype, n.rows * pitch, 1, pitch};
      arrays.filter = {of.state_.taps + n.filter.first_taps() * pitch + 1, dtype, 0, n.filter.row_taps(), 1};
      arrays.y = {y, dtype, width * pitch, 1, pitch};
      rest = workspace.take<char>(fft_conv_forward_workspace(size, arrays));
    }
    std::int64_t used() const { return workspace.used; }
  };

  LongConvStepTensors a_;
  State<R> state_;
};

template <class R>
cudaError_t order(const StepFilter& size, const StepTaps& a, cudaStream_t stream) {
  const std::int64_t tiles = (size.channels + kLanes - 1) / kLanes, pitch = size.pitch(kLanesOfLine<R>);
  const std::int64_t count = std::min(a.count, std::max(size.first_taps(), size.row_taps()));
  R* const first = static_cast<R*>(a.prepared);
  return launched(tiles * ((count + kLanes - 1) / kLanes), stream, order_taps<R>, size, a.taps, count, tiles,
                  pitch, first, first + size.first_taps() * pitch);
}

// Calls f with a number of the type that is computed in.
auto with_arithmetic(DType dtype, auto f) { return dtype == DType::float64 ? f(double()) : f(float()); }

}  // namespace

std::int64_t long_conv_step_workspace(const LongConvStep& n, const LongConvStepTensors& a) {
  return with_arithmetic(a.dtype, [&](auto r) { return Steps<decltype(r)>(n, a).workspace(); });
}
cudaError_t long_conv_step(const LongConvStep& n, const LongConvStepTensors& a, void* workspace,
                           cudaStream_t stream) {
  return with_arithmetic(a.dtype, [&](auto r) { return Steps<decltype(r)>(n, a).run(workspace, stream); });
}
std::int64_t long_conv_step_filter_workspace(const StepFilter&, const StepTaps&) { return 0; }
cudaError_t long_conv_step_filter(const StepFilter& size, const StepTaps& a, void*, cudaStream_t stream) {
  return with_arithmetic(a.taps.dtype, [&](auto r) { return order<decltype(r)>(size, a, stream); });
}

}  // namespace equiconv::cuda
