// gate on a GPU.
//
//   y         = X a,      X = x + bias,  a = act⁽ⁿ⁾(u),  u = gate + gate_bias
//   grad x    = v a,      v = grad_out        grad bias      = the sum of grad x but along the channels
//   grad gate = v X a',   a' = act⁽ⁿ⁺¹⁾(u)    grad gate_bias = that of grad gate
//
// A thread takes 16 bytes of every tensor at a time, where they are contiguous and begin at 16 bytes, and the
// activation itself is asked for; else single elements, of any strides, its neighbour in the warp the next.
//
// Without sums a grid strides over the result. With sums a block has 8 warps and
//   channels last       a tile of channels, 16 bytes or one a lane; its warps take the rows of a part in
//   turns; positions last      one channel; its threads take the positions of a part, over all rows.
// Each thread adds what it has itself, the block its threads', and last `add_parts` the blocks': all in an
// order that the sizes alone fix.
//
//   shared memory   a number for each thread and each of the 16 bytes' elements, when a block adds up
//
// What bounds it is memory: 12 bytes an element forward, 20 backward, in float32. Not yet run on a GPU.
#include "gate.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <type_traits>

#include "activations.cuh"
#include "launch.cuh"

namespace equiconv::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kTerms = 32;  // that are added before their sum is added to the total

template <class T>
using Real = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
constexpr int kWidth = 16 / int(sizeof(T));
template <class T>
struct alignas(16) Wide {
  T value[kWidth<T>];
};

// ---- places --------------------------------------------------------------------------------------

// Where one element, or 16 bytes of them, lie in the arrays of a call.
struct Place {
  static constexpr int kArrays = 5;
  std::int64_t offset[kArrays] = {}, channel = 0;
};

// The arrays of one call, forward or backward: what is absent is null.
template <class T>
struct Tensors {
  Gate size;
  std::int64_t elements;
  bool wide, wide_biases;  // 16 bytes at a time: all arrays; both biases, where channels are last
  GateInput x, gate, grad_out;
  GateOutput first, second;  // y; the gradients of x and gate
  GateBias bias, gate_bias;

  // Elements of a tensor that a thread takes at a time.
  __host__ __device__ int held() const { return wide ? kWidth<T> : 1; }

  // Of the element at `index`, counted over all axes; or, with `channel` given, over all others.
  __device__ __forceinline__ Place place(std::int64_t index, std::int64_t channel = -1) const {
    return elements < std::int64_t(1) << 31 ? find(std::uint32_t(index), channel)
                                            : find(std::uint64_t(index), channel);
  }

  __device__ __forceinline__ static void load(Real<T> (&v)[kWidth<T>], const GateInput& a, std::int64_t at) {
    load_wide(v, static_cast<const T*>(a.data) + at);
  }
  __device__ __forceinline__ static void store(const Real<T> (&v)[kWidth<T>], const GateOutput& a,
                                               std::int64_t at) {
    Wide<T> stored;
#pragma unroll
    for (int k = 0; k < kWidth<T>; ++k) stored.value[k] = T(v[k]);
    *reinterpret_cast<Wide<T>*>(static_cast<T*>(a.data) + at) = stored;
  }
  __device__ __forceinline__ static Real<T> load(const GateInput& a, std::int64_t at) {
    return Real<T>(static_cast<const T*>(a.data)[at]);
  }
  __device__ __forceinline__ static void store(Real<T> v, const GateOutput& a, std::int64_t at) {
    static_cast<T*>(a.data)[at] = T(v);
  }
  // A bias that is not in T is in float32. Where there is none, -0, which changes nothing.
  __device__ __forceinline__ static Real<T> load(const GateBias& a, std::int64_t channel) {
    if (!a.data) return Real<T>(-0.0);
    const std::int64_t at = channel * a.stride;
    if (a.dtype == DType::float32) return static_cast<const float*>(a.data)[at];
    return Real<T>(static_cast<const T*>(a.data)[at]);
  }
  // For 16 bytes of elements; `along`: of so many channels.
  __device__ __forceinline__ void load(Real<T> (&v)[kWidth<T>], const GateBias& a, std::int64_t channel,
                                       bool along) const {
    if (a.data && along && wide_biases) {
      if (a.dtype == DType::float32) load_wide(v, static_cast<const float*>(a.data) + channel);
      else load_wide(v, static_cast<const T*>(a.data) + channel);
      return;
    }
    v[0] = load(a, channel);
#pragma unroll
    for (int k = 1; k < kWidth<T>; ++k) v[k] = along ? load(a, channel + k) : v[0];
  }

