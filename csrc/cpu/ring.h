// Products in C[x]/(x^N - i), one row at a time (docs/mathematics.md).
//
// A row of N points is N/W vectors of W consecutive points, real and imaginary parts in separate vectors.
// A pass splits every polynomial modulo x^n - c into 2 or 4 of lower degree; the factors are constant over a
// block, so they are broadcast scalars, and the recursion is depth first: a block is finished while it is in
// cache. At W*W points (a leaf) the block is W vectors: they split down to one vector each, are transposed,
// and lanes then hold different blocks; those split on down to degree S = 4, or 2 where registers are few,
// where two of them are multiplied by the schoolbook rule. The way back is the adjoint of the way down,
// divided by N.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "simd.h"

namespace {

template <class T>
struct Complex {
  Vec<T> re, im;
};

// ---- butterflies ---------------------------------------------------------------------------------
template <class T>
EQUICONV_INLINE Complex<T> operator+(Complex<T> a, Complex<T> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class T>
EQUICONV_INLINE Complex<T> operator-(Complex<T> a, Complex<T> b) {
  return {a.re - b.re, a.im - b.im};
}
template <class T>
EQUICONV_INLINE Complex<T> times_i(Complex<T> a) {
  return {-a.im, a.re};
}
template <class T>
EQUICONV_INLINE Complex<T> multiply(Complex<T> a, Complex<T> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <class T>
EQUICONV_INLINE Complex<T> multiply_conj(Complex<T> a, Complex<T> b) {  // a * conj(b)
  return {a.re * b.re + a.im * b.im, a.im * b.re - a.re * b.im};
}

// (a, b) -> (a + r b, a - r b): six fused multiply-adds; with few registers eight operations of fewer
// operands, half of them additions
template <class T>
EQUICONV_INLINE void split2(Complex<T>& a, Complex<T>& b, Complex<T> r) {
  if constexpr (kManyRegisters) {
    const Vec<T> two = splat(T(2));
    const Complex<T> sum{a.re + r.re * b.re - r.im * b.im, a.im + r.re * b.im + r.im * b.re};
    b = {two * a.re - sum.re, two * a.im - sum.im};
    a = sum;
  } else {
    const Complex<T> product = multiply(b, r);
    b = a - product;
    a = a + product;
  }
}
template <class T>
EQUICONV_INLINE void split4(Complex<T>& a0, Complex<T>& a1, Complex<T>& a2, Complex<T>& a3, Complex<T> r1,
                            Complex<T> r2, Complex<T> r3) {
  split2(a0, a2, r1);
  const Complex<T> b = multiply(a1, r2), d = multiply(a3, r3), sum = b + d, difference = times_i(b - d);
  a1 = a0 - sum, a0 = a0 + sum;
  a3 = a2 - difference, a2 = a2 + difference;
}
// the adjoints
template <class T>
EQUICONV_INLINE void merge2(Complex<T>& a, Complex<T>& b, Complex<T> r) {
  const Complex<T> difference = a - b;
  a = a + b;
  b = multiply_conj(difference, r);
}
template <class T>
EQUICONV_INLINE void merge4(Complex<T>& a0, Complex<T>& a1, Complex<T>& a2, Complex<T>& a3, Complex<T> r1,
                            Complex<T> r2, Complex<T> r3) {
  const Complex<T> s01 = a0 + a1, d01 = a0 - a1, s23 = a2 + a3, d23 = times_i(a2 - a3);
  a0 = s01 + s23;
  a1 = multiply_conj(d01 - d23, r2);
  a2 = multiply_conj(s01 - s23, r1);
  a3 = multiply_conj(d01 + d23, r3);
}

// ---- factors -------------------------------------------------------------------------------------
template <class T>
struct Factor {
  T re, im;
};
template <class T>
EQUICONV_INLINE Complex<T> splat(const Factor<T>& f) {
  return {splat(f.re), splat(f.im)};
}
inline Factor<double> turn(double t) {  // exp(2 pi i t)
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  t -= std::floor(t);
  return {std::cos(kTwoPi * t), std::sin(kTwoPi * t)};
}

template <class T>
struct Factors4 {
  Factor<T> r1, r2, r3;  // r2 = exp(i theta/4), its square and its cube
};

// How `size` vectors split into single ones: by 4, and by 2 once if log2(size) is odd, first or, where
// registers are few, last.
constexpr int vector_radix(int size) { return size == 2 || (size == 8 && kManyRegisters) ? 2 : 4; }
constexpr int vector_steps(int size) {
  return size == 1 ? 0 : 1 + vector_radix(size) * vector_steps(size / vector_radix(size));
}

// The passes of one N and their factors.
template <class T>
struct Plan {
  static constexpr int W = kLanes<T>;
  static constexpr int kLeaf = W * W;  // points of a leaf
  static constexpr int kMost = kManyRegisters ? 4 : 2;
  static constexpr int S = W < kMost ? W : kMost;  // degree at which polynomials are multiplied
  static constexpr int kLaneRadix = W / S;         // 4, 2 or 1: how far lanes still split

  struct Pass {
    int radix;                         // 2, 4, 8 or 16
    std::vector<Factors4<T>> factors;  // of every block, in the order of split_vectors
  };
  struct Leaf {
    std::array<Factors4<T>, vector_steps(W)> vectors;  // of the steps that split W vectors into single ones
    Complex<T> r1, r2, r3;                             // of the lanes' step
    Complex<T> c;                                      // the lanes' first block is modulo x^S - c
  };

  std::int64_t n = 0;
  int top = 1;               // radix of the pass that reads the row: 1, 2, 3, 4, 5 or 8
  std::vector<Pass> passes;  // between the top and the leaves
  std::vector<Leaf> leaves;
};

// Sizes a plan can have: W*W * {1, 3, 5} * 2^b.
template <class T>
std::int64_t plan_size(std::int64_t length) {
  constexpr std::int64_t leaf = Plan<T>::kLeaf;
  std::int64_t best = leaf;
  while (best < length) best *= 2;
  for (std::int64_t odd : {3, 5}) {
    std::int64_t n = odd * leaf;
    while (n < length) n *= 2;
    if (n < best) best = n;
  }
  return best;
}

namespace plan_building {

// Measured: how many halvings are best done by one pass, the top pass of n points and each of those that
// follow.
constexpr int top_halvings(int left, std::int64_t n) {
  if (left < 2) return left;
  if (!kManyRegisters) return 2;
  return left % 2 || n >= 1 << 16 ? 3 : 2;  // 8 pays where a row is past the second cache
}
constexpr int pass_halvings(int left) {
  if (!kManyRegisters) return left % 2 ? std::min(left, 3) : 2;
  return left <= 4 ? left : 3;  // 16 at the end only: farther apart, 16 blocks fall on the same few sets of
                                // the first cache
}

inline std::vector<double> children(const std::vector<double>& turns, int radix) {
  std::vector<double> out;
  out.reserve(turns.size() * std::size_t(radix));
  for (double t : turns) {
    if (radix == 3 || radix == 5) {
      for (int s = 0; s < radix; ++s) out.push_back((t + s) / radix);
    } else {  // in the order in which halving twice or thrice leaves them
      std::vector<double> level{t};
      for (int r = 1; r < radix; r *= 2) {
        std::vector<double> next;
        for (double v : level) next.push_back(v / 2), next.push_back(v / 2 + 0.5);
        level.swap(next);
      }
      out.insert(out.end(), level.begin(), level.end());
    }
  }
  return out;
}
template <class T>
Factor<T> factor(double t) {
  const Factor<double> f = turn(t);
  return {T(f.re), T(f.im)};
}
template <class T>
Factors4<T> factors(double t, int radix) {
  if (radix == 2) return {factor<T>(t / 2), {}, {}};
  return {factor<T>(t / 2), factor<T>(t / 4), factor<T>(3 * t / 4)};
}
template <class T>
std::vector<Factors4<T>> factors(const std::vector<double>& turns, int radix) {
  std::vector<Factors4<T>> out;
  out.reserve(turns.size());
  for (double t : turns) out.push_back(factors<T>(t, radix));
  return out;
}
// Factors of split_vectors, in its order; the single vectors' turns are appended to `leaves`.
template <class T>
Factors4<T>* vector_factors(Factors4<T>* out, double t, int size, std::vector<double>& leaves) {
  if (size == 1) return leaves.push_back(t), out;
  const int radix = vector_radix(size);
  *out++ = factors<T>(t, radix);
  for (double child : children({t}, radix)) out = vector_factors(out, child, size / radix, leaves);
  return out;
}
template <class T>
Complex<T> lanes(const double* turns, double times) {
  Complex<T> c{};
  for (int l = 0; l < kLanes<T>; ++l) {
    const Factor<double> f = turn(turns[l] * times);
    c.re[l] = T(f.re), c.im[l] = T(f.im);
  }
  return c;
}

}  // namespace plan_building

template <class T>
std::unique_ptr<Plan<T>> make_plan(std::int64_t n) {
  using namespace plan_building;
  using P = Plan<T>;
  constexpr int W = P::W;
  auto plan = std::make_unique<P>();
  plan->n = n;
  std::int64_t blocks = n / P::kLeaf;  // leaves: {1, 3, 5} * 2^b
  int halvings = 0;
  while (blocks % 2 == 0) blocks /= 2, ++halvings;
  const int top_step = blocks > 1 ? 0 : top_halvings(halvings, n);
  plan->top = blocks > 1 ? int(blocks) : 1 << top_step;
  halvings -= top_step;

  std::vector<double> turns{0.25};  // x^N - i
  turns = children(turns, plan->top);
  while (halvings) {
    const int step = pass_halvings(halvings), radix = 1 << step;
    typename P::Pass pass{radix, std::vector<Factors4<T>>(turns.size() * vector_steps(radix))};
    std::vector<double> next;
    Factors4<T>* out = pass.factors.data();
    for (double t : turns) out = vector_factors(out, t, radix, next);
    plan->passes.push_back(std::move(pass));
    turns.swap(next), halvings -= step;
  }
  plan->leaves.resize(turns.size());
  for (std::size_t leaf = 0; leaf < turns.size(); ++leaf) {
    auto& f = plan->leaves[leaf];
    std::vector<double> t;
    vector_factors(f.vectors.data(), turns[leaf], W, t);
    if (P::kLaneRadix == 4)
      f.r1 = lanes<T>(t.data(), 0.5), f.r2 = lanes<T>(t.data(), 0.25), f.r3 = lanes<T>(t.data(), 0.75),
      f.c = f.r2;
    else if (P::kLaneRadix == 2) f.r1 = lanes<T>(t.data(), 0.5), f.c = f.r1;
    else f.c = lanes<T>(t.data(), 1);
  }
  return plan;
}

template <class T>
const Plan<T>& plan_of(std::int64_t n) {
  static std::mutex mutex;
  static std::map<std::int64_t, std::unique_ptr<Plan<T>>> plans;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& plan = plans[n];
  if (!plan) plan = make_plan<T>(n);
  return *plan;
}

// ---- leaves --------------------------------------------------------------------------------------
template <class T>
EQUICONV_INLINE void transpose_parts(Complex<T>* a) {
  constexpr int W = kLanes<T>;
  Vec<T> t[W];
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) t[i] = a[i].re;
  transpose<T>(t);
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) a[i].re = t[i];
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) t[i] = a[i].im;
  transpose<T>(t);
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) a[i].im = t[i];
}

