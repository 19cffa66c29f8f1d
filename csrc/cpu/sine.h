// Sines and cosines of vectors. In float32 within 1.5e-7 of the exact ones, at any argument; in float64 by
// the C library, lane by lane.
#pragma once
#include <algorithm>
#include <cmath>

#include "activations.h"

namespace {

template <class T>
struct SineCosine {
  Vec<T> sine, cosine;
};

// Up to here three parts of a quarter turn are enough: the products of the first two with a number of quarter
// turns are exact.
constexpr float kMostByParts = 6000.0f;

// v = n quarter turns + r, |r| <= 1/8 turn. n is what 1.5 * 2^23 rounds away, and stays in that sum's lower
// bits.
EQUICONV_INLINE SineCosine<float> sine_cosine(Vec<float> v) {
  constexpr float kRound = 12582912.0f, kHigh = 1.5703125f, kMiddle = 4.837512969970703e-4f,
                  kLow = 7.54979e-8f;
  constexpr float kSine[] = {-0.16666655f, 0.008332176f, -0.00019516978f},
                  kCosine[] = {0.041666646f, -0.0013887364f, 2.443809e-05f};
  const Vec<float> shifted = v * 0.636619772f + kRound, n = shifted - kRound;
  const Vec<float> r = ((v - n * kHigh) - n * kMiddle) - n * kLow, square = r * r;
  const Vec<float> sine = r + r * square * horner(kSine, square);
  const Vec<float> cosine = 1.0f - 0.5f * square + square * square * horner(kCosine, square);
  const IntBits turns = (IntBits)shifted;
  const IntBits odd = (turns & 1) != 0;
  const Vec<float> s = odd ? cosine : sine, c = odd ? sine : cosine;
  return {(Vec<float>)((IntBits)s ^ ((turns & 2) << 30)),
          (Vec<float>)((IntBits)c ^ (((turns + 1) & 2) << 30))};
}
EQUICONV_INLINE SineCosine<double> sine_cosine(Vec<double> v) {
  return {each(v, [](double a) { return std::sin(a); }), each(v, [](double a) { return std::cos(a); })};
}

// Of `count` numbers, whole vectors; a null `cosine` is left out.
template <class T>
void sines(const T* angle, std::int64_t count, T* sine, T* cosine) {
  constexpr std::int64_t W = kLanes<T>;
  Vec<T> most = {};
  for (std::int64_t i = 0; i < count; i += W) {
    const Vec<T> v = load(angle + i), a = absolute<T>(v);
    most = a > most ? a : most;
    const SineCosine<T> made = sine_cosine(v);
    store(sine + i, made.sine);
    if (cosine) store(cosine + i, made.cosine);
  }
  if constexpr (std::is_same_v<T, float>) {
    bool beyond = false;
    for (int i = 0; i < W; ++i) beyond |= most[i] > kMostByParts;
    if (!beyond) return;
    for (std::int64_t i = 0; i < count; ++i)
      if (std::abs(angle[i]) > kMostByParts) {
        sine[i] = std::sin(angle[i]);
        if (cosine) cosine[i] = std::cos(angle[i]);
      }
  }
}

// e^v, infinity from e^88.4 on, where float32 ends at e^88.7.
EQUICONV_INLINE Vec<float> exponential(Vec<float> v) {
  return exp_of_negative(v > 88.8f ? splat(88.8f) : v, Vec<float>{});
}
EQUICONV_INLINE Vec<double> exponential(Vec<double> v) { return exp_of_negative(v, Vec<double>{}); }

}  // namespace
