// Activations and their derivatives on vectors. In float32 to 3 units in the last place of the result (gelu
// 6), tails included; in float64 by the C library, lane by lane.
//
// Everything is made of e^-|u| (or e^-u²/2), which cannot overflow and loses nothing where it is small.
#pragma once
#include <cmath>
#include <cstdint>

#include "../gate.h"
#include "simd.h"

namespace {

using equiconv::Activation;
using equiconv::kGateOrder;
using equiconv::LogisticDerivatives;

typedef std::int32_t IntBits __attribute__((vector_size(kVectorBytes)));

template <class T>
EQUICONV_INLINE Vec<T> absolute(Vec<T> v) {
  return v < T(0) ? -v : v;  // -0 stays: only magnitudes are wanted
}

template <class T, int N>
EQUICONV_INLINE Vec<T> horner(const T (&coefficient)[N], Vec<T> v) {
  Vec<T> sum = splat(coefficient[N - 1]);
#pragma GCC unroll 16
  for (int k = N - 2; k >= 0; --k) sum = sum * v + coefficient[k];
  return sum;
}

template <class F>
EQUICONV_INLINE Vec<double> each(Vec<double> v, F f) {
  for (int i = 0; i < kLanes<double>; ++i) v[i] = f(v[i]);
  return v;
}

// e^(a + b) for a <= 0 and |b| so small that a + b may round to a. NaN stays NaN; below 2^-126 it is 0.
EQUICONV_INLINE Vec<float> exp_of_negative(Vec<float> a, Vec<float> b) {
  // a = n log 2 + r; n is what 1.5 * 2^23 rounds away, and stays in that sum's lower bits.
  constexpr float kRound = 12582912.0f, kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
  constexpr float kExp[] = {0.5f, 0.16666518f, 0.041666206f, 0.0083688898f, 0.001395049f};
  const Vec<float> shifted = a * 1.44269504f + kRound, n = shifted - kRound;
  const Vec<float> r = (a - n * kLog2High) - n * kLog2Low + b;
  const Vec<float> power = 1.0f + (r + r * r * horner(kExp, r));
  const IntBits exponent = ((IntBits)shifted - bit_copy<std::int32_t>(kRound) + 127) << 23;
  return a < -87.3f ? Vec<float>{} : power * (Vec<float>)exponent;
}
EQUICONV_INLINE Vec<double> exp_of_negative(Vec<double> a, Vec<double> b) {
  return each(a + b, [](double v) { return std::exp(v); });
}

// ---- the logistic function s(u) and s(-u) = 1 - s(u) -----------------------------------------------
template <class T>
struct Logistic {
  Vec<T> s, rest;
  EQUICONV_INLINE explicit Logistic(Vec<T> u) {
    const Vec<T> e = exp_of_negative(-absolute<T>(u), Vec<T>{}), large = T(1) / (T(1) + e), small = e * large;
    s = u < T(0) ? small : large;
    rest = u < T(0) ? large : small;
  }
};

// ---- the normal distribution: density and P(X <= u) --------------------------------------------------
template <class T>
struct Normal {
  Vec<T> density, below;
  EQUICONV_INLINE explicit Normal(Vec<T> u) {
    Vec<T> a = absolute<T>(u);
    a = a > T(40) ? splat(T(40)) : a;  // P and density are 0 long before, and infinity would make a NaN
    const Vec<T> e = gaussian(a), tail = upper(a, e);
    density = e * T(0.398942280401432678);
    below = u < T(0) ? tail : T(1) - tail;
  }

 private:
  // e^(-a²/2): the square's rounding would show in the tail, so a is cut in two, the first half's exact.
  static EQUICONV_INLINE Vec<float> gaussian(Vec<float> a) {
    const Vec<float> high = (Vec<float>)((IntBits)a & ~0xfff);
    return exp_of_negative(-0.5f * high * high, -0.5f * (a - high) * (a + high));
  }
  static EQUICONV_INLINE Vec<double> gaussian(Vec<double> a) {
    return each(a, [](double v) { return std::exp(-0.5 * v * v); });
  }
  // P(X > a) = e R(a), R a polynomial in (a - 4) / (a + 4), over a + 4.
  static EQUICONV_INLINE Vec<float> upper(Vec<float> a, Vec<float> e) {
    constexpr float kRatio[] = {0.75528514f,    -0.60789657f,   0.38713691f,    -0.18652344f,
                                0.060403831f,   -0.0075252713f, -0.0035125539f, 0.0015699236f,
                                0.00017933435f, -0.00013197178f};
    const Vec<float> inverse = 1.0f / (a + 4.0f);
    return e * (horner(kRatio, (a - 4.0f) * inverse) * inverse);
  }
  static EQUICONV_INLINE Vec<double> upper(Vec<double> a, Vec<double>) {
    return each(a, [](double v) { return 0.5 * std::erfc(v * 0.707106781186547524); });
  }
};

// ---- tanh ----------------------------------------------------------------------------------------------
template <class T>
struct Tanh {
  Vec<T> value, slope;
  EQUICONV_INLINE explicit Tanh(Vec<T> u) {
    const Vec<T> a = absolute<T>(u), e = exp_of_negative(T(-2) * a, Vec<T>{}), inverse = T(1) / (T(1) + e);
    slope = T(4) * e * inverse * inverse;
    value = of(u, a, T(1) - T(2) * e * inverse);
  }