template <class T, int Size>
EQUICONV_INLINE void split_vectors(Complex<T>* a, const Factors4<T>* f) {
  if constexpr (Size > 1) {
    constexpr int radix = vector_radix(Size), q = Size / radix;
    const Complex<T> r1 = splat(f->r1), r2 = splat(f->r2), r3 = splat(f->r3);
#pragma GCC unroll 4
    for (int j = 0; j < q; ++j) {
      if constexpr (radix == 4) split4(a[j], a[j + q], a[j + 2 * q], a[j + 3 * q], r1, r2, r3);
      else split2(a[j], a[j + q], r1);
    }
#pragma GCC unroll 4
    for (int s = 0; s < radix; ++s) split_vectors<T, q>(a + s * q, f + 1 + s * vector_steps(q));
  }
}
template <class T, int Size>
EQUICONV_INLINE void merge_vectors(Complex<T>* a, const Factors4<T>* f) {
  if constexpr (Size > 1) {
    constexpr int radix = vector_radix(Size), q = Size / radix;
#pragma GCC unroll 4
    for (int s = 0; s < radix; ++s) merge_vectors<T, q>(a + s * q, f + 1 + s * vector_steps(q));
    const Complex<T> r1 = splat(f->r1), r2 = splat(f->r2), r3 = splat(f->r3);
#pragma GCC unroll 4
    for (int j = 0; j < q; ++j) {
      if constexpr (radix == 4) merge4(a[j], a[j + q], a[j + 2 * q], a[j + 3 * q], r1, r2, r3);
      else merge2(a[j], a[j + q], r1);
    }
  }
}

