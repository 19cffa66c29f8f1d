// A row and the rings it is multiplied in (docs/mathematics.md).
//
// Usually that is one ring, C[x]/(x^N - i). A circular row of suitable length L first folds as a real
// polynomial,
//
//   x^L - 1 = (x^(L/2) + 1) (x^(L/4) + 1) ... (x^M + 1) (x^M - 1)
//
// where the odd part modulo x^s + 1, s real points, is s/2 complex ones in C[x]/(x^(s/2) - i). That leaves
// half the work; the last, even part is circular of length M and goes the usual way. Folded rows lie in
// place: the even part first, the odd part of s points at [s, 2 s).
#pragma once
#include "ring_passes.h"
#include "team.h"

namespace {

// Rows in the arithmetic type, as sources and sinks of the passes. They are as long as the ring.
constexpr std::int64_t kEndless = std::int64_t(1) << 62;
template <class T>
struct RealRow {
  static constexpr bool kReal = true;
  const T* row;
  static constexpr std::int64_t whole() { return kEndless; }
  template <bool, int R>
  EQUICONV_INLINE void read(std::int64_t t, std::int64_t step, Complex<T> (&a)[R]) const {
#pragma GCC unroll 8
    for (int s = 0; s < R; ++s) a[s].re = load(row + t + s * step);
  }
};
template <class T>
struct ComplexRow {
  static constexpr bool kReal = false;
  const T *row, *imaginary;
  static constexpr std::int64_t whole() { return kEndless; }
  template <bool, int R>
  EQUICONV_INLINE void read(std::int64_t t, std::int64_t step, Complex<T> (&a)[R]) const {
#pragma GCC unroll 8
    for (int s = 0; s < R; ++s) a[s] = {load(row + t + s * step), load(imaginary + t + s * step)};
  }
};
// re <- real part, im <- imaginary part if kIm; plus skip times what was there if kSkip.
template <class T, bool kIm, bool kSkip>
struct RowSink {
  T *row, *imaginary;
  T skip;
  static constexpr std::int64_t whole() { return kEndless; }
  template <bool, int R>
  EQUICONV_INLINE void write(std::int64_t t, std::int64_t step, const Complex<T> (&a)[R]) const {
#pragma GCC unroll 8
    for (int s = 0; s < R; ++s) {
      put(row + t + s * step, a[s].re);
      if constexpr (kIm) put(imaginary + t + s * step, a[s].im);
    }
  }
  void put(T* to, Vec<T> v) const {
    if constexpr (kSkip) v += splat(skip) * load(to);
    store(to, v);
  }
};

template <class T>
class RowTransform {
 public:
  RowTransform(std::int64_t length, bool circular) {
    std::int64_t even = length, best = plan_size<T>(length), odd_points = 0;
    for (int folds = 1; circular && even % 4 == 0 && plan_size<T>(even / 4) == even / 4; ++folds) {
      odd_points += even / 4, even /= 2;
      if (odd_points + plan_size<T>(even) < best) best = odd_points + plan_size<T>(even), folds_ = folds;
    }
    even_length_ = length >> folds_;
    even_ = &plan_of<T>(plan_size<T>(even_length_));
    std::int64_t at = even_->n / kLanes<T>;
    for (std::int64_t s = even_length_; s < length; s *= 2) {
      odd_.push_back({&plan_of<T>(s / 2), s, at});
      at += s / 2 / kLanes<T>;
    }
    vectors_ = at;
    points_ = folds_ ? std::max(length, even_->n) : even_->n;
  }

  std::int64_t points() const {
    return points_;
  }  // real points of a row's buffer; past the length they are zero
  std::int64_t vectors() const { return vectors_; }  // complex vectors of a spectrum
  std::int64_t even_points() const { return even_->n; }
  std::int64_t even_length() const { return even_length_; }
  bool folds() const { return folds_ > 0; }

