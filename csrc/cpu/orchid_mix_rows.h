// The short convolutions of orchid_mix and their adjoints, on rows in cache: a tap is a multiply-add a
// vector.
//
// An item's rows are what its channels of z are, of all three streams. Rows have room at both ends, where
// they go on, periodic or zero, as far as taps reach; so no loop asks where a row ends. What is called for
// each row is not inlined: it is the same for all transforms, and rows are long.
#pragma once
#include "../orchid_mix.h"
#include "conditioning.h"

namespace {

template <class T>
class MixRows {
  static constexpr int W = kLanes<T>;
  static constexpr std::int64_t kReach = kMaxTaps;  // whole vectors, or a vector's whole parts

 public:
  std::int64_t pitch;

  // Of conditioned_conv itself `mix` is null, and nothing else here is called.
  MixRows(const ConditionedConv& size, const OrchidMix* mix)
      : pitch(row_pitch<T>(size.length + 2 * kReach)),
        mix_(mix),
        elements_(size.batch * size.channels * size.length),
        length_(size.length),
        vectors_((size.length + W - 1) / W) {
    if (!mix) return;
    for (const MixShort& s : mix->of) sums_ += s.wants() ? s.taps + 1 : 0;
  }

  explicit operator bool() const { return mix_; }
  const MixShort& of(OrchidMix::Signal s) const { return mix_->of[s]; }

  // For group_of: with all streams in the cache beside each other, half as many channels are worth it:
  // on an EPYC with AVX-512 and 1 MB of L2 L = 4096 took 0.8 of the time forward, 0.87 backward.
  std::int64_t length_of_group() const { return mix_ ? 2 * length_ : length_; }

  // Rows are counted from their first position.
  T* take(Arena& arena, std::int64_t rows) const {
    return arena.take<T>(rows ? kReach + rows * pitch : 0) + kReach;
  }

  // Between memory and an item's rows. The same positions of z's streams lie in the same pages of memory, so
  // they are read, and written, together.
  template <class Void>
  struct Stream {
    Array<Void> array;
    T* rows;
  };
  __attribute__((noinline)) void load(std::initializer_list<Stream<const void>> streams,
                                      const Part& part) const {
    each_block(part, [&](const Part& block) {
      for (const auto& s : streams) load_rows<T>(s.array, {}, block, s.rows + block.begin, pitch);
    });
  }
  __attribute__((noinline)) void store(std::initializer_list<Stream<void>> streams, const Part& part) const {
    const bool past = past_caches(streams.begin()->array.dtype, elements_, false);
    each_block(part, [&](const Part& block) {
      for (const auto& s : streams)
        if (s.array) store_rows<T>(s.array, {}, block, s.rows + block.begin, pitch, past);
    });
    if (past) fence();
  }

  __attribute__((noinline)) void extend(T* rows, std::int64_t count) const {
    for (; count > 0; --count, rows += pitch)
      for (std::int64_t i = 0; i < kReach; ++i) {
        const std::int64_t before = length_ - 1 - i % length_, after = i % length_;
        rows[-1 - i] = mix_->circular ? rows[before] : T(0);
        rows[length_ + i] = mix_->circular ? rows[after] : T(0);
      }
  }

