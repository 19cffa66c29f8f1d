// fft_conv's tensors, 16 points of one row at a time.
//
// Loading converts, gates and pads with zeros, storing weighs, gates and rounds once. Where every tensor's
// rows are contiguous and begin at 16 bytes, a thread reads and writes 16 bytes at a time; else single
// elements, any strides, and its neighbour in the warp has the next position (or, in a channels-last
// layout, the next channel), so that a warp's accesses fall together. The stored dtype is a branch around
// 16 loads, not a template parameter: one kernel serves every dtype.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../fft_conv.h"
#include "ring_transform.cuh"

namespace equiconv::cuda {

// Calls f with a null `const T*`, T the stored type. Half types are computed in float32.
template <class R, class F>
__device__ __forceinline__ void with_stored_type(DType dtype, F f) {
  if constexpr (sizeof(R) == sizeof(double)) f(static_cast<const double*>(nullptr));
  else if (dtype == DType::bfloat16) f(static_cast<const __nv_bfloat16*>(nullptr));
  else if (dtype == DType::float16) f(static_cast<const __half*>(nullptr));
  else f(static_cast<const float*>(nullptr));
}

template <class T>
struct alignas(16) Wide {
  static constexpr int kWidth = 16 / int(sizeof(T));
  T value[kWidth];
};

// Where 16 points lie: the row's batch entry and channel, the first point's position, and how far it is
// from there to the next point, or, of a wide span, to the next 16 bytes of points; and how many of these
// steps lie inside the row. The others are padding, and all are where a block has more rows than are left.
struct Span {
  std::int64_t batch, channel;
  int first, far, count;
  bool wide, exists;
};

// How many of the places first, first + far, ... lie below `end`.
__device__ __forceinline__ int steps_below(int end, int first, int far) {
  const int inside = end - 1 - first;
  return inside >= 0 ? min(inside / far + 1, kGroup) : 0;
}

template <class Void>
__device__ __forceinline__ std::int64_t offset_of(const Array<Void>& a, const Span& s) {
  return s.batch * a.batch + s.channel * a.channel + s.first * a.position;
}

template <class R>
__device__ __forceinline__ void load(R (&v)[kGroup], const Input& a, const Span& s) {
  with_stored_type<R>(a.dtype, [&](auto type) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    constexpr int kWidth = Wide<T>::kWidth;
    const T* p = static_cast<const T*>(a.data) + offset_of(a, s);
    const std::int64_t stride = s.far * a.position;
    if (!s.wide) {
#pragma unroll
      for (int k = 0; k < kGroup; ++k, p += stride) {
        T stored{};
        if (k < s.count) stored = *p;
        v[k] = R(stored);
      }
      return;
    }
#pragma unroll
    for (int k = 0; k < kGroup; k += kWidth, p += stride) {
      Wide<T> stored{};
      if (k / kWidth < s.count) stored = *reinterpret_cast<const Wide<T>*>(p);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) v[k + i] = R(stored.value[i]);
    }
  });
}
template <class R>
__device__ __forceinline__ void store(const R (&v)[kGroup], const Output& a, const Span& s) {
  with_stored_type<R>(a.dtype, [&](auto type) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    constexpr int kWidth = Wide<T>::kWidth;
    T* p = static_cast<T*>(a.data) + offset_of(a, s);
    const std::int64_t stride = s.far * a.position;
    if (!s.wide) {
#pragma unroll
      for (int k = 0; k < kGroup; ++k, p += stride)
        if (k < s.count) *p = T(v[k]);
      return;
    }
#pragma unroll
    for (int k = 0; k < kGroup; k += kWidth, p += stride) {
      Wide<T> stored;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) stored.value[i] = T(v[k + i]);
      if (k / kWidth < s.count) *reinterpret_cast<Wide<T>*>(p) = stored;
    }
  });
}
template <class R>
__device__ __forceinline__ void multiply_by(R (&v)[kGroup], const Input& a, const Span& s) {
  if (!a.data) return;
  R factor[kGroup];
  load(factor, a, s);
#pragma unroll
  for (int k = 0; k < kGroup; ++k) v[k] *= factor[k];
}
template <class R>
__device__ __forceinline__ R load_one(const Input& a, std::int64_t offset) {
  R v;
  with_stored_type<R>(a.dtype, [&](auto type) { v = R(static_cast<decltype(type)>(a.data)[offset]); });
  return v;
}
template <class R>
__device__ __forceinline__ void store_one(R v, const Output& a, std::int64_t offset) {
  with_stored_type<R>(a.dtype, [&](auto type) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    static_cast<T*>(a.data)[offset] = T(v);
  });
}

// How the taps lie in the filter polynomial: tap j is the real part of point j - ahead, and, from tap
// `first_behind` on, minus the imaginary part of point j + behind; outside 0 ... N-1 it is neither.
struct Lags {
  int ahead, behind, first_behind;

  static Lags of(const FftConv& size, std::int64_t n) {
    const int center = int(size.taps - 1) / 2;
    if (size.mode == Mode::bidirectional) return {center, int(n) - center, 0};
    if (size.mode == Mode::circular) return {0, int(n - size.length), 1};
    return {0, int(n), 0};
  }
};