 private:
  static EQUICONV_INLINE Vec<float> of(Vec<float> u, Vec<float> a, Vec<float> large) {
    constexpr float kOdd[] = {-0.33333281f, 0.13331442f, -0.053739715f, 0.020639088f, -0.0057049873f};
    const Vec<float> square = u * u, small = u + u * square * horner(kOdd, square);
    return a < 0.625f ? small : (u < 0.0f ? -large : large);
  }
  static EQUICONV_INLINE Vec<double> of(Vec<double> u, Vec<double>, Vec<double>) {
    return each(u, [](double v) { return std::tanh(v); });
  }
};

// ---- an activation and the next derivative: what a kernel calls -----------------------------------------
template <class T>
struct Values {
  Vec<T> value, next;
};

// The activation itself and its first derivative. Made for a call, with what it needs to know.
template <class T, Activation A>
struct Activated {
  EQUICONV_INLINE Values<T> operator()(Vec<T> u) const {
    if constexpr (A == Activation::identity) return {u, splat(T(1))};
    else if constexpr (A == Activation::relu)  // NaN stays NaN
      return {u <= T(0) ? Vec<T>{} : u, u <= T(0) ? Vec<T>{} : splat(T(1))};
    else if constexpr (A == Activation::sigmoid) {
      const Logistic<T> at(u);
      return {at.s, at.s * at.rest};
    } else if constexpr (A == Activation::silu) {
      const Logistic<T> at(u);
      return {u * at.s, at.s * (T(1) + u * at.rest)};
    } else if constexpr (A == Activation::gelu) {
      const Normal<T> at(u);
      return {u * at.below, at.below + u * at.density};
    } else {
      const Tanh<T> at(u);
      return {at.value, at.slope};
    }
  }
};

// Derivatives of order n >= 1 and n + 1 of any activation.
template <class T>
class Derivatives {
 public:
  Derivatives(Activation activation, int n) : activation_(activation), n_(n) {
    const auto table = LogisticDerivatives::around(n);
    for (int i = 0; i < 3; ++i)
      for (int k = 0; k < LogisticDerivatives::kTerms; ++k) table_[i][k] = T(table.coefficient[i][k]);
  }

  // One for all: nobody asks for these often enough to have a loop of them each.
  __attribute__((noinline)) Values<T> operator()(Vec<T> u) const {
    switch (activation_) {
      case Activation::identity: return {splat(T(n_ == 1)), Vec<T>{}};
      case Activation::relu: return {n_ == 1 ? (u <= T(0) ? Vec<T>{} : splat(T(1))) : Vec<T>{}, Vec<T>{}};
      case Activation::sigmoid: return {logistic(0, u), logistic(1, u)};
      case Activation::silu:  // (u s)⁽ⁿ⁾ = u s⁽ⁿ⁾ + n s⁽ⁿ⁻¹⁾
        return {u * logistic(0, u) + T(n_) * logistic(-1, u),
                u * logistic(1, u) + T(n_ + 1) * logistic(0, u)};
      case Activation::tanh: {  // 2 s(2u) - 1
        const T scale = T(std::int64_t(2) << n_);
        return {scale * logistic(0, T(2) * u), T(2) * scale * logistic(1, T(2) * u)};
      }
      default: return normal(u);
    }
  }

 private:
  // s⁽ⁿ⁺ⁱ⁾(u), from s(-|u|): there the polynomial does not cancel. Odd orders are even functions.
  EQUICONV_INLINE Vec<T> logistic(int i, Vec<T> u) const {
    const Logistic<T> at(u);
    if (n_ + i == 0) return at.s;
    const Vec<T> s = u < T(0) ? at.s : at.rest;
    Vec<T> sum{};
    for (int k = n_ + i + 1; k >= 0; --k) sum = sum * s + table_[i + 1][k];
    return (n_ + i) % 2 ? sum : (u < T(0) ? sum : -sum);
  }
  // P(X <= u)⁽ᵐ⁾ = (-1)ᵐ⁻¹ H_(m-1)(u) density, H_(k+1) = u H_k - k H_(k-1), and so for u P(X <= u)
  EQUICONV_INLINE Values<T> normal(Vec<T> u) const {
    const Normal<T> at(u);
    Vec<T> before{}, hermite = splat(T(1));  // H_(k-1), H_k
    Vec<T> value = at.below + u * at.density, next{};
    for (int k = 0;; ++k) {  // of order k + 2: (-1)ᵏ ((k + 2) H_k - u H_(k+1)) density
      const Vec<T> after = u * hermite - T(k) * before;
      const Vec<T> derivative = (T(k + 2) * hermite - u * after) * at.density;
      next = k % 2 ? -derivative : derivative;
      if (k + 1 == n_) return {value, next};
      value = next, before = hermite, hermite = after;
    }
  }

  Activation activation_;
  int n_;
  T table_[3][LogisticDerivatives::kTerms];
};

}  // namespace