  // out <- the short convolution of rows that have been extended
  __attribute__((noinline)) void make(OrchidMix::Signal s, std::int64_t channel, std::int64_t count,
                                      const T* rows, T* out, const Team& team) const {
    for (std::int64_t i = 0; i < count; ++i) {
      const Taps taps(of(s), channel + i);
      const T* from = rows + i * pitch + of(s).ahead;
      team.ranges(vectors_, [&](std::int64_t begin, std::int64_t end) {
        weighted_sum<T>(taps.tap, of(s).taps, from, -1, taps.bias, nullptr, out + i * pitch, begin, end);
      });
    }
  }
  // out <- its adjoint (plus what is in `added`)
  __attribute__((noinline)) void pull(OrchidMix::Signal s, std::int64_t channel, std::int64_t count,
                                      const T* gradient, const T* added, T* out, const Team& team) const {
    for (std::int64_t i = 0; i < count; ++i) {
      const Taps taps(of(s), channel + i);
      const T* from = gradient + i * pitch - of(s).ahead;
      team.ranges(vectors_, [&](std::int64_t begin, std::int64_t end) {
        weighted_sum<T>(taps.tap, of(s).taps, from, 1, Vec<T>{}, added ? added + i * pitch : nullptr,
                        out + i * pitch, begin, end);
      });
    }
  }
  __attribute__((noinline)) void multiply(const T* a, const T* b, T* out, std::int64_t count,
                                          const Team& team) const {
    for (std::int64_t i = 0; i < count; ++i, a += pitch, b += pitch, out += pitch)
      team.ranges(vectors_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t v = begin; v < end; ++v)
          ::store(out + v * W, ::load(a + v * W) * ::load(b + v * W));
      });
  }

  // ---- gradients of filters and biases: one after another for each channel, what is wanted of them --------
  std::int64_t sums() const { return sums_; }

  // Adds a row's to a channel's sums.
  __attribute__((noinline)) void add_sums(OrchidMix::Signal s, std::int64_t count, const T* rows,
                                          const T* gradient, T* sums) const {
    if (!of(s).wants()) return;
    sums += first_sum(s);
    for (std::int64_t i = 0; i < count; ++i, sums += sums_, rows += pitch, gradient += pitch) {
      for (std::int64_t j = 0; j < of(s).taps; j += kTogether) {
        const Products sum = products(gradient, rows + of(s).ahead - j, 0, vectors_);
        const std::int64_t taps = std::min<std::int64_t>(kTogether, of(s).taps - j);
        for (std::int64_t k = 0; k < taps; ++k) sums[j + k] += ::sum<T>(sum.taps[k]);
        if (j == 0) sums[of(s).taps] += ::sum<T>(sum.all);
      }
    }
  }
  // A channel's sums to where they are wanted.
  void store_sums(std::int64_t channel, const T* sums) const {
    for (const MixShort& s : mix_->of) {
      if (!s.wants()) continue;
      if (s.grad_filter) store_rows<T>(s.grad_filter, {}, {0, channel, 1, 0, s.taps}, sums, 0);
      if (s.grad_bias) store_value<T>(s.grad_bias, channel, sums[s.taps]);
      sums += s.taps + 1;
    }
  }

 private:
  template <class F>
  static void each_block(Part part, F f) {
    constexpr std::int64_t kBlock = 256;
    for (const std::int64_t end = part.end; part.begin < end; part.begin = part.end) {
      part.end = std::min(part.begin + kBlock, end);
      f(part);
    }
  }

  struct Taps {
    Vec<T> tap[kMaxTaps], bias;

    Taps(const MixShort& s, std::int64_t channel) {
      T values[kMaxTaps];
      with_storage(s.filter.dtype, [&](auto* storage) {
        const auto* from = pointer<const std::remove_pointer_t<decltype(storage)>>(s.filter, 0, channel, 0);
        for (std::int64_t j = 0; j < s.taps; ++j) values[j] = T(widen(from[j * s.filter.position]));
      });
      for (std::int64_t j = 0; j < s.taps; ++j) tap[j] = splat(values[j]);
      bias = splat(s.bias ? load_value<T>(s.bias, channel) : T(0));
    }
  };

  // Sums over t of g[t] x[t - j], and of g[t], in lanes; pairwise over blocks, as dot_lanes.
  static constexpr int kTogether = 4;
  struct Products {
    Vec<T> taps[kTogether], all;
  };
  Products products(const T* g, const T* x, std::int64_t begin, std::int64_t end) const {
    Products sum{};
    if (end - begin > kSumBlock) {
      const std::int64_t middle = (begin + end) / 2;
      sum = products(g, x, begin, middle);
      const Products more = products(g, x, middle, end);
      for (int k = 0; k < kTogether; ++k) sum.taps[k] += more.taps[k];
      sum.all += more.all;
      return sum;
    }
    const auto add = [&](Vec<T> gradient, const auto& values) {
#pragma GCC unroll 4
      for (int k = 0; k < kTogether; ++k) sum.taps[k] += gradient * values(k);
      sum.all += gradient;
    };
    for (std::int64_t t = begin * W; t < end * W; t += W) {
      if (const int rest = int(length_ - t); rest < W)  // what lies past a row's end may be no number
        add(load_some<T>(g + t, rest), [&](int k) { return load_some<T>(x + t - k, rest); });
      else add(::load(g + t), [&](int k) { return ::load(x + t - k); });
    }
    return sum;
  }
  std::int64_t first_sum(OrchidMix::Signal s) const {
    std::int64_t first = 0;
    for (int i = 0; i < s; ++i) first += mix_->of[i].wants() ? mix_->of[i].taps + 1 : 0;
    return first;
  }

  const OrchidMix* mix_;
  std::int64_t elements_, length_, vectors_, sums_ = 0;
};

}  // namespace
