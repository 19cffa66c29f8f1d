// Products in C[x]/(x^n - i), a vector of rows at a time (docs/mathematics.md).
//
// ring.h has its vectors along a row. Here a vector holds one point of kLanes rows, so nothing is transposed,
// every factor is one for all lanes, and rows that lie side by side, (B, L, D), are read and written in
// place.
//
// Node m of a tree splits polynomials modulo x^n - c_m into those modulo x^(n/2) - c_2m and x^(n/2) + c_2m,
// that is - c_(2m + 1); the root, of c = i, is node 2. Passes take two levels at once, from node m to the
// nodes 4m … 4m + 3. Depth first: a block is split, multiplied and merged again while it is in cache.
#pragma once
#include "dft.h"

namespace {

// Of a pass that splits node m: r = c_4m, r^2 = c_2m, and r^3.
template <class T>
struct SplitRoots {
  Number<T> r1, r2, r3;
};

inline double turns_of_node(std::int64_t m) {  // c_m = exp(2 pi i turns)
  return m ? (turns_of_node(m / 2) + double(m % 2)) / 2 : 0;
}
template <class T>
SplitRoots<T> split_roots(std::int64_t m) {
  const double turns = turns_of_node(m) / 4;
  return {conj(unit<T>(turns)), conj(unit<T>(2 * turns)), conj(unit<T>(3 * turns))};
}

// Rows of points: the real parts of one, then its imaginary parts.
template <class T>
EQUICONV_INLINE Number<Vec<T>> get(const T* z, std::int64_t point) {
  return {load(z + 2 * point * kLanes<T>), load(z + (2 * point + 1) * kLanes<T>)};
}
template <class T>
EQUICONV_INLINE void put(T* z, std::int64_t point, Number<Vec<T>> a) {
  store(z + 2 * point * kLanes<T>, a.re), store(z + (2 * point + 1) * kLanes<T>, a.im);
}

// a1, a2, a3 times r, r^2, r^3 are given; left are the values at the fourth roots 1, -1, i, -i.
template <class V>
EQUICONV_INLINE void split4(Number<V>& a0, Number<V>& a1, Number<V>& a2, Number<V>& a3) {
  const Number<V> even = a0 + a2, less = a0 - a2, odd = a1 + a3, turned = times_minus_i(a1 - a3);
  a0 = even + odd, a1 = even - odd, a2 = less - turned, a3 = less + turned;
}
// The adjoint of split4: back, times 4.
template <class V>
EQUICONV_INLINE void merge4(Number<V>& a0, Number<V>& a1, Number<V>& a2, Number<V>& a3) {
  const Number<V> even = a0 + a1, odd = a0 - a1, less = a2 + a3, turned = times_minus_i(a2 - a3);
  a0 = even + less, a1 = odd + turned, a2 = even - less, a3 = odd - turned;
}

template <class T>
class RingAcross {
  static constexpr int W = kLanes<T>;
  using V = Vec<T>;
  using Z = Number<V>;

 public:
  explicit RingAcross(const SplitRoots<T>* roots) : roots_(roots) {}

  static void fill(SplitRoots<T>* roots, std::int64_t widest) {
    for (std::int64_t m = 0; m < widest; ++m) roots[m] = split_roots<T>(m);
  }

  // From coefficients, low + i high, to the spectrum of a factor; n >= 4 is a power of two.
  void spectrum(T* z, std::int64_t n) const {
    std::int64_t node = 2;
    if (takes_two(n)) split2(z, n), n /= 2, split(z, n, 4), split(z + 2 * W * n, n, 5);
    else split(z, n, node);
  }