 private:
  template <class S>
  __device__ __forceinline__ static void load_wide(Real<T> (&v)[kWidth<T>], const S* from) {
#pragma unroll
    for (int k = 0; k < kWidth<T>; k += kWidth<S>) {
      const auto stored = *reinterpret_cast<const Wide<S>*>(from + k);
#pragma unroll
      for (int i = 0; i < kWidth<S> && k + i < kWidth<T>; ++i) v[k + i] = Real<T>(stored.value[i]);
    }
  }
  template <class Index>
  __device__ __forceinline__ Place find(Index index, std::int64_t channel) const {
    Place p;
#pragma unroll 1
    for (int i = size.axes - 1; i >= 0; --i) {
      std::int64_t at = channel;
      if (i != size.channel || channel < 0) {
        const Index length = Index(size.size[i]), rest = index / length;
        at = index - rest * length;
        index = rest;
      }
      p.offset[0] += at * x.stride[i], p.offset[1] += at * gate.stride[i];
      p.offset[2] += at * grad_out.stride[i];
      p.offset[3] += at * first.stride[i], p.offset[4] += at * second.stride[i];
      if (i == size.channel) p.channel = at;
    }
    return p;
  }
};

// ---- what is done at a place -----------------------------------------------------------------------
template <class T>
struct Forward {
  using R = Real<T>;
  static constexpr int W = kWidth<T>;
  const Tensors<T>& t;
  const Activated<R>& act;

  // 16 bytes from p on; channels go along with them or not.
  __device__ __forceinline__ void wide(const Place& p, bool along) const {
    R x[W], gate[W], bias[W], gate_bias[W];
    t.load(x, t.x, p.offset[0]);
    t.load(gate, t.gate, p.offset[1]);
    t.load(bias, t.bias, p.channel, along);
    t.load(gate_bias, t.gate_bias, p.channel, along);
#pragma unroll
    for (int k = 0; k < W; ++k) x[k] = (x[k] + bias[k]) * act.itself(gate[k] + gate_bias[k]).value;
    t.store(x, t.first, p.offset[3]);
  }
  __device__ __forceinline__ void narrow(const Place& p) const {
    const R x = t.load(t.x, p.offset[0]) + t.load(t.bias, p.channel);
    const R u = t.load(t.gate, p.offset[1]) + t.load(t.gate_bias, p.channel);
    t.store(x * act(u).value, t.first, p.offset[3]);
  }
};

template <class T>
struct Backward {
  using R = Real<T>;
  static constexpr int W = kWidth<T>;
  const Tensors<T>& t;
  const Activated<R>& act;

  // Leaves the gradients of x and gate.
  __device__ __forceinline__ void wide(const Place& p, bool along, R (&x)[W], R (&gate)[W]) const {
    R grad_out[W], bias[W], gate_bias[W];
    t.load(x, t.x, p.offset[0]);
    t.load(gate, t.gate, p.offset[1]);
    t.load(grad_out, t.grad_out, p.offset[2]);
    t.load(bias, t.bias, p.channel, along);
    t.load(gate_bias, t.gate_bias, p.channel, along);
#pragma unroll
    for (int k = 0; k < W; ++k)
      change(x[k], gate[k], grad_out[k], bias[k], act.itself(gate[k] + gate_bias[k]));
    if (t.first.data) t.store(x, t.first, p.offset[3]);
    if (t.second.data) t.store(gate, t.second, p.offset[4]);
  }
  __device__ __forceinline__ void narrow(const Place& p, R& x, R& gate) const {
    x = t.load(t.x, p.offset[0]), gate = t.load(t.gate, p.offset[1]);
    change(x, gate, t.load(t.grad_out, p.offset[2]), t.load(t.bias, p.channel),
           act(gate + t.load(t.gate_bias, p.channel)));
    if (t.first.data) t.store(x, t.first, p.offset[3]);
    if (t.second.data) t.store(gate, t.second, p.offset[4]);
  }
  __device__ __forceinline__ void wide(const Place& p, bool along) const {
    R x[W], gate[W];
    wide(p, along, x, gate);
  }
  __device__ __forceinline__ void narrow(const Place& p) const {
    R x, gate;
    narrow(p, x, gate);
  }