  void fold(T* row) const {
    for (std::int64_t half = even_length_ << folds_ >> 1; half >= even_length_ && folds_; half /= 2)
      for (std::int64_t t = 0; t < half; t += kLanes<T>) {
        const Vec<T> a = load(row + t), b = load(row + half + t);
        store(row + t, a + b), store(row + half + t, a - b);
      }
    if (folds_) std::fill(row + (even_length_ << folds_), row + points_, T(0));
  }
  void unfold(T* row) const {
    for (std::int64_t half = even_length_; half < even_length_ << folds_; half *= 2)
      for (std::int64_t t = 0; t < half; t += kLanes<T>) {
        const Vec<T> even = load(row + t), odd = load(row + half + t), two = splat(T(0.5));
        store(row + t, two * (even + odd)), store(row + half + t, two * (even - odd));
      }
  }

  // A folded row to its blocks. `im` belongs to the even part and may be null.
  void read(const T* row, const T* im, Complex<T>* out, const Team& team) const {
    for (const Odd& odd : odd_)
      read(*odd.plan, ComplexRow<T>{row + odd.size, row + odd.size + odd.size / 2}, out + odd.at, team);
    if (im) read(*even_, ComplexRow<T>{row, im}, out, team);
    else read(*even_, RealRow<T>{row}, out, team);
  }
  // Blocks to a folded row, plus skip times the row that was there.
  void write(const Complex<T>* in, T* row, T* im, bool with_skip, T skip, const Team& team) const {
    for (const Odd& odd : odd_) {
      T* at = row + odd.size;
      if (with_skip) write(*odd.plan, in + odd.at, RowSink<T, true, true>{at, at + odd.size / 2, skip}, team);
      else write(*odd.plan, in + odd.at, RowSink<T, true, false>{at, at + odd.size / 2, skip}, team);
    }
    if (im) write(*even_, in, RowSink<T, true, false>{row, im, skip}, team);
    else if (with_skip) write(*even_, in, RowSink<T, false, true>{row, im, skip}, team);
    else write(*even_, in, RowSink<T, false, false>{row, im, skip}, team);
  }
  // The same from and to wherever the row lies; for rows that do not fold.
  template <class Source>
  void read_from(const Source& source, Complex<T>* out, const Team& team) const {
    read(*even_, source, out, team);
  }
  template <class Sink>
  void write_to(const Complex<T>* in, const Sink& sink, const Team& team) const {
    write(*even_, in, sink, team);
  }
  void multiply(const Spectra<T>& x, const Team& team) const {
    for (const Odd& odd : odd_) multiply(*odd.plan, x, odd.at, team);
    multiply(*even_, x, 0, team);
  }

 private:
  struct Odd {
    const Plan<T>* plan;
    std::int64_t size,
        at;  // real points, also where they start in a row; where their vectors start in a spectrum
  };

  template <class Source>
  static void read(const Plan<T>& plan, const Source& source, Complex<T>* out, const Team& team) {
    const std::int64_t vectors = plan.n / kLanes<T>;
    with_radix(plan.top, [&](auto radix) {
      if constexpr (radix <= 8)
        team.ranges(vectors / radix, [&](std::int64_t j0, std::int64_t j1) {
          read_top<T, radix>(source, out, vectors, j0, j1);
        });
    });
  }
  template <class Sink>
  static void write(const Plan<T>& plan, const Complex<T>* in, const Sink& sink, const Team& team) {
    const std::int64_t vectors = plan.n / kLanes<T>;
    with_radix(plan.top, [&](auto radix) {
      if constexpr (radix <= 8)
        team.ranges(vectors / radix, [&](std::int64_t j0, std::int64_t j1) {
          write_top<T, radix>(in, sink, vectors, j0, j1);
          fence();
        });
    });
  }
  static void multiply(const Plan<T>& plan, const Spectra<T>& x, std::int64_t at, const Team& team) {
    const std::int64_t vectors = plan.n / kLanes<T> / plan.top;
    team(plan.top, [&](std::int64_t s) { walk(plan, x, 0, s, at + s * vectors, vectors); });
  }

  int folds_ = 0;
  std::int64_t even_length_, points_, vectors_;
  const Plan<T>* even_;
  std::vector<Odd> odd_;
};

}  // namespace
