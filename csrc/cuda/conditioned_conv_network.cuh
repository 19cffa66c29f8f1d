// The conditioning network of conditioned_conv on spectra of one row (half_spectra.cuh): what it is told of a
// call, H of query and key, and back.
#pragma once
#include "../conditioned_conv.h"
#include "half_spectra_blocks.cuh"

namespace equiconv::cuda {

constexpr int kMaxWidth = int(ConditionedConv::kMaxWidth);
constexpr int kWeights = kMaxWidth + 2;  // taps, bias, skip

struct ConditionedPlan : RowPlan<ConditionedConv> {
  bool wide_filter = false;
};

// A block's rows, and the weights of their channel.
template <class R>
struct Channel : BlockRows<ConditionedPlan> {
  R* weights;  // in shared memory

  __device__ Channel(const ConditionedPlan& plan, R* weights)
      : BlockRows<ConditionedPlan>(plan), weights(weights) {}

  __device__ void load_weights(const Input& taps, const Input& bias, const Input& skip) const {
    for (int j = threadIdx.x; j < kWeights; j += blockDim.x) {
      R w = 0;
      if (j < plan.size.width) w = load_one<R>(taps, channel * taps.channel + j * taps.position);
      else if (j == kMaxWidth && bias.data) w = load_one<R>(bias, channel * bias.channel);
      else if (j == kMaxWidth + 1 && skip.data) w = load_one<R>(skip, channel * skip.channel);
      weights[j] = w;
    }
  }
  // A signal's, or the static filter's.
  template <class Void>
  __device__ Row<Void> row(const Array<Void>& a, std::int64_t batch, bool filter = false) const {
    if (!filter) return BlockRows<ConditionedPlan>::row(a, batch);
    return row_at(a, channel * a.channel, int(plan.size.taps), plan.wide_filter);
  }
};

// a <- the conditioning signal, of Q and, with a key, of K. a may lie where Q does.
template <class R>
__device__ __forceinline__ void condition(const HalfSpectra<R>& spectra, const Complex<R>* query,
                                          const Complex<R>* key, bool keyed, Complex<R>* a) {
  spectra.for_each_two([&](int f, Complex<R> w) {
    Two<R> q = spectra.get(query, f, w);
    if (keyed) {
      const Two<R> k = spectra.get(key, f, w);
      q = {conj(k.near) * q.near, conj(k.far) * q.far};
    } else {
      const auto magnitude = [](Complex<R> z) { return Complex<R>{sqrt(z.re * z.re + z.im * z.im), R(0)}; };
      q = {magnitude(q.near), magnitude(q.far)};
    }
    spectra.keep(a, f, q);
  });
}

// Frequency i of a spectrum that goes on beyond its ends.
template <class R>
__device__ __forceinline__ Complex<R> continued(const Complex<R>* x, int n, int i) {
  const int inside = i < 0 ? -i : i > n ? 2 * n - i : i;
  const Complex<R> z = x[padded(inside)];
  return inside == i ? z : conj(z);
}

// H[f] + skip
template <class R>
__device__ __forceinline__ Complex<R> filter_at(const Channel<R>& of, const Complex<R>* a, int n, int f) {
  const ConditionedConv& size = of.plan.size;
  const R bias = of.weights[kMaxWidth];
  Complex<R> h = {bias + of.weights[kMaxWidth + 1], size.keyed ? bias : R(0)};
  const int first = f + int(size.width) / 2;
  for (int j = 0; j < size.width; ++j) {
    const Complex<R> z = continued(a, n, first - j);
    const R w = of.weights[j];
    h = {h.re + w * z.re, h.im + w * z.im};
  }
  return h;
}

// H + skip, and the static filter's spectrum if there is one.
template <class R>
__device__ __forceinline__ Two<R> whole_filter(const HalfSpectra<R>& spectra, const Channel<R>& of,
                                               const Complex<R>* a, const Complex<R>* statics, int f,
                                               Complex<R> w) {
  const int n = spectra.n;
  const Two<R> h = {filter_at(of, a, n, f), filter_at(of, a, n, n - f)};
  if (!statics) return h;
  const Two<R> fixed = spectra.get(statics, f, w);
  return {h.near + fixed.near, h.far + fixed.far};
}

// The gradient of a[f] (times the length, over 2 if it counts twice), of that of H.
template <class R>
__device__ __forceinline__ Complex<R> gradient_at(const Channel<R>& of, const Complex<R>* gradient, int n,
                                                  int f) {
  const int width = int(of.plan.size.width), half = width / 2;
  const auto gather = [&](int from) {  // of what read place `from` of the spectrum that goes on
    Complex<R> sum{};
    for (int j = 0; j < width; ++j) {
      const int i = from + j - half;
      if (i < 0 || i > n) continue;
      const Complex<R> z = gradient[padded(i)];
      const R w = of.weights[j];
      sum = {sum.re + w * z.re, sum.im + w * z.im};
    }
    return sum;
  };
  Complex<R> sum = gather(f);
  if (f == 0 || f == n) return {R(2) * sum.re, R(2) * sum.im};
  if (f < kMaxWidth) sum = sum + conj(gather(-f));
  if (n - f < kMaxWidth) sum = sum + conj(gather(2 * n - f));
  return sum;
}

}  // namespace equiconv::cuda
