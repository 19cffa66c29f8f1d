// The passes over a row and the depth-first walk that joins them to the leaves (ring.h).
#pragma once
#include <algorithm>

#include "ring.h"
#include "roots.h"

namespace {

// ---- the top pass: from the row as it is in memory to the first blocks, and back -----------------
// Splitting x^N - i is the only pass that sees real input, and its factors are constants of the code.

// exp(2 pi i (1/4 + s) m / R), the value of x^m at the s-th root of x^R = i; for R a power of two the roots
// are in the order in which halving leaves them.
template <class T, int R>
struct Roots {
  Factor<T> at[R][R] = {};
  constexpr Roots() {
    for (int s = 0; s < R; ++s)
      for (int m = 0; m < R; ++m) {
        const CirclePoint z = circle_point((0.25 + (R % 2 ? s : reversed_bits(s, R))) / R * m);
        at[s][m] = {T(z.cosine), T(z.sine)};
      }
  }
};
template <class T, int R>
constexpr Roots<T, R> kRoots{};

// By halves, for R a power of two: a block's r is its first root to the power of the half.
template <class T, int R, bool Real, int Size = R, int First = 0>
EQUICONV_INLINE void split_halves(Complex<T>* a) {
  if constexpr (Size > 1) {
    constexpr int half = Size / 2;
    const Complex<T> r = splat(kRoots<T, R>.at[First][half]);
#pragma GCC unroll 8
    for (int j = 0; j < half; ++j) {
      if constexpr (Real) {
        const Vec<T> x = a[j].re, y = a[j + half].re;
        a[j] = {x + r.re * y, r.im * y};
        a[j + half] = {splat(T(2)) * x - a[j].re, -a[j].im};
      } else {
        split2(a[j], a[j + half], r);
      }
    }
    split_halves<T, R, false, half, First>(a);
    split_halves<T, R, false, half, First + half>(a + half);
  } else if constexpr (Real) {
    a[0].im = Vec<T>{};
  }
}
template <class T, int R, int Size = R, int First = 0>
EQUICONV_INLINE void merge_halves(Complex<T>* a) {
  if constexpr (Size > 1) {
    constexpr int half = Size / 2;
    merge_halves<T, R, half, First>(a);
    merge_halves<T, R, half, First + half>(a + half);
    const Complex<T> r = splat(kRoots<T, R>.at[First][half]);
#pragma GCC unroll 8
    for (int j = 0; j < half; ++j) merge2(a[j], a[j + half], r);
  }
}
// By definition, for R = 3 and 5.
template <class T, int R, bool Real>
EQUICONV_INLINE void split_odd(Complex<T>* a) {
  Complex<T> in[R];
#pragma GCC unroll 5
  for (int m = 0; m < R; ++m) in[m] = a[m];
#pragma GCC unroll 5
  for (int s = 0; s < R; ++s) {
    Complex<T> y = in[0];
    if constexpr (Real) y.im = Vec<T>{};
#pragma GCC unroll 5
    for (int m = 1; m < R; ++m) {
      const Complex<T> r = splat(kRoots<T, R>.at[s][m]);
      y.re = y.re + r.re * in[m].re, y.im = y.im + r.im * in[m].re;
      if constexpr (!Real) y.re = y.re - r.im * in[m].im, y.im = y.im + r.re * in[m].im;
    }
    a[s] = y;
  }
}
template <class T, int R>
EQUICONV_INLINE void merge_odd(Complex<T>* a) {
  Complex<T> in[R];
#pragma GCC unroll 5
  for (int s = 0; s < R; ++s) in[s] = a[s];
#pragma GCC unroll 5
  for (int m = 0; m < R; ++m) {
    Complex<T> x{};
#pragma GCC unroll 5
    for (int s = 0; s < R; ++s) x = x + multiply_conj(in[s], splat(kRoots<T, R>.at[s][m]));
    a[m] = x;
  }
}
template <class T, int R, bool Real>
EQUICONV_INLINE void split_top(Complex<T>* a) {
  if constexpr (R % 2 && R > 1) split_odd<T, R, Real>(a);
  else split_halves<T, R, Real>(a);
}
template <class T, int R>
EQUICONV_INLINE void merge_top(Complex<T>* a) {
  if constexpr (R % 2 && R > 1) merge_odd<T, R>(a);
  else merge_halves<T, R>(a);
}

// A source gives R vectors of points, `step` points apart, the first from position t on, by
// read<kWhole>(t, step, a), zeros past its end; a sink takes them by write<kWhole>. Of so many vectors as
// whole() says all points exist, and kWhole says that it is them. Sources and sinks are copied: what they
// hold stays in registers.

// Vectors [j0, j1) of every one of the R segments of a row.
template <class T, int R, class Source>
void read_top(const Source source, Complex<T>* out, std::int64_t vectors, std::int64_t j0, std::int64_t j1) {
  const std::int64_t q = vectors / R;
  const auto pass = [=](auto whole, std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      Complex<T> a[R];
      source.template read<whole>(kLanes<T> * j, kLanes<T> * q, a);
      split_top<T, R, Source::kReal>(a);
#pragma GCC unroll 8
      for (int s = 0; s < R; ++s) out[j + s * q] = a[s];
    }
  };
  const std::int64_t middle = std::clamp(source.whole() - (R - 1) * q, j0, j1);
  pass(std::true_type{}, j0, middle);
  pass(std::false_type{}, middle, j1);
}
// The adjoint of all splits is N / S times their inverse.
template <class T, int R, class Sink>
void write_top(const Complex<T>* in, const Sink sink, std::int64_t vectors, std::int64_t j0,
               std::int64_t j1) {
  const std::int64_t q = vectors / R;
  const Vec<T> scale = splat(T(Plan<T>::S) / T(vectors * kLanes<T>));
  const auto pass = [=](auto whole, std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      Complex<T> a[R];
#pragma GCC unroll 8
      for (int s = 0; s < R; ++s) a[s] = in[j + s * q];
      merge_top<T, R>(a);
#pragma GCC unroll 8
      for (int s = 0; s < R; ++s) a[s] = {a[s].re * scale, a[s].im * scale};
      sink.template write<whole>(kLanes<T> * j, kLanes<T> * q, a);
    }
  };
  const std::int64_t middle = std::clamp(sink.whole() - (R - 1) * q, j0, j1);
  pass(std::true_type{}, j0, middle);
  pass(std::false_type{}, middle, j1);
}