 private:
  __device__ __forceinline__ void change(R& x, R& gate, R grad_out, R bias, const Values<R>& at) const {
    gate = grad_out * (x + bias) * at.next;
    x = grad_out * at.value;
  }
};

// ---- without sums ------------------------------------------------------------------------------------
template <class T, template <class> class Work>
__global__ void __launch_bounds__(kThreads, 1) everywhere(const Tensors<T> t, const Activated<Real<T>> act) {
  const Work<T> work{t, act};
  const bool along = t.size.channel == t.size.axes - 1;
  const std::int64_t tile = kThreads * kWidth<T>;
  for (std::int64_t begin = blockIdx.x * tile; begin < t.elements; begin += gridDim.x * tile) {
    if (t.wide) {
      const std::int64_t at = begin + threadIdx.x * kWidth<T>;
      if (at < t.elements) work.wide(t.place(at), along);
    } else
#pragma unroll 1
      for (int k = 0; k < kWidth<T>; ++k) {
        const std::int64_t at = begin + k * kThreads + threadIdx.x;
        if (at < t.elements) work.narrow(t.place(at));
      }
  }
}

// ---- with sums -----------------------------------------------------------------------------------------

// Sums of blocks: (which of two, part, channel).
template <class R>
struct Parts {
  R* sums;
  std::int64_t parts, channels, terms;  // terms: of a sum; where channels are last rows, else positions

  __device__ std::int64_t begin(std::int64_t part) const { return terms * part / parts; }
  __device__ R& at(int which, std::int64_t part, std::int64_t channel) const {
    return sums[(which * parts + part) * channels + channel];
  }
};

// A sum of many terms, the last few apart.
template <class R, int N>
struct Sum {
  R total[N] = {}, some[N] = {};
  int count = 0;

  __device__ __forceinline__ void add(const R (&v)[N]) {
#pragma unroll
    for (int k = 0; k < N; ++k) some[k] += v[k];
    if (++count == kTerms) add_up();
  }
  __device__ __forceinline__ void add_up() {
#pragma unroll
    for (int k = 0; k < N; ++k) total[k] += some[k], some[k] = 0;
    count = 0;
  }
};

// Channels last: block (tile of channels, part of the rows).
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    sum_rows(const Tensors<T> t, const Activated<Real<T>> act, const Parts<Real<T>> parts) {
  using R = Real<T>;
  constexpr int W = kWidth<T>;
  __shared__ R shared[kWarps][32 * W];
  const Backward<T> work{t, act};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t tile = blockIdx.x / parts.parts, part = blockIdx.x % parts.parts,
                     end = parts.begin(part + 1);
  const int held = t.held();  // channels of a lane
  const std::int64_t first = (tile * 32 + lane) * held;

  Sum<R, W> of_x, of_gate;
  for (std::int64_t row = parts.begin(part) + warp; row < end; row += kWarps) {
    R x[W] = {}, gate[W] = {};
    if (first < parts.channels) {
      const Place p = t.place(row, first);
      if (t.wide) work.wide(p, true, x, gate);
      else work.narrow(p, x[0], gate[0]);
    }
    of_x.add(x), of_gate.add(gate);
  }

#pragma unroll
  for (int which = 0; which < 2; ++which) {
    Sum<R, W>& sum = which ? of_gate : of_x;
    sum.add_up();
    if (which) __syncthreads();  // readers of the first sums
#pragma unroll
    for (int k = 0; k < W; ++k) shared[warp][k * 32 + lane] = sum.total[k];
    __syncthreads();
    if (warp == 0)
#pragma unroll
      for (int k = 0; k < W; ++k) {
        R total = 0;
        for (int w = 0; w < kWarps; ++w) total += shared[w][k * 32 + lane];
        if (k < held && first + k < parts.channels) parts.at(which, part, first + k) = total;
      }
  }
}

