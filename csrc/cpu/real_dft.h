// Real rows and their half spectra in natural order: U[k] = sum over t of u[t] exp(-2 pi i k t / L), k = 0 …
// L/2, and what is done with these frequency by frequency.
//
// Even L: the row is a complex one of n = L/2 points, z[t] = u[2 t] + i u[2 t + 1]. With its transform Z and
// w = exp(-2 pi i k / L),
//
//   E = Z[k] + conj Z[n - k],  O = (Z[k] - conj Z[n - k]) / i       (twice the even and the odd points')
//   2 U[k] = E + w O,          2 conj U[n - k] = E - w O
//
// and back by the adjoint. Odd L: the row is a complex one of L points, imaginary parts 0.
// So frequencies k and n - k are at hand together. `each_frequency` hands f what the spectra of rows are
// there, and takes what the spectra of others shall be; it never stores a spectrum by itself. A transform may
// be both.
//
//   AlongRealDft    one row; vectors along the row, for L a multiple of 2 W W
//   AcrossRealDft   W rows side by side, any L; a length with a large prime factor by Bluestein's convolution
#pragma once
#include <algorithm>
#include <array>
#include <optional>

#include "dft.h"

namespace {

template <class T>
EQUICONV_INLINE Vec<T> reversed(Vec<T> v) {
  return [&]<int... I>(std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (kLanes<T> - 1 - I)...);
  }(std::make_integer_sequence<int, kLanes<T>>{});
}
// Pairs (even, odd) in memory order to their halves, and back.
template <class T>
EQUICONV_INLINE Number<Vec<T>> unzip(Vec<T> a, Vec<T> b) {
  return [&]<int... I>(std::integer_sequence<int, I...>) {
    return Number<Vec<T>>{__builtin_shufflevector(a, b, (2 * I)...),
                          __builtin_shufflevector(a, b, (2 * I + 1)...)};
  }(std::make_integer_sequence<int, kLanes<T>>{});
}
template <class T>
EQUICONV_INLINE void zip(Number<Vec<T>> z, Vec<T>& a, Vec<T>& b) {
  constexpr int W = kLanes<T>;
  [&]<int... I>(std::integer_sequence<int, I...>) {
    a = __builtin_shufflevector(z.re, z.im, (I / 2 + I % 2 * W)...);
    b = __builtin_shufflevector(z.re, z.im, (W / 2 + I / 2 + I % 2 * W)...);
  }(std::make_integer_sequence<int, W>{});
}

// A packed transform at k and n - k to 2 U[k] and 2 U[n - k], and back (twice the inverse).
template <class V>
EQUICONV_INLINE void unpack(Number<V>& at, Number<V>& mirrored, Number<V> w) {
  const Number<V> even = at + conj(mirrored), odd = w * times_minus_i(at - conj(mirrored));
  at = even + odd, mirrored = conj(even - odd);
}
template <class V>
EQUICONV_INLINE void pack(Number<V>& at, Number<V>& mirrored, Number<V> w) {
  const Number<V> even = at + conj(mirrored), odd = conj(w) * (at - conj(mirrored));
  at = even - times_minus_i(odd), mirrored = conj(even + times_minus_i(odd));
}

// Where a row goes: y[t] = v[t] (* gate[t]), to two places if need be, past the caches or not.
template <class T>
struct RealSink {
  T* y;
  const T* gate = nullptr;
  T* second = nullptr;
  const T* second_gate = nullptr;
  bool past_caches = false;
};

template <class T>
class AlongRealDft {
  static constexpr int W = kLanes<T>;

 public:
  static bool takes(std::int64_t length) {
    return length % 2 == 0 && Dft<T, Lanes::along>::takes(length / 2);
  }

  explicit AlongRealDft(std::int64_t length) : n_(length / 2), dft_(n_) {
    for (std::int64_t k = 0; k < n_ / 2; k += W) {
      Number<Vec<T>> w;
      for (int lane = 0; lane < W; ++lane) {
        const Number<T> u = unit<T>(double(k + lane) / double(length));
        w.re[lane] = u.re, w.im[lane] = u.im;
      }
      twiddles_.push_back(w);
    }
  }