template <class F>
EQUICONV_INLINE void with_radix(int radix, F f) {
  switch (radix) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    case 5: return f(std::integral_constant<int, 5>{});
    case 8: return f(std::integral_constant<int, 8>{});
    default: return f(std::integral_constant<int, 16>{});
  }
}

// ---- passes between the top and the leaves -------------------------------------------------------
template <class T, int R>
void split_block(Complex<T>* x, std::int64_t q, const Factors4<T>* f) {
  for (std::int64_t j = 0; j < q; ++j) {
    Complex<T> a[R];
#pragma GCC unroll 16
    for (int s = 0; s < R; ++s) a[s] = x[j + s * q];
    split_vectors<T, R>(a, f);
#pragma GCC unroll 16
    for (int s = 0; s < R; ++s) x[j + s * q] = a[s];
  }
}
template <class T, int R>
void merge_block(Complex<T>* x, std::int64_t q, const Factors4<T>* f) {
  for (std::int64_t j = 0; j < q; ++j) {
    Complex<T> a[R];
#pragma GCC unroll 16
    for (int s = 0; s < R; ++s) a[s] = x[j + s * q];
    merge_vectors<T, R>(a, f);
#pragma GCC unroll 16
    for (int s = 0; s < R; ++s) x[j + s * q] = a[s];
  }
}

// Memory that will be wanted soon: asked for leaf by leaf, while the arithmetic goes on. Of rows only short
// ones: a long one would push what is being worked on out of the cache (measured: 17 % gained at 4 KB a row,
// 12 % lost at 256 KB).
struct Ahead {
  static constexpr std::int64_t kLongest = 1 << 15;  // bytes

  struct Pieces {
    const char* first;
    std::int64_t count, stride, lines;  // so many pieces, `stride` bytes apart, of so many cache lines
    std::int64_t share;                 // of a leaf
  };
  std::int64_t leaves;
  std::array<Pieces, 12> pieces;
  int used = 0;