// Positions last: block (channel, part of the positions).
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    sum_positions(const Tensors<T> t, const Activated<Real<T>> act, const Parts<Real<T>> parts) {
  using R = Real<T>;
  constexpr int W = kWidth<T>;
  __shared__ R shared[2][kThreads];
  const Backward<T> work{t, act};
  const std::int64_t channel = blockIdx.x / parts.parts, part = blockIdx.x % parts.parts;
  const int step = t.held();

  Sum<R, 2> sums;
  for (std::int64_t i = parts.begin(part) + threadIdx.x; i < parts.begin(part + 1); i += kThreads) {
    const Place p = t.place(i * step, channel);
    R sum[2] = {};
    if (t.wide) {
      R x[W], gate[W];
      work.wide(p, false, x, gate);
#pragma unroll
      for (int k = 0; k < W; ++k) sum[0] += x[k], sum[1] += gate[k];
    } else work.narrow(p, sum[0], sum[1]);
    sums.add(sum);
  }
  sums.add_up();

  shared[0][threadIdx.x] = sums.total[0], shared[1][threadIdx.x] = sums.total[1];
  for (int half = kThreads / 2; half; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half)
      for (int which = 0; which < 2; ++which) shared[which][threadIdx.x] += shared[which][threadIdx.x + half];
  }
  if (threadIdx.x == 0)  // which made them, so there is no barrier between
    for (int which = 0; which < 2; ++which) parts.at(which, part, channel) = shared[which][0];
}

template <class R>
__global__ void __launch_bounds__(kThreads)
    add_parts(const Parts<R> parts, const int which, const GradGateBias to) {
  for (std::int64_t c = blockIdx.x * std::int64_t(kThreads) + threadIdx.x; c < parts.channels;
       c += gridDim.x * std::int64_t(kThreads)) {
    R total = 0;
    for (std::int64_t part = 0; part < parts.parts; ++part) total += parts.at(which, part, c);
    const std::int64_t at = c * to.stride;
    if constexpr (std::is_same_v<R, double>) static_cast<double*>(to.data)[at] = total;
    else if (to.dtype == DType::bfloat16) static_cast<__nv_bfloat16*>(to.data)[at] = __nv_bfloat16(total);
    else if (to.dtype == DType::float16) static_cast<__half*>(to.data)[at] = __half(total);
    else static_cast<float*>(to.data)[at] = total;
  }
}

// ---- launchers -----------------------------------------------------------------------------------------
std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

Launch blocks_of(std::int64_t blocks, cudaStream_t stream) {
  return {dim3(unsigned(std::min<std::int64_t>(blocks, 1 << 20))), dim3(kThreads), 0, stream};
}

template <class T, class Void>
bool is_wide(const GateArray<Void>& a, const Gate& size) {
  if (!a) return true;
  const int last = size.axes - 1;
  bool wide = a.stride[last] == 1 && reinterpret_cast<std::uintptr_t>(a.data) % 16 == 0;
  for (int i = 0; i < last; ++i) wide = wide && a.stride[i] % kWidth<T> == 0;
  return wide;
}

bool is_wide(const GateBias& a) {
  return !a || (a.stride == 1 && reinterpret_cast<std::uintptr_t>(a.data) % 16 == 0);
}

template <class T>
Tensors<T> tensors(const Gate& size, const GateInput& x, const GateInput& gate, const GateInput& grad_out,
                   const GateOutput& first, const GateOutput& second, const GateBias& bias,
                   const GateBias& gate_bias) {
  Tensors<T> t{size,   1,    false,    is_wide(bias) && is_wide(gate_bias), x, gate, grad_out, first,
               second, bias, gate_bias};
  for (int i = 0; i < size.axes; ++i) t.elements *= size.size[i];
  t.wide = size.order == 0 && size.size[size.axes - 1] % kWidth<T> == 0 && is_wide<T>(x, size) &&
           is_wide<T>(gate, size) && is_wide<T>(grad_out, size) && is_wide<T>(first, size) &&
           is_wide<T>(second, size);
  return t;
}