// One call, forward or backward: what is absent is null.
template <class R>
struct Tensors {
  FftConv size;
  Lags lags;
  int log_n;
  bool over_batch;  // row (id, repeat) is channel `id` of batch entry `repeat`; else `id` counts both
  std::uint32_t ids;
  bool wide, wide_filter;  // all tensors of length L, the filter: read and written 16 bytes at a time
  Input x, filter, pre_gate, post_gate, skip, grad_out;
  Output y, grad_x, grad_filter, grad_pre_gate, grad_post_gate;

  // 16 points of row (id, repeat), from `first` on, `far` apart.
  __device__ Span span(std::uint32_t id, std::int64_t repeat, int first, int far, bool wide) const {
    const auto channels = std::uint32_t(size.channels);
    const bool exists = id < ids;
    const int count = exists ? steps_below(int(size.length), first, far) : 0;
    if (over_batch) return {repeat, id, first, far, count, wide, exists};
    return {id / channels, id % channels, first, far, count, wide, exists};
  }

  __device__ __forceinline__ void load_filter(Group<R>& v, const Span& s) const {
    const std::int64_t row = s.batch * filter.batch + s.channel * filter.channel;
    const int taps = s.exists ? int(size.taps) : 0;
    R part[kGroup];
    if (s.wide) {
      Span inside = s;
      inside.count = steps_below(taps, s.first, s.far);
      load(part, filter, inside);
    } else load_taps(part, row, s.first + lags.ahead, s.far, 0, taps);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) v[k] = {part[k], R(0)};
    if (size.mode == Mode::causal) return;
    load_taps(part, row, s.first - lags.behind, s.far, lags.first_behind, taps);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) v[k].im = -part[k];
  }
  // Taps tap, tap + step, ... as far as they are in [begin, end).
  __device__ __forceinline__ void load_taps(R (&v)[kGroup], std::int64_t row, int tap, int step, int begin,
                                            int end) const {
    with_stored_type<R>(filter.dtype, [&](auto type) {
      using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
      const T* p = static_cast<const T*>(filter.data);
      const std::int64_t stride = step * filter.position;
      std::int64_t at = row + tap * filter.position;
      int j = tap;
#pragma unroll
      for (int k = 0; k < kGroup; ++k, j += step, at += stride) {
        T stored{};
        if (j >= begin && j < end) stored = p[at];
        v[k] = R(stored);
      }
    });
  }
  // u = pre_gate x
  __device__ __forceinline__ void load_signal(R (&u)[kGroup], const Span& s) const {
    load(u, x, s);
    multiply_by(u, pre_gate, s);
  }
  // g = grad_out post_gate
  __device__ __forceinline__ void load_gradient(R (&g)[kGroup], const Span& s) const {
    load(g, grad_out, s);
    multiply_by(g, post_gate, s);
  }

  // skip v, added exactly: it never goes through a transform.
  template <class Load>
  __device__ __forceinline__ void add_skip(R (&to)[kGroup], const Span& s, Load load) const {
    if (!skip.data || !s.count) return;
    const R d = load_one<R>(skip, s.channel * skip.channel);
    R v[kGroup];
    load(v);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) to[k] += d * v[k];
  }
  // y = post_gate (c + skip u)
  __device__ __forceinline__ void store_y(R (&c)[kGroup], const Span& s) const {
    add_skip(c, s, [&](R(&u)[kGroup]) { load_signal(u, s); });
    multiply_by(c, post_gate, s);
    store(c, y, s);
  }
  // grad post_gate = grad_out (c + skip u)
  __device__ __forceinline__ void store_grad_post_gate(R (&c)[kGroup], const Span& s) const {
    add_skip(c, s, [&](R(&u)[kGroup]) { load_signal(u, s); });
    multiply_by(c, grad_out, s);
    store(c, grad_post_gate, s);
  }
  // grad x = pre_gate (correlation + skip g), grad pre_gate = x (correlation + skip g)
  __device__ __forceinline__ void store_grad_signal(R (&correlation)[kGroup], const Span& s) const {
    add_skip(correlation, s, [&](R(&g)[kGroup]) { load_gradient(g, s); });
    if (grad_pre_gate.data) {
      R grad[kGroup];
      load(grad, x, s);
#pragma unroll
      for (int k = 0; k < kGroup; ++k) grad[k] *= correlation[k];
      store(grad, grad_pre_gate, s);
    }
    if (!grad_x.data) return;
    multiply_by(correlation, pre_gate, s);
    store(correlation, grad_x, s);
  }

  // One tap's gradient out of the filter polynomial's, whose point n `at` returns.
  template <class At>
  __device__ __forceinline__ void store_grad_tap(std::uint32_t id, int tap, At at) const {
    const Span s = span(id, 0, 0, 1, false);
    const int ahead = tap - lags.ahead, behind = tap + lags.behind;
    R grad = 0;
    if (ahead >= 0) grad += at(ahead).re;
    if (tap >= lags.first_behind && behind < 1 << log_n) grad -= at(behind).im;
    store_one(grad, grad_filter,
              s.batch * grad_filter.batch + s.channel * grad_filter.channel + tap * grad_filter.position);
  }
};

}  // namespace equiconv::cuda