  int rows() const { return 1; }
  std::int64_t buffer() const { return n_ + 2 * W; }    // numbers of a transform
  std::int64_t spectrum() const { return n_ + 2 * W; }  // numbers of a half spectrum, and room for a vector
  int multiple() const { return 2; }                    // of a spectrum, in each_frequency
  double scale() const { return 0.25 / double(n_); }    // makes an inverse of a product of two spectra
  double gradient_scale() const { return 0.25 / double(n_); }  // 2/L of a product of two transforms' spectra

  // `count` is 1 in here. `beside`: see dft.h.
  template <class Beside = Nothing>
  void forward(const T* row, std::int64_t, std::int64_t, Plane<T> out, Plane<T> other, const Team& team,
               Beside& beside = nothing) const {
    if (dft_.passes() % 2 == 0) dft_(Row{row}, other, out, out, team, beside);
    else dft_(Row{row}, out, other, out, team, beside);
  }
  // Both buffers are used up.
  template <class Beside = Nothing>
  void inverse(Plane<T> in, Plane<T> other, RealSink<T> row, std::int64_t, std::int64_t, const Team& team,
               Beside& beside = nothing) const {
    dft_(in.exchanged(), other, in, RowOut{row}, team, beside);
  }

  // Natural half spectra to those of each_frequency and back: the same here.
  void arrange(const T* re, const T* im, std::int64_t, std::int64_t, Plane<T> to) const {
    std::copy_n(re, n_ + 1, to.re), std::copy_n(im, n_ + 1, to.im);
  }
  void natural(Plane<T> from, T* re, T* im, std::int64_t, std::int64_t) const {
    std::copy_n(from.re, n_ + 1, re), std::copy_n(from.im, n_ + 1, im);
  }

  // f(in, out, access) once for every frequency: in[i] is the i-th transform's spectrum there, times
  // multiple(), out[i] that of a transform to be; access gets and puts arranged half spectra, real ones too.
  // Not inlined, so that one thread and a team run the same code: a compiler that contracts a * b + c * d may
  // round one product in one copy of a loop and the other in another.
  template <int kIn, int kOut, class F>
  void each_frequency(const std::array<Plane<T>, kIn>& in, const std::array<Plane<T>, kOut>& out, F f,
                      const Team& team) const {
    for (const Plane<T>& z : in) z.re[n_] = z.re[0], z.im[n_] = z.im[0];
    team.ranges(n_ / 2 / W, [&](std::int64_t begin, std::int64_t end) __attribute__((noinline)) {
      const auto from = in;  // copies: for all a compiler knows, the loop stores to what it refers to
      const auto to = out;
      const Number<Vec<T>>* const twiddles = twiddles_.data();
      const std::int64_t n = n_;
      for (std::int64_t v = begin; v < end; ++v) {
        const std::int64_t k = v * W, mirror = n - k - W + 1;
        const Number<Vec<T>> w = factor<Vec<T>>(twiddles[v]);
        std::array<Number<Vec<T>>, kIn> a, b;
        std::array<Number<Vec<T>>, kOut> p, q;
        for (int i = 0; i < kIn; ++i) {
          a[i] = at(from[i], k), b[i] = backwards(from[i], mirror);
          unpack(a[i], b[i], w);
        }
        f(a, p, Access<false>{k}), f(b, q, Access<true>{mirror});
        for (int i = 0; i < kOut; ++i) {
          pack(p[i], q[i], w);
          at(to[i], k, p[i]), backwards(to[i], mirror, q[i]);
        }
      }
    });
    // k = n/2 is its own mirror image: 2 U = 2 conj Z, and back.
    const std::int64_t k = n_ / 2;
    std::array<Number<T>, kIn> a;
    std::array<Number<T>, kOut> p;
    for (int i = 0; i < kIn; ++i) a[i] = {2 * in[i].re[k], -2 * in[i].im[k]};
    f(a, p, Single{k});
    for (int i = 0; i < kOut; ++i) out[i].re[k] = 2 * p[i].re, out[i].im[k] = -2 * p[i].im;
  }

