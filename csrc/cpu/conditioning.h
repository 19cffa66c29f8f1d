// The conditioning network of conditioned_conv, on the half spectra of one chunk of channels: from the
// transforms of query and key to the spectrum H that the signal is multiplied with, and back.
//
//   a = |Q|, or conj(K) Q            H[k] = static[k] + bias + sum over j of w[j] a[k - j + width / 2]
//
// Spectra are arranged as real_dft.h wants them, so that neighbouring frequencies are `step` numbers apart
// and a vector holds W / step of them; they have room at both ends, where a goes on as the spectrum of a real
// row does. All constant factors of the transforms are in the weights.
#pragma once
#include "conditioned_rows.h"

namespace {

// out[v] = constant (+ added[v]) + sum over j of w[j] * from[v + j * step], for vectors v in [begin, end)
template <class T>
void weighted_sum(const Vec<T>* w, std::int64_t width, const T* from, std::int64_t step, Vec<T> constant,
                  const T* added, T* out, std::int64_t begin, std::int64_t end) {
  constexpr int W = kLanes<T>, U = 4;
  std::int64_t v = begin;
  for (; v + U <= end; v += U) {
    Vec<T> sum[U];
#pragma GCC unroll 4
    for (int i = 0; i < U; ++i) sum[i] = added ? constant + load(added + (v + i) * W) : constant;
    for (std::int64_t j = 0; j < width; ++j)
#pragma GCC unroll 4
      for (int i = 0; i < U; ++i) sum[i] += w[j] * load(from + (v + i) * W + j * step);
#pragma GCC unroll 4
    for (int i = 0; i < U; ++i) store(out + (v + i) * W, sum[i]);
  }
  for (; v < end; ++v) {
    Vec<T> sum = added ? constant + load(added + v * W) : constant;
    for (std::int64_t j = 0; j < width; ++j) sum += w[j] * load(from + v * W + j * step);
    store(out + v * W, sum);
  }
}

// The weights of a chunk: one channel's in all lanes, or a lane for each of its channels.
template <class T>
struct Weights {
  Vec<T> taps[ConditionedConv::kMaxWidth], bias, skip;
};

template <class T, class Dft>
class Conditioning {
  static constexpr int W = kLanes<T>;

 public:
  Conditioning(const ConditionedConv& size, const Dft& dft)
      : keyed_(size.keyed),
        even_(size.length % 2 == 0),
        length_(size.length),
        last_(size.length / 2),
        width_(size.width),
        step_(dft.rows()),
        reach_((size.width + W / step_ - 1) / (W / step_) * (W / step_)),
        vectors_((size.frequencies() * step_ + W - 1) / W),
        dft_(dft) {}

  Plane<T> take(Arena& arena, bool complex = true) const {
    const std::int64_t room = 2 * reach_ * step_, count = dft_.spectrum() + 2 * room;
    T* re = arena.take<T>(count);
    return {re + room, complex ? arena.take<T>(count) + room : nullptr};
  }

  Weights<T> load_weights(const Input& taps, const Input& bias, const Input& skip, std::int64_t channel,
                          std::int64_t count) const {
    const auto lanes = [&](const Input& a, std::int64_t tap) {
      Vec<T> v{};
      if (!a) return v;
      if (step_ == 1) return splat(load_value<T>(at(a, tap), channel));
      for (std::int64_t c = 0; c < count; ++c) v[c] = load_value<T>(at(a, tap), channel + c);
      return v;
    };
    Weights<T> out;
    for (std::int64_t j = 0; j < width_; ++j) out.taps[j] = lanes(taps, j);
    out.bias = lanes(bias, 0), out.skip = lanes(skip, 0);
    return out;
  }