// W vectors modulo x^(W*W) - c, to W vectors whose lanes hold W / S blocks of degree S each, and back.
template <class T>
__attribute__((noinline)) void leaf_split(Complex<T>* a, const typename Plan<T>::Leaf& f) {
  constexpr int W = Plan<T>::W, q = W / Plan<T>::kLaneRadix;
  split_vectors<T, W>(a, f.vectors.data());
  transpose_parts(a);
#pragma GCC unroll 4
  for (int j = 0; j < q; ++j) {
    if constexpr (W == 4 * q) split4(a[j], a[j + q], a[j + 2 * q], a[j + 3 * q], f.r1, f.r2, f.r3);
    else if constexpr (W == 2 * q) split2(a[j], a[j + q], f.r1);
  }
}
template <class T>
__attribute__((noinline)) void leaf_merge(Complex<T>* a, const typename Plan<T>::Leaf& f) {
  constexpr int W = Plan<T>::W, q = W / Plan<T>::kLaneRadix;
#pragma GCC unroll 4
  for (int j = 0; j < q; ++j) {
    if constexpr (W == 4 * q) merge4(a[j], a[j + q], a[j + 2 * q], a[j + 3 * q], f.r1, f.r2, f.r3);
    else if constexpr (W == 2 * q) merge2(a[j], a[j + q], f.r1);
  }
  transpose_parts(a);
  merge_vectors<T, W>(a, f.vectors.data());
}