  explicit Ahead(std::int64_t n) : leaves(n) {}

  void add_row(const void* first, std::int64_t bytes) {
    if (bytes <= kLongest) add(first, (bytes + 63) / 64, 64, 64);
  }
  void add(const void* first, std::int64_t count, std::int64_t stride, std::int64_t bytes) {
    pieces[std::size_t(used++)] = {static_cast<const char*>(first), count, stride, (bytes + 63) / 64,
                                   (count + leaves - 1) / leaves};
  }
  // Inlined by force: GCC 12 takes a function that only prefetches for one without effect.
  EQUICONV_INLINE void fetch(std::int64_t leaf) const {
    for (int i = 0; i < used; ++i) {
      const Pieces& p = pieces[std::size_t(i)];
      const std::int64_t begin = p.share * leaf, end = std::min(begin + p.share, p.count);
      for (std::int64_t n = begin; n < end; ++n)
        for (std::int64_t line = 0; line < p.lines; ++line)
          __builtin_prefetch(p.first + p.stride * n + 64 * line, 0, 2);
    }
  }
};

// One row's spectra and what is to become of them. `split` go down and `merge` come back (null ends a list).
// At a leaf, results take the place of what is no longer needed:
//   convolve      u <- u k
//   grad_filter   k <- adjoint(u) g, or sum <- sum + adjoint(u) g where there is a sum
//   grad_signal   g <- adjoint(k) g
template <class T>
struct Spectra {
  const Ahead* ahead = nullptr;
  Complex<T>*u = nullptr, *k = nullptr, *g = nullptr, *sum = nullptr;
  bool convolve = false, grad_filter = false, grad_signal = false;
  std::array<Complex<T>*, 4> split{}, merge{};
};

template <class T>
__attribute__((noinline)) void multiply_leaf(const Spectra<T>& x, std::int64_t at,
                                             const typename Plan<T>::Leaf& f) {
  constexpr int S = Plan<T>::S;
  for (int b = 0; b < Plan<T>::kLaneRadix; ++b, at += S) {
    const Complex<T> c = block_constant(f.c, b);
    Complex<T> grad_filter[S], grad_signal[S];
    if (x.grad_filter) block_adjoint(grad_filter, x.u + at, x.g + at, c);
    if (x.grad_signal) block_adjoint(grad_signal, x.k + at, x.g + at, c);
    if (x.convolve) block_product(x.u + at, x.u + at, x.k + at, c);
    for (int s = 0; s < S; ++s) {
      if (x.grad_signal) x.g[at + s] = grad_signal[s];
      if (x.grad_filter && x.sum) x.sum[at + s] = x.sum[at + s] + grad_filter[s];
      else if (x.grad_filter) x.k[at + s] = grad_filter[s];
    }
  }
}

// Down, product and up again for the block that starts at vector `at`, depth first.
template <class T>
void walk(const Plan<T>& plan, const Spectra<T>& x, std::size_t pass, std::int64_t block, std::int64_t at,
          std::int64_t vectors) {
  if (pass == plan.passes.size()) {
    const auto& leaf = plan.leaves[std::size_t(block)];
    if (x.ahead) x.ahead->fetch(block);
    for (Complex<T>* s : x.split) {
      if (!s) break;
      leaf_split(s + at, leaf);
    }
    multiply_leaf(x, at, leaf);
    for (Complex<T>* s : x.merge) {
      if (!s) break;
      leaf_merge(s + at, leaf);
    }
    return;
  }
  with_radix(plan.passes[pass].radix, [&](auto radix) {
    const std::int64_t q = vectors / radix;
    if constexpr (radix == 2 || radix == 4 || radix == 8 || radix == 16) {
      const Factors4<T>* f = plan.passes[pass].factors.data() + block * vector_steps(radix);
      for (Complex<T>* s : x.split) {
        if (!s) break;
        split_block<T, radix>(s + at, q, f);
      }
      for (int s = 0; s < radix; ++s) walk(plan, x, pass + 1, block * radix + s, at + s * q, q);
      for (Complex<T>* s : x.merge) {
        if (!s) break;
        merge_block<T, radix>(s + at, q, f);
      }
    }
  });
}

}  // namespace