  // a <- |Q|, or conj(K) Q, times multiple() or its square; continued beyond its ends
  void signal(Plane<T> query, Plane<T> key, Plane<T> a, RowsAhead& ahead, const Team& team) const {
    if (keyed_)
      dft_.template each_frequency<2, 0>(
          {query, key}, {},
          [&](const auto& in, auto&, const auto& at) {
            ahead.next(4);
            at.put(a, conj(in[1]) * in[0]);
          },
          team);
    else
      dft_.template each_frequency<1, 0>(
          {query}, {},
          [&](const auto& in, auto&, const auto& at) {
            ahead.next(4);
            at.put(a.re, square_root(in[0].re * in[0].re + in[0].im * in[0].im));
          },
          team);
    for (std::int64_t i = 1; i <= 2 * reach_; ++i) extend(a, -i), extend(a, last_ + i);
  }

  // h <- H times the transforms' scale. h and statics have imaginary parts, or neither has.
  void filter(const Weights<T>& w, Plane<T> a, const Plane<T>& statics, Plane<T> h, const Team& team) const {
    const T scale = T(dft_.scale()), multiple = T(dft_.multiple());
    Vec<T> taps[ConditionedConv::kMaxWidth];
    for (std::int64_t j = 0; j < width_; ++j)
      taps[j] = w.taps[j] * splat(scale / (keyed_ ? multiple * multiple : multiple));
    const Vec<T> real = (w.bias + w.skip) * splat(scale), imaginary = w.bias * splat(scale);
    const std::int64_t first = width_ / 2 * step_;
    team.ranges(vectors_, [&](std::int64_t begin, std::int64_t end) {
      weighted_sum<T>(taps, width_, a.re + first, -step_, real, statics.re, h.re, begin, end);
      if (keyed_)
        weighted_sum<T>(taps, width_, a.im + first, -step_, imaginary, statics.im, h.im, begin, end);
      else if (h.im) std::copy(statics.im + begin * W, statics.im + end * W, h.im + begin * W);
    });
    if (h.im) set_ends(h.im, T(0));
  }

  // The gradient of H as it comes from transforms, conj(U) G: made that of a half spectrum's entries.
  void end_gradient(Plane<T> gradient) const {
    set_ends(gradient.re, T(0.5));
    const std::int64_t room = 2 * reach_ * step_;
    for (T* part : {gradient.re, gradient.im}) {
      if (!part) continue;
      std::fill(part - room, part, T(0));
      std::fill(part + (last_ + 1) * step_, part + (last_ + 1) * step_ + room, T(0));
    }
    if (gradient.im) set_ends(gradient.im, T(0));
  }
  // What it adds to the gradient of tap j, and beyond that of skip to that of the bias, for each lane; where
  // all lanes are one channel, in the first.
  Vec<T> tap_gradient(Plane<T> gradient, Plane<T> a, std::int64_t j) const {
    const std::int64_t from = (width_ / 2 - j) * step_;
    Vec<T> total = dot_of(Numbers{a.re + from}, gradient.re);
    if (keyed_) total += dot_of(Numbers{a.im + from}, gradient.im);
    const T multiple = T(dft_.multiple());
    return by_channel(total * splat(T(dft_.gradient_scale()) / (keyed_ ? multiple * multiple : multiple)));
  }
  Vec<T> bias_gradient(Plane<T> gradient) const {
    return by_channel(dot_of(Ones{}, gradient.im) * splat(T(dft_.gradient_scale())));
  }

  // The gradient of H to that of a, times what makes an inverse transform of it.
  void adjoint(const Weights<T>& w, Plane<T> gradient, Plane<T> grad_a, const Team& team) const {
    const double scale = dft_.scale() * dft_.gradient_scale() * double(length_) / 2;
    Vec<T> taps[ConditionedConv::kMaxWidth];
    for (std::int64_t j = 0; j < width_; ++j)
      taps[j] = w.taps[j] * splat(T(keyed_ ? scale : scale * dft_.multiple()));
    const std::int64_t first = -(width_ / 2) * step_, beyond = reach_ * step_ / W;
    team.ranges(vectors_ + 2 * beyond, [&](std::int64_t begin, std::int64_t end) {
      begin -= beyond, end -= beyond;
      weighted_sum<T>(taps, width_, gradient.re + first, step_, Vec<T>{}, nullptr, grad_a.re, begin, end);
      if (keyed_)
        weighted_sum<T>(taps, width_, gradient.im + first, step_, Vec<T>{}, nullptr, grad_a.im, begin, end);
    });
    for (std::int64_t i = 1; i < width_; ++i) fold(grad_a, -i), fold(grad_a, last_ + i);
    set_ends(grad_a.re, T(2));
    if (keyed_) set_ends(grad_a.im, T(0));
  }

