// The convolution by its definition: for short rows and short filters, where it beats any transform.
#pragma once
#include "simd.h"

namespace {

// out[t] = sum over j of weights[j] * signal[t + Step * j], t in [0, n). Reads whole vectors of the signal.
template <class T, int Step>
void slide(const T* weights, std::int64_t count, const T* signal, T* out, std::int64_t n) {
  constexpr int W = kLanes<T>, U = 4;
  std::int64_t t = 0;
  for (; t + U * W <= n; t += U * W) {
    Vec<T> sum[U] = {};
    for (std::int64_t j = 0; j < count; ++j) {
      const Vec<T> w = splat(weights[j]);
#pragma GCC unroll 4
      for (int i = 0; i < U; ++i) sum[i] += w * load(signal + t + i * W + Step * j);
    }
#pragma GCC unroll 4
    for (int i = 0; i < U; ++i) store(out + t + i * W, sum[i]);
  }
  for (; t < n; t += W) {
    Vec<T> sum{};
    for (std::int64_t j = 0; j < count; ++j) sum += splat(weights[j]) * load(signal + t + Step * j);
    if (t + W <= n) store(out + t, sum);
    else
      for (int i = 0; t + i < n; ++i) out[t + i] = sum[i];
  }
}

}  // namespace