  // `out(j, …)` is given the imaginary part of what n real points `in(j)` times n times a factor come to.
  template <class In, class Out>
  void multiply(T* z, std::int64_t n, const T* factor, const In& in, const Out& out) const {
    if (takes_two(n)) {
      const std::int64_t half = n / 2;
      const Number<V> r = splat_of(roots_[1].r1);
      for (std::int64_t j = 0; j < half; ++j) {
        const V a = in(j), b = in(j + half);
        put(z, j, Z{a + r.re * b, r.im * b});
        put(z, j + half, Z{a - r.re * b, -(r.im * b)});
      }
      for (int k = 0; k < 2; ++k) multiply(z + 2 * W * half * k, half, 4 + k, factor + 2 * W * half * k);
      for (std::int64_t j = 0; j < half; ++j) {
        const Z a = get(z, j), b = get(z, j + half), less = a - b;
        out(j, a.im + b.im);
        out(j + half, r.re * less.im - r.im * less.re);
      }
    } else {
      const std::int64_t part = n / 4;
      const Number<V> r1 = splat_of(roots_[2].r1), r2 = splat_of(roots_[2].r2), r3 = splat_of(roots_[2].r3);
      for (std::int64_t j = 0; j < part; ++j) {
        const V b1 = in(j + part), b2 = in(j + 2 * part), b3 = in(j + 3 * part);
        Z a0{in(j), V{}}, a1{r1.re * b1, r1.im * b1}, a2{r2.re * b2, r2.im * b2}, a3{r3.re * b3, r3.im * b3};
        split4(a0, a1, a2, a3);
        put(z, j, a0), put(z, j + part, a1), put(z, j + 2 * part, a2), put(z, j + 3 * part, a3);
      }
      for (int k = 0; k < 4; ++k) multiply(z + 2 * W * part * k, part, 8 + k, factor + 2 * W * part * k);
      for (std::int64_t j = 0; j < part; ++j) {
        Z a0 = get(z, j), a1 = get(z, j + part), a2 = get(z, j + 2 * part), a3 = get(z, j + 3 * part);
        merge4(a0, a1, a2, a3);
        out(j, a0.im);
        out(j + part, r1.re * a1.im - r1.im * a1.re);
        out(j + 2 * part, r2.re * a2.im - r2.im * a2.re);
        out(j + 3 * part, r3.re * a3.im - r3.im * a3.re);
      }
    }
  }

 private:
  static bool takes_two(std::int64_t n) { return __builtin_ctzll(std::uint64_t(n)) % 2; }
  static Number<V> splat_of(const Number<T>& a) { return {splat(a.re), splat(a.im)}; }

  void split2(T* z, std::int64_t n) const {
    const Number<V> r = splat_of(roots_[1].r1);
    for (std::int64_t j = 0; j < n / 2; ++j) {
      const Z a = get(z, j), b = r * get(z, j + n / 2);
      put(z, j, a + b), put(z, j + n / 2, a - b);
    }
  }
  EQUICONV_INLINE void split_pass(T* z, std::int64_t n, std::int64_t node) const {
    const std::int64_t part = n / 4;
    const SplitRoots<T>& r = roots_[node];
    const Number<V> r1 = splat_of(r.r1), r2 = splat_of(r.r2), r3 = splat_of(r.r3);
    for (std::int64_t j = 0; j < part; ++j) {
      Z a0 = get(z, j), a1 = r1 * get(z, j + part), a2 = r2 * get(z, j + 2 * part),
        a3 = r3 * get(z, j + 3 * part);
      split4(a0, a1, a2, a3);
      put(z, j, a0), put(z, j + part, a1), put(z, j + 2 * part, a2), put(z, j + 3 * part, a3);
    }
  }
  void split(T* z, std::int64_t n, std::int64_t node) const {
    if (n == 1) return;
    split_pass(z, n, node);
    for (int k = 0; k < 4; ++k) split(z + 2 * W * (n / 4) * k, n / 4, 4 * node + k);
  }
  void multiply(T* z, std::int64_t n, std::int64_t node, const T* factor) const {
    const std::int64_t part = n / 4;
    const SplitRoots<T>& r = roots_[node];
    if (n == 4) {  // all of it in registers
      const Number<V> r1 = splat_of(r.r1), r2 = splat_of(r.r2), r3 = splat_of(r.r3);
      Z a0 = get(z, 0), a1 = r1 * get(z, 1), a2 = r2 * get(z, 2), a3 = r3 * get(z, 3);
      split4(a0, a1, a2, a3);
      a0 = a0 * get(factor, 0), a1 = a1 * get(factor, 1), a2 = a2 * get(factor, 2), a3 = a3 * get(factor, 3);
      merge4(a0, a1, a2, a3);
      put(z, 0, a0), put(z, 1, conj(r1) * a1), put(z, 2, conj(r2) * a2), put(z, 3, conj(r3) * a3);
      return;
    }
    split_pass(z, n, node);
    for (int k = 0; k < 4; ++k) multiply(z + 2 * W * part * k, part, 4 * node + k, factor + 2 * W * part * k);
    const Number<V> r1 = splat_of(r.r1), r2 = splat_of(r.r2), r3 = splat_of(r.r3);
    for (std::int64_t j = 0; j < part; ++j) {
      Z a0 = get(z, j), a1 = get(z, j + part), a2 = get(z, j + 2 * part), a3 = get(z, j + 3 * part);
      merge4(a0, a1, a2, a3);
      put(z, j, a0), put(z, j + part, conj(r1) * a1), put(z, j + 2 * part, conj(r2) * a2),
          put(z, j + 3 * part, conj(r3) * a3);
    }
  }

  const SplitRoots<T>* roots_;
};

}  // namespace