  // The gradients of query and key, in the place of their transforms.
  void gradients(Plane<T> grad_a, Plane<T> a, Plane<T> query, Plane<T> key, RowsAhead& ahead,
                 const Team& team) const {
    if (keyed_)
      dft_.template each_frequency<2, 2>(
          {query, key}, {query, key},
          [&](const auto& in, auto& out, const auto& at) {
            ahead.next(4);
            const auto g = at.get(grad_a);
            out[0] = g * in[1], out[1] = conj(g) * in[0];
          },
          team);
    else
      dft_.template each_frequency<1, 1>(
          {query}, {query},
          [&](const auto& in, auto& out, const auto& at) {
            ahead.next(4);
            const auto size = at.get(a.re);
            const auto g = size != 0 ? at.get(grad_a.re) / size : size;
            out[0] = {g * in[0].re, g * in[0].im};
          },
          team);
  }

 private:
  struct Numbers {
    const T* first;
    EQUICONV_INLINE Vec<T> re(std::int64_t t) const { return load(first + t); }
  };
  struct Ones {
    EQUICONV_INLINE Vec<T> re(std::int64_t) const { return splat(T(1)); }
  };
  template <class A>
  Vec<T> dot_of(const A& a, const T* b) const {
    return dot_lanes<T>(a, Numbers{b}, 0, vectors_ * W);
  }
  Vec<T> by_channel(Vec<T> lanes) const {
    if (step_ > 1) return lanes;
    return Vec<T>{sum<T>(lanes)};
  }
  static Input at(Input a, std::int64_t tap) {
    a.data = static_cast<const char*>(a.data) + tap * a.position * bytes_of(a.dtype);
    return a;
  }

  // Where frequency i of a real row's spectrum is kept, and whether as its conjugate.
  struct Place {
    std::int64_t frequency;
    bool mirrored;
  };
  Place place(std::int64_t i) const {
    i = (i % length_ + length_) % length_;
    return i > last_ ? Place{length_ - i, true} : Place{i, false};
  }
  void extend(Plane<T> a, std::int64_t i) const {
    const Place from = place(i);
    for (std::int64_t lane = 0; lane < step_; ++lane) {
      const std::int64_t to = i * step_ + lane, of = from.frequency * step_ + lane;
      a.re[to] = a.re[of];
      if (keyed_) a.im[to] = from.mirrored ? -a.im[of] : a.im[of];
    }
  }
  void fold(Plane<T> a, std::int64_t i) const {
    const Place to = place(i);
    for (std::int64_t lane = 0; lane < step_; ++lane) {
      const std::int64_t of = i * step_ + lane, sum = to.frequency * step_ + lane;
      a.re[sum] += a.re[of];
      if (keyed_) a.im[sum] += to.mirrored ? -a.im[of] : a.im[of];
    }
  }
  // The frequencies that are their own mirror image, times a factor; 0 is 0 whatever they are.
  void set_ends(T* part, T times) const {
    for (std::int64_t i = 0; i <= last_; i += std::max<std::int64_t>(last_, 1)) {
      if (i && !even_) break;
      for (std::int64_t lane = 0; lane < step_; ++lane) {
        T& value = part[i * step_ + lane];
        value = times == 0 ? T(0) : times * value;
      }
    }
  }

  bool keyed_, even_;
  std::int64_t length_, last_, width_, step_, reach_, vectors_;
  const Dft& dft_;
};

}  // namespace