// The constant c of the lanes' block `b` of kLaneRadix: +, -, +i, -i times the first one's.
template <class T>
EQUICONV_INLINE Complex<T> block_constant(Complex<T> c, int b) {
  if (b >= 2) c = times_i(c);
  return b % 2 ? Complex<T>{-c.re, -c.im} : c;
}

// out = a * b modulo x^S - c
template <class T>
EQUICONV_INLINE void block_product(Complex<T>* out, const Complex<T>* a, const Complex<T>* b, Complex<T> c) {
  constexpr int S = Plan<T>::S;
  Complex<T> wrapped[S];
#pragma GCC unroll 4
  for (int s = 1; s < S; ++s) wrapped[s] = multiply(b[s], c);
  Complex<T> product[S];
#pragma GCC unroll 4
  for (int t = 0; t < S; ++t) {
    Complex<T> p = multiply(a[0], b[t]);
#pragma GCC unroll 4
    for (int s = 1; s < S; ++s) {
      const Complex<T> f = s <= t ? b[t - s] : wrapped[t - s + S];
      p.re = p.re + a[s].re * f.re - a[s].im * f.im;
      p.im = p.im + a[s].re * f.im + a[s].im * f.re;
    }
    product[t] = p;
  }
#pragma GCC unroll 4
  for (int t = 0; t < S; ++t) out[t] = product[t];
}

// out = (adjoint of multiplication by b) g
template <class T>
EQUICONV_INLINE void block_adjoint(Complex<T>* out, const Complex<T>* b, const Complex<T>* g, Complex<T> c) {
  constexpr int S = Plan<T>::S;
  Complex<T> wrapped[S];
#pragma GCC unroll 4
  for (int s = 1; s < S; ++s) wrapped[s] = multiply(b[s], c);
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
    Complex<T> p = multiply_conj(g[s], b[0]);
#pragma GCC unroll 4
    for (int t = 0; t < S; ++t) {
      if (t == s) continue;
      const Complex<T> f = s <= t ? b[t - s] : wrapped[t - s + S];
      p.re = p.re + g[t].re * f.re + g[t].im * f.im;
      p.im = p.im + g[t].im * f.re - g[t].re * f.im;
    }
    out[s] = p;
  }
}

}  // namespace
