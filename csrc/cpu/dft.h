// Discrete Fourier transforms of complex rows, result in natural order (docs/mathematics.md).
//
//   Z[k] = sum over t of z[t] exp(-2 pi i k t / n)
//
// Rows are planar: real and imaginary parts apart. A pass of radix R joins the transforms of R interleaved
// subsequences; it reads R places n/R apart and writes R places l apart, l the product of the radices before
// it, from one buffer to another, so the result comes out sorted. There are two ways to fill vectors:
//
//   Along    vectors of W consecutive points of one row; the first pass, of radix kFirst, transposes
//   Across   a vector holds one point of W rows
//
// and passes after the first are the same code in both: only their factors are vectors, or one for all rows.
// The inverse transform is the forward one with real and imaginary parts exchanged, times 1/n.
#pragma once
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "roots.h"
#include "simd.h"
#include "team.h"

namespace {

// V: a vector, or a scalar.
template <class V>
struct Number {
  V re, im;
};
template <class V>
EQUICONV_INLINE Number<V> operator+(Number<V> a, Number<V> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class V>
EQUICONV_INLINE Number<V> operator-(Number<V> a, Number<V> b) {
  return {a.re - b.re, a.im - b.im};
}
template <class V>
EQUICONV_INLINE Number<V> operator*(Number<V> a, Number<V> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <class V>
EQUICONV_INLINE Number<V> conj(Number<V> a) {
  return {a.re, -a.im};
}
template <class V>
EQUICONV_INLINE Number<V> times_minus_i(Number<V> a) {
  return {a.im, -a.re};
}
template <class T>
inline Number<T> unit(double turns) {  // exp(-2 pi i turns), |turns| not large
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  turns -= std::floor(turns);
  return {T(std::cos(kTwoPi * turns)), T(-std::sin(kTwoPi * turns))};
}

// To a vector: a factor for all lanes, or one for each. (Part by part: GCC 12 copies a pair of vectors in
// halves of vectors, and loads of whole ones then wait for both.)
template <class V, class F>
EQUICONV_INLINE Number<V> factor(const Number<F>& f) {
  if constexpr (std::is_same_v<V, F>) return {f.re, f.im};
  else return {splat(f.re), splat(f.im)};
}

// A row of numbers, or of vectors of them.
template <class T>
struct Plane {
  T *re = nullptr, *im = nullptr;

  Plane exchanged() const { return {im, re}; }
  EQUICONV_INLINE Number<Vec<T>> operator()(std::int64_t vector) const {
    return {load(re + vector * kLanes<T>), load(im + vector * kLanes<T>)};
  }
  EQUICONV_INLINE void operator()(std::int64_t vector, Number<Vec<T>> a) const {
    store(re + vector * kLanes<T>, a.re), store(im + vector * kLanes<T>, a.im);
  }
};

// ---- butterflies: out[j] = sum over m of (z w^j)^m in[m], w = exp(-2 pi i / R) ----------------------------
// For R a power of two by halves: a polynomial of degree below S modulo x^S - r^2 to its remainders modulo
// x^(S/2) - r and x^(S/2) + r. Block J of the R/S of a level has r = z^(S/2) w^(J S/2); those of the second
// half of a level are -i times those of the first, so R/2 factors are kept.

constexpr bool is_power_of_two(int n) { return (n & (n - 1)) == 0; }
constexpr int factor_count(int radix) { return is_power_of_two(radix) ? radix / 2 : radix - 1; }

// factors(…)[i] for z = exp(-2 pi i t)
inline double factor_turns(int radix, int i, double t) {
  if (!is_power_of_two(radix)) return t * (i + 1);
  int first = 1;  // level S = radix has factor 0, level S < radix factors radix/2S + J
  while (2 * first <= i) first *= 2;
  const int size = i == 0 ? radix : radix / (2 * first), j = i == 0 ? 0 : i - first;
  return size / 2 * (t + double(j) / radix);
}

// (a, c) of block J of level S: to a + r c and a - r c.
template <int R, bool Unit, int S, int J, class V, class F>
EQUICONV_INLINE void split_pair(Number<V>& a, Number<V>& c, const Number<F>* f) {
  constexpr int first = S == R ? 0 : R / (2 * S);
  constexpr bool turned = S < R && J >= first;
  constexpr int index = S == R ? 0 : first + (turned ? J - first : J);
  const Number<V> r = factor<V>(f[index]);
  const Number<V> b = turned ? times_minus_i(c) : c;
  const Number<V> rb = Unit && index == first ? b : r * b;
  c = a - rb;
  a = a + rb;
}
template <int R, bool Unit, int S = R, int J = 0, class V, class F>
EQUICONV_INLINE void split_by_halves(Number<V>* a, const Number<F>* f) {
  if constexpr (S == 8 && !kManyRegisters) {  // two levels of four numbers, so that these stay in registers
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      split_pair<R, Unit, 8, J>(a[j], a[j + 4], f), split_pair<R, Unit, 8, J>(a[j + 2], a[j + 6], f);
      split_pair<R, Unit, 4, J>(a[j], a[j + 2], f), split_pair<R, Unit, 4, J + R / 8>(a[j + 4], a[j + 6], f);
    }
    split_by_halves<R, Unit, 2, J>(a, f), split_by_halves<R, Unit, 2, J + R / 4>(a + 2, f);
    split_by_halves<R, Unit, 2, J + R / 8>(a + 4, f), split_by_halves<R, Unit, 2, J + R * 3 / 8>(a + 6, f);
  } else if constexpr (S > 1) {
    constexpr int half = S / 2;
#pragma GCC unroll 8
    for (int j = 0; j < half; ++j) split_pair<R, Unit, S, J>(a[j], a[j + half], f);
    split_by_halves<R, Unit, half, J>(a, f);
    split_by_halves<R, Unit, half, J + R / S>(a + half, f);
  }
}

// exp(2 pi i j m / R)
template <int R>
struct OddRoots {
  CirclePoint at[R][R] = {};
  constexpr OddRoots() {
    for (int j = 0; j < R; ++j)
      for (int m = 0; m < R; ++m) at[j][m] = circle_point(double(j * m % R) / R);
  }
};
template <int R>
constexpr OddRoots<R> kOddRoots{};

template <int R, bool Unit, class V, class F>
EQUICONV_INLINE void split_odd(Number<V>* a, const Number<F>* f) {
  using T = std::remove_cv_t<std::remove_reference_t<decltype(a[0].re[0])>>;
  constexpr int half = R / 2;
  Number<V> sum[half + 1], difference[half + 1], total = a[0];
#pragma GCC unroll 8
  for (int m = 1; m <= half; ++m) {
    const Number<V> p = Unit ? a[m] : factor<V>(f[m - 1]) * a[m];
    const Number<V> q = Unit ? a[R - m] : factor<V>(f[R - m - 1]) * a[R - m];
    sum[m] = p + q, difference[m] = p - q, total = total + sum[m];
  }
  const Number<V> first = a[0];
  a[0] = total;
#pragma GCC unroll 8
  for (int j = 1; j <= half; ++j) {
    Number<V> even = first, odd{};
#pragma GCC unroll 8
    for (int m = 1; m <= half; ++m) {
      const V c = splat(T(kOddRoots<R>.at[j][m].cosine)), s = splat(T(kOddRoots<R>.at[j][m].sine));
      even.re += c * sum[m].re, even.im += c * sum[m].im;
      odd.re += s * difference[m].im, odd.im -= s * difference[m].re;
    }
    a[j] = even + odd, a[R - j] = even - odd;
  }
}

// a[m] to the places `out(j, …)`.
template <int R, bool Unit, class V, class F, class Out>
EQUICONV_INLINE void butterfly(Number<V>* a, const Number<F>* f, Out out) {
  if constexpr (is_power_of_two(R)) {
    split_by_halves<R, Unit>(a, f);
#pragma GCC unroll 16
    for (int j = 0; j < R; ++j) out(j, a[reversed_bits(j, R)]);
  } else {
    split_odd<R, Unit>(a, f);
#pragma GCC unroll 8
    for (int j = 0; j < R; ++j) out(j, a[j]);
  }
}

// ---- passes ----------------------------------------------------------------------------------------------
// What is done a little at a time beside a transform: next(v) is called with every v pairs of vectors.
struct Nothing {
  EQUICONV_INLINE void next(int) {}
};
inline Nothing nothing;

// Butterflies [begin, end) of vectors / R. F: one factor for each lane, or one for all.
template <int R, bool Unit, class T, class F, class In, class Out, class Beside>
void dft_pass(const In& in, const Out& out, std::int64_t vectors, std::int64_t l, const Number<F>* factors,
              std::int64_t begin, std::int64_t end, Beside& beside) {
  const std::int64_t apart = vectors / R;
  while (begin < end) {
    const std::int64_t r = begin / l, first = begin - r * l, last = std::min(l, first + end - begin);
    for (std::int64_t k = first; k < last; ++k) {
      Number<Vec<T>> a[R];
#pragma GCC unroll 16
      for (int m = 0; m < R; ++m) a[m] = in(k + l * r + m * apart);
      beside.next(R);
      butterfly<R, Unit>(a, factors + k * factor_count(R),
                         [&](int j, Number<Vec<T>> v) { out(k + l * (R * r + j), v); });
    }
    begin += last - first;
  }
}

template <class F>
EQUICONV_INLINE void with_dft_radix(int radix, F f) {
  switch (radix) {
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    case 5: return f(std::integral_constant<int, 5>{});
    case 7: return f(std::integral_constant<int, 7>{});
    case 8: return f(std::integral_constant<int, 8>{});
    default: return f(std::integral_constant<int, 16>{});
  }
}

// Radices whose product is n, as few as registers make worth it, the largest power of two first; empty if n
// has a prime factor above 7 (or is 1).
inline std::vector<int> dft_radices(std::int64_t n) {
  std::vector<int> radices;
  constexpr int most = kManyRegisters ? 4 : 3;  // halvings of a pass
  int halvings = 0;
  for (; n % 2 == 0; n /= 2) ++halvings;
  for (int passes = (halvings + most - 1) / most; passes; --passes) {
    const int step = (halvings + passes - 1) / passes;
    radices.push_back(1 << step), halvings -= step;
  }
  for (int odd : {7, 5, 3})
    for (; n % odd == 0; n /= odd) radices.push_back(odd);
  return n == 1 ? radices : std::vector<int>{};
}
inline bool is_smooth(std::int64_t n) { return n == 1 || !dft_radices(n).empty(); }

enum class Lanes { along, across };

template <class T, Lanes kLanesAre>
class Dft {
  static constexpr bool kAlong = kLanesAre == Lanes::along;
  static constexpr int W = kLanes<T>;

 public:
  using F = std::conditional_t<kAlong, Vec<T>, T>;
  static constexpr int kFirst = W < 4 ? 4 : W;  // radix of the transposing pass

  static bool takes(std::int64_t n) { return (!kAlong || n % (kFirst * W) == 0) && is_smooth(n); }

  explicit Dft(std::int64_t n) : vectors_(kAlong ? n / W : n) {
    std::int64_t l = kAlong ? kFirst : 1;
    if constexpr (kAlong) passes_.push_back({kFirst, 1, constants(kFirst)});
    for (int radix : dft_radices(n / l)) {
      Pass pass{radix, kAlong ? l / W : l, {}};
      for (std::int64_t k = 0; k < pass.l; ++k)
        for (int i = 0; i < factor_count(radix); ++i) pass.factors.push_back(make_factor(radix, i, k, l));
      l *= radix;
      passes_.push_back(std::move(pass));
    }
  }
  std::int64_t vectors() const { return vectors_; }

  // From `in`, which is not changed unless it is a buffer, by way of the buffers a and b to `out`; in, out
  // and a buffer may be one where `passes` says so.
  template <class In, class Out, class Beside = Nothing>
  void operator()(const In& in, Plane<T> a, Plane<T> b, const Out& out, const Team& team,
                  Beside& beside = nothing) const {
    if (passes_.empty()) return out(0, in(0));  // n = 1
    const std::size_t last = passes_.size() - 1;
    if (last == 0) return first(in, out, team, beside);
    first(in, a, team, beside);
    for (std::size_t i = 1; i < last; ++i) pass(i, a, b, team, beside), std::swap(a, b);
    pass(last, a, out, team, beside);
  }
  std::size_t passes() const { return passes_.size(); }

 private:
  struct Pass {
    int radix;
    std::int64_t l;  // in vectors
    std::vector<Number<F>> factors;
  };

  static std::vector<Number<F>> constants(int radix) {
    std::vector<Number<F>> out;
    for (int i = 0; i < factor_count(radix); ++i) out.push_back(make_factor(radix, i, 0, 0));
    return out;
  }
  // Factor i of vector k where l points are joined.
  static Number<F> make_factor(int radix, int i, std::int64_t k, std::int64_t l) {
    const double n = double(std::max<std::int64_t>(l, 1)) * radix;
    if constexpr (kAlong) {
      Number<F> f;
      for (int lane = 0; lane < W; ++lane) {
        const double t = l ? double(k * W + lane) / n : 0;
        const Number<T> u = unit<T>(factor_turns(radix, i, t));
        f.re[lane] = u.re, f.im[lane] = u.im;
      }
      return f;
    } else {
      return unit<T>(factor_turns(radix, i, double(k) / n));
    }
  }

  template <class In, class Out, class Beside>
  void pass(std::size_t i, const In& in, const Out& out, const Team& team, Beside& beside) const {
    const Pass& p = passes_[i];
    with_dft_radix(p.radix, [&](auto radix) {
      team.ranges(vectors_ / radix, [&](std::int64_t begin, std::int64_t end) {
        dft_pass<radix, false, T>(in, out, vectors_, p.l, p.factors.data(), begin, end, beside);
      });
    });
  }
  template <class In, class Out, class Beside>
  void first(const In& in, const Out& out, const Team& team, Beside& beside) const {
    if constexpr (kAlong) {
      const std::int64_t apart = vectors_ / kFirst;
      team.ranges(apart, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t c = begin; c < end; ++c) {
          Number<Vec<T>> a[kFirst];
          Vec<T> re[kFirst], im[kFirst];
#pragma GCC unroll 16
          for (int m = 0; m < kFirst; ++m) a[m] = in(c + m * apart);
          beside.next(kFirst);
          butterfly<kFirst, true>(a, passes_[0].factors.data(),
                                  [&](int j, Number<Vec<T>> v) { re[j] = v.re, im[j] = v.im; });
#pragma GCC unroll 4
          for (int j = 0; j < kFirst; j += W) transpose<T>(re + j), transpose<T>(im + j);
#pragma GCC unroll 16
          for (int j = 0; j < kFirst; ++j)
            out((c * W + j % W) * (kFirst / W) + j / W, Number<Vec<T>>{re[j], im[j]});
        }
      });
    } else {
      with_dft_radix(passes_[0].radix, [&](auto radix) {
        team.ranges(vectors_ / radix, [&](std::int64_t begin, std::int64_t end) {
          dft_pass<radix, true, T>(in, out, vectors_, 1, passes_[0].factors.data(), begin, end, beside);
        });
      });
    }
  }

  std::int64_t vectors_;
  std::vector<Pass> passes_;
};

}  // namespace