 private:
  struct Row {
    const T* row;
    EQUICONV_INLINE Number<Vec<T>> operator()(std::int64_t v) const {
      return unzip<T>(load(row + 2 * W * v), load(row + 2 * W * v + W));
    }
  };
  struct RowOut {  // of an inverse transform: parts exchanged
    RealSink<T> row;
    EQUICONV_INLINE void operator()(std::int64_t v, Number<Vec<T>> z) const {
      Vec<T> a, b;
      zip<T>({z.im, z.re}, a, b);
      put(row.y, row.gate, 2 * W * v, a, b);
      if (row.second) put(row.second, row.second_gate, 2 * W * v, a, b);
    }
    EQUICONV_INLINE void put(T* y, const T* gate, std::int64_t t, Vec<T> a, Vec<T> b) const {
      if (gate) a *= load(gate + t), b *= load(gate + t + W);
      if (row.past_caches) stream<T, T>(y + t, a), stream<T, T>(y + t + W, b);
      else store(y + t, a), store(y + t + W, b);
    }
  };
  EQUICONV_INLINE static Number<Vec<T>> at(const Plane<T>& p, std::int64_t k) {
    return {load(p.re + k), load(p.im + k)};
  }
  EQUICONV_INLINE static Number<Vec<T>> backwards(const Plane<T>& p, std::int64_t k) {
    return {reversed<T>(load(p.re + k)), reversed<T>(load(p.im + k))};
  }
  EQUICONV_INLINE static void at(const Plane<T>& p, std::int64_t k, Number<Vec<T>> a) {
    store(p.re + k, a.re), store(p.im + k, a.im);
  }
  EQUICONV_INLINE static void backwards(const Plane<T>& p, std::int64_t k, Number<Vec<T>> a) {
    store(p.re + k, reversed<T>(a.re)), store(p.im + k, reversed<T>(a.im));
  }
  template <bool kBackwards>
  struct Access {
    std::int64_t k;
    EQUICONV_INLINE Number<Vec<T>> get(const Plane<T>& p) const {
      return kBackwards ? backwards(p, k) : at(p, k);
    }
    EQUICONV_INLINE void put(const Plane<T>& p, Number<Vec<T>> a) const {
      if constexpr (kBackwards) backwards(p, k, a);
      else at(p, k, a);
    }
    EQUICONV_INLINE Vec<T> get(const T* p) const {
      return kBackwards ? reversed<T>(load(p + k)) : load(p + k);
    }
    EQUICONV_INLINE void put(T* p, Vec<T> a) const { store(p + k, kBackwards ? reversed<T>(a) : a); }
  };
  struct Single {
    std::int64_t k;
    Number<T> get(const Plane<T>& p) const { return {p.re[k], p.im[k]}; }
    void put(const Plane<T>& p, Number<T> a) const { p.re[k] = a.re, p.im[k] = a.im; }
    T get(const T* p) const { return p[k]; }
    void put(T* p, T a) const { p[k] = a; }
  };

  std::int64_t n_;
  Dft<T, Lanes::along> dft_;
  std::vector<Number<Vec<T>>> twiddles_;
};

template <class T>
class AcrossRealDft {
  static constexpr int W = kLanes<T>;

 public:
  explicit AcrossRealDft(std::int64_t length)
      : length_(length), even_(length % 2 == 0), n_(even_ ? length / 2 : length), m_(n_) {
    if (!is_smooth(n_))  // circular convolution of m points with a chirp
      for (m_ = 1; m_ < 2 * n_ - 1;) m_ *= 2;
    dft_.emplace(m_);
    if (even_)
      for (std::int64_t k = 0; k <= n_ / 2; ++k) twiddles_.push_back(unit<T>(double(k) / double(length)));
    if (m_ != n_) make_chirp();
  }

  int rows() const { return W; }
  std::int64_t buffer() const { return m_ * W; }
  std::int64_t spectrum() const { return (length_ / 2 + 1) * W; }
  int multiple() const { return even_ ? 2 : 1; }
  double scale() const { return (even_ ? 0.25 : 1) / double(n_); }
  double gradient_scale() const { return (even_ ? 0.25 : 2) / double(n_); }

