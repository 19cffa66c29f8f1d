// The convolution by its definition: for short rows and short filters, where it beats any transform.
#pragma once
#include <algorithm>

#include "simd.h"

namespace {

// out[t] = sum over j of weights[j] * signal[t + Step * j], t in [0, n). Reads whole vectors of the signal.
// Summed in blocks, so that rounding grows with the root of a block's length, not of the count.
constexpr std::int64_t kSumBlock = 16;

template <class T, int Step, int U>
EQUICONV_INLINE void slide_vectors(const T* weights, std::int64_t count, const T* signal, Vec<T>* total) {
  constexpr int W = kLanes<T>;
  for (int i = 0; i < U; ++i) total[i] = Vec<T>{};
  for (std::int64_t block = 0; block < count; block += kSumBlock) {
    Vec<T> sum[U] = {};
    for (std::int64_t j = block; j < std::min(block + kSumBlock, count); ++j) {
      const Vec<T> w = splat(weights[j]);
#pragma GCC unroll 4
      for (int i = 0; i < U; ++i) sum[i] += w * load(signal + i * W + Step * j);
    }
#pragma GCC unroll 4
    for (int i = 0; i < U; ++i) total[i] += sum[i];
  }
}

template <class T, int Step>
void slide(const T* weights, std::int64_t count, const T* signal, T* out, std::int64_t n) {
  constexpr int W = kLanes<T>, U = 4;
  std::int64_t t = 0;
  Vec<T> total[U];
  for (; t + U * W <= n; t += U * W) {
    slide_vectors<T, Step, U>(weights, count, signal + t, total);
    for (int i = 0; i < U; ++i) store(out + t + i * W, total[i]);
  }
  for (; t < n; t += W) {
    slide_vectors<T, Step, 1>(weights, count, signal + t, total);
    if (t + W <= n) store(out + t, total[0]);
    else store_some<T>(out + t, total[0], int(n - t));
  }
}

}  // namespace