// How the sums of a call are cut: as few parts as give enough blocks for any GPU, of 64 terms at least.
template <class T>
Parts<Real<T>> parts_of(const Tensors<T>& t, void* workspace) {
  const bool along = t.size.channel == t.size.axes - 1;
  const std::int64_t channels = t.size.size[t.size.channel], terms = t.elements / channels;
  const std::int64_t each = along ? 64 : kThreads,
                     tiles = along ? quotient_up(channels, 32 * t.held()) : channels;
  const std::int64_t counted = along ? terms : terms / t.held();
  const std::int64_t parts =
      std::clamp<std::int64_t>(quotient_up(2048, tiles), 1, std::max<std::int64_t>(counted / each, 1));
  return {static_cast<Real<T>*>(workspace), parts, channels, counted};
}

template <class T>
cudaError_t run(const Gate& size, const GateForward& a, void*, cudaStream_t stream) {
  const Tensors<T> t = tensors<T>(size, a.x, a.gate, {}, a.y, {}, a.bias, a.gate_bias);
  return blocks_of(quotient_up(t.elements, kThreads * kWidth<T>), stream)(everywhere<T, Forward>, t,
                                                                          Activated<Real<T>>(size));
}

template <class T>
Tensors<T> tensors(const Gate& size, const GateBackward& a) {
  return tensors<T>(size, a.x, a.gate, a.grad_out, a.grad_x, a.grad_gate, a.bias, a.gate_bias);
}

template <class T>
cudaError_t run(const Gate& size, const GateBackward& a, void* workspace, cudaStream_t stream) {
  const Tensors<T> t = tensors<T>(size, a);
  const Activated<Real<T>> act(size);
  if (!a.grad_bias && !a.grad_gate_bias)
    return blocks_of(quotient_up(t.elements, kThreads * kWidth<T>), stream)(everywhere<T, Backward>, t, act);
  const auto parts = parts_of(t, workspace);
  const bool along = size.channel == size.axes - 1;
  const std::int64_t tiles = along ? quotient_up(parts.channels, 32 * t.held()) : parts.channels;
  if (tiles * parts.parts >= std::int64_t(1) << 31) return cudaErrorInvalidValue;
  const Launch launch{dim3(unsigned(tiles * parts.parts)), dim3(kThreads), 0, stream};
  if (const cudaError_t e =
          along ? launch(sum_rows<T>, t, act, parts) : launch(sum_positions<T>, t, act, parts))
    return e;
  const GradGateBias grads[] = {a.grad_bias, a.grad_gate_bias};
  for (int which = 0; which < 2; ++which)
    if (grads[which])
      if (const cudaError_t e = blocks_of(quotient_up(parts.channels, kThreads), stream)(
              add_parts<Real<T>>, parts, which, grads[which]))
        return e;
  return cudaSuccess;
}

// Calls f with a null pointer to the stored type.
template <class F>
auto with_stored_type(DType dtype, F f) {
  switch (dtype) {
    case DType::float64: return f(static_cast<double*>(nullptr));
    case DType::bfloat16: return f(static_cast<__nv_bfloat16*>(nullptr));
    case DType::float16: return f(static_cast<__half*>(nullptr));
    default: return f(static_cast<float*>(nullptr));
  }
}

}  // namespace

std::int64_t gate_forward_workspace(const Gate&, const GateForward&) { return 0; }
std::int64_t gate_backward_workspace(const Gate& size, const GateBackward& a) {
  if (!a.grad_bias && !a.grad_gate_bias) return 0;
  return with_stored_type(a.x.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto parts = parts_of(tensors<T>(size, a), nullptr);
    return 2 * parts.parts * parts.channels * std::int64_t(sizeof(Real<T>));
  });
}
cudaError_t gate_forward(const Gate& size, const GateForward& a, void* workspace, cudaStream_t stream) {
  return with_stored_type(a.x.dtype, [&](auto* type) {
    return run<std::remove_pointer_t<decltype(type)>>(size, a, workspace, stream);
  });
}
cudaError_t gate_backward(const Gate& size, const GateBackward& a, void* workspace, cudaStream_t stream) {
  return with_stored_type(a.x.dtype, [&](auto* type) {
    return run<std::remove_pointer_t<decltype(type)>>(size, a, workspace, stream);
  });
}

}  // namespace equiconv::cuda