  // `count` rows, `pitch` apart, with room for a vector past their ends. (Here nothing is done beside, and
  // sinks have no gates.)
  template <class Beside = Nothing>
  void forward(const T* rows, std::int64_t pitch, std::int64_t count, Plane<T> out, Plane<T> other,
               const Team& team, Beside& = nothing) const {
    const bool back = transforms() % 2 == 0;  // whether what starts in `out` ends there
    const Plane<T> from = back ? out : other;
    transposed(rows, pitch, count, length_, [&](std::int64_t t, Vec<T> v) {
      if (even_) store((t % 2 ? from.im : from.re) + t / 2 * W, v);
      else store(from.re + t * W, v), store(from.im + t * W, Vec<T>{});
    });
    transform(from, back ? other : out, team);
  }
  template <class Beside = Nothing>
  void inverse(Plane<T> in, Plane<T> other, RealSink<T> rows, std::int64_t pitch, std::int64_t count,
               const Team& team, Beside& = nothing) const {
    transform(in.exchanged(), other.exchanged(), team);
    const Plane<T> z = transforms() % 2 ? other : in;
    transposed_back(rows.y, pitch, count, length_, [&](std::int64_t t) {
      return load(even_ ? (t % 2 ? z.im : z.re) + t / 2 * W : z.re + t * W);
    });
  }

  void arrange(const T* re, const T* im, std::int64_t pitch, std::int64_t count, Plane<T> to) const {
    transposed(re, pitch, count, length_ / 2 + 1, [&](std::int64_t k, Vec<T> v) { store(to.re + k * W, v); });
    transposed(im, pitch, count, length_ / 2 + 1, [&](std::int64_t k, Vec<T> v) { store(to.im + k * W, v); });
  }
  void natural(Plane<T> from, T* re, T* im, std::int64_t pitch, std::int64_t count) const {
    transposed_back(re, pitch, count, length_ / 2 + 1, [&](std::int64_t k) { return load(from.re + k * W); });
    transposed_back(im, pitch, count, length_ / 2 + 1, [&](std::int64_t k) { return load(from.im + k * W); });
  }

  template <int kIn, int kOut, class F>
  void each_frequency(const std::array<Plane<T>, kIn>& in, const std::array<Plane<T>, kOut>& out, F f,
                      const Team& team) const {
    team.ranges(n_ / 2 + 1, [&](std::int64_t begin, std::int64_t end) __attribute__((noinline)) {
      for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t mirror = k ? n_ - k : 0;
        std::array<Number<Vec<T>>, kIn> a, b;
        std::array<Number<Vec<T>>, kOut> p, q;
        for (int i = 0; i < kIn; ++i) a[i] = in[i](k), b[i] = in[i](mirror);
        if (even_) {
          const Number<Vec<T>> w = factor<Vec<T>>(twiddles_[std::size_t(k)]);
          for (int i = 0; i < kIn; ++i) unpack(a[i], b[i], w);
          f(a, p, Access{k});
          if (k != n_ - k) f(b, q, Access{n_ - k});
          else q = p;
          for (int i = 0; i < kOut; ++i) pack(p[i], q[i], w);
        } else {
          f(a, p, Access{k});
          for (int i = 0; i < kOut; ++i) q[i] = conj(p[i]);
        }
        for (int i = 0; i < kOut; ++i) {
          out[i](mirror, q[i]);
          out[i](k, p[i]);
        }
      }
    });
  }

 private:
  struct Access {
    std::int64_t k;
    EQUICONV_INLINE Number<Vec<T>> get(const Plane<T>& p) const { return p(k); }
    EQUICONV_INLINE void put(const Plane<T>& p, Number<Vec<T>> a) const { p(k, a); }
    EQUICONV_INLINE Vec<T> get(const T* p) const { return load(p + k * W); }
    EQUICONV_INLINE void put(T* p, Vec<T> a) const { store(p + k * W, a); }
  };

  // How often `transform` changes buffers.
  std::size_t transforms() const { return m_ == n_ ? dft_->passes() : 2 * dft_->passes(); }
  void transform(Plane<T> from, Plane<T> to, const Team& team) const {
    if (m_ == n_) return run(from, to, team);
    const auto times = [&](Plane<T> z, const std::vector<Number<T>>& chirp) {
      for (std::int64_t k = 0; k < std::int64_t(chirp.size()); ++k)
        z(k, factor<Vec<T>>(chirp[std::size_t(k)]) * z(k));
    };
    times(from, chirp_);
    std::fill(from.re + n_ * W, from.re + m_ * W, T(0)), std::fill(from.im + n_ * W, from.im + m_ * W, T(0));
    run(from, to, team);
    if (dft_->passes() % 2) std::swap(from, to);
    times(from, spectrum_of_chirp_);
    run(from.exchanged(), to.exchanged(), team);
    if (dft_->passes() % 2) std::swap(from, to);
    times(from, chirp_);
  }
  // Ends in `to` after an odd number of passes, else where it began.
  void run(Plane<T> from, Plane<T> to, const Team& team) const {
    (*dft_)(from, to, from, dft_->passes() % 2 ? to : from, team);
  }

  void make_chirp() {
    // k t = (k^2 + t^2 - (k - t)^2) / 2
    const auto chirp = [&](std::int64_t t) {
      return unit<double>(double(std::int64_t((__int128(t) * t) % (2 * n_))) / double(2 * n_));
    };
    for (std::int64_t t = 0; t < n_; ++t) chirp_.push_back({T(chirp(t).re), T(chirp(t).im)});
    std::vector<Number<double>> z(std::size_t(m_), Number<double>{});
    for (std::int64_t t = 0; t < n_; ++t) z[std::size_t(t)] = z[std::size_t((m_ - t) % m_)] = conj(chirp(t));
    for (const Number<double>& a : power_of_two_dft(z))
      spectrum_of_chirp_.push_back({T(a.re / double(m_)), T(a.im / double(m_))});
  }
  static std::vector<Number<double>> power_of_two_dft(const std::vector<Number<double>>& z) {
    if (z.size() == 1) return z;
    std::vector<Number<double>> even, odd, out(z.size());
    for (std::size_t t = 0; t < z.size(); t += 2) even.push_back(z[t]), odd.push_back(z[t + 1]);
    even = power_of_two_dft(even), odd = power_of_two_dft(odd);
    for (std::size_t k = 0; k < even.size(); ++k) {
      const Number<double> b = unit<double>(double(k) / double(z.size())) * odd[k];
      out[k] = even[k] + b, out[k + even.size()] = even[k] - b;
    }
    return out;
  }

  // put(t, values at position t of all rows)
  template <class Put>
  static void transposed(const T* rows, std::int64_t pitch, std::int64_t count, std::int64_t n, Put put) {
    for (std::int64_t t = 0; t < n; t += W) {
      Vec<T> tile[W] = {};
      for (std::int64_t c = 0; c < count; ++c) tile[c] = load(rows + c * pitch + t);
      transpose<T>(tile);
      for (std::int64_t i = 0; i < std::min<std::int64_t>(W, n - t); ++i) put(t + i, tile[i]);
    }
  }
  template <class Get>
  static void transposed_back(T* rows, std::int64_t pitch, std::int64_t count, std::int64_t n, Get get) {
    for (std::int64_t t = 0; t < n; t += W) {
      Vec<T> tile[W] = {};
      for (std::int64_t i = 0; i < std::min<std::int64_t>(W, n - t); ++i) tile[i] = get(t + i);
      transpose<T>(tile);
      for (std::int64_t c = 0; c < count; ++c) store(rows + c * pitch + t, tile[c]);
    }
  }

  std::int64_t length_;
  bool even_;
  std::int64_t n_, m_;
  std::optional<Dft<T, Lanes::across>> dft_;
  std::vector<Number<T>> twiddles_, chirp_, spectrum_of_chirp_;
};

// One of each length, kept.
template <class Transform>
const Transform& transform_of(std::int64_t length) {
  static std::mutex mutex;
  static std::map<std::int64_t, std::unique_ptr<Transform>> transforms;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& transform = transforms[length];
  if (!transform) transform = std::make_unique<Transform>(length);
  return *transform;
}

}  // namespace
