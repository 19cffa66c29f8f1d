// The gradients of conditioned_conv and orchid_mix: see conditioned_conv.cpp.
#pragma once
#include "orchid_mix_rows.h"

namespace {

template <class T, class Dft>
class ConditionedBackward {
 public:
  // mix: null but for orchid_mix
  ConditionedBackward(const ConditionedConv& size, const ConditionedConvBackward& a, const OrchidMix* mix,
                      int threads, cpu::Parallel parallel)
      : size_(size),
        a_(a),
        dft_(transform_of<Dft>(size.length)),
        mix_(size, mix),
        conditioning_(size, dft_),
        complex_(size.keyed || a.filter),
        wants_(a, mix, size.keyed),
        items_(divide(size, a, mix_, dft_.rows())),
        parallel_{parallel, threads},
        spread_(items_.count(), chunks(items_.group, dft_.rows()), threads, parallel),
        signals_(size, dft_, spread_) {}

  std::int64_t scratch() const {
    Arena arena(nullptr);
    Shared(*this, arena);
    for (std::int64_t i = 0; i < spread_.slots; ++i) Slot(*this, arena);
    return arena.used();
  }

  void run(void* scratch) const {
    const FlushSubnormals flush;
    Arena arena(scratch);
    const Shared shared(*this, arena);
    std::vector<Slot> slots;
    for (std::int64_t i = 0; i < spread_.slots; ++i) slots.emplace_back(*this, arena);
    spread_.outer(spread_.slots, [&](std::int64_t i) {
      for (std::int64_t n = items_.count() * i / spread_.slots; n < items_.count() * (i + 1) / spread_.slots;
           ++n)
        item(items_[n], items_[n + 1], n / items_.groups(), slots[std::size_t(i)], shared);
      signals_.finish();
    });
    finish(shared);
  }

 private:
  // Sums over the batch are taken in an order that depends on the sizes alone: same bits for any number of
  // threads.
  static constexpr std::int64_t kRuns = 64;

  // What of the graph is needed.
  struct Wants {
    bool sums;          // gradients of skip and bias
    bool convolution;   // c, for the gradient of post_gate
    bool signal;        // the gradient of u
    bool query, key;    // theirs
    bool conditioning;  // these and that of frequency_filter
    bool spectrum;      // that of H: for these, and for the static filter and Type II's bias
    Wants(const ConditionedConvBackward& a, const OrchidMix* mix, bool keyed)
        : sums(a.grad_skip || a.grad_frequency_bias),
          convolution(a.grad_post_gate || of(mix, OrchidMix::kPostGate)),
          signal(a.grad_x || a.grad_pre_gate || of(mix, OrchidMix::kPreGate) || of(mix, OrchidMix::kX)),
          query(a.grad_query || (mix && a.grad_x) || of(mix, OrchidMix::kQuery)),
          key(a.grad_key || (mix && keyed && a.grad_x) || of(mix, OrchidMix::kKey)),
          conditioning(query || key || a.grad_frequency_filter),
          spectrum(conditioning || a.grad_filter || (a.grad_frequency_bias && keyed)) {}
    bool any() const { return convolution || signal || spectrum; }

   private:
    static bool of(const OrchidMix* mix, OrchidMix::Signal s) { return mix && mix->of[s].wants(); }
  };

  struct Shared {
    T* weights;  // (batch, channels, width + 2): gradients of frequency_filter, frequency_bias and skip
    T* filter;   // (runs, channels, taps): those of the static filter, by run of the batch
    T* shorts;   // (runs, channels, sums): those of orchid_mix's short filters and biases
    Shared(const ConditionedBackward& b, Arena& arena) {
      const auto& n = b.size_;
      weights = arena.take<T>(
          b.wants_.sums || b.a_.grad_frequency_filter ? n.batch * n.channels * (n.width + 2) : 0);
      filter = arena.take<T>(b.a_.grad_filter ? b.items_.runs * n.channels * n.taps : 0);
      shorts = arena.take<T>(b.items_.runs * n.channels * b.mix_.sums());
    }
  };
  struct Slot {
    // An item's rows; of orchid_mix x, grad_out, pre_gate and post_gate as they are given.
    T *u, *g, *query, *key;
    std::vector<Plane<T>> statics, sums;
    struct Rows {
      Plane<T> u, g, query, key, other, a, h, gradient;
      std::array<T*, 5> made;  // of orchid_mix: what its short convolutions make, and gradients of it
    };
    std::vector<Rows> rows;

    Slot(const ConditionedBackward& b, Arena& arena) {
      if (b.mix_) {
        for (T** rows : {&u, &g, &query, &key}) *rows = b.mix_.take(arena, b.items_.group);
      } else {
        const std::int64_t room = b.items_.group * b.signals_.pitch;
        u = arena.take<T>(room), g = arena.take<T>(room), query = arena.take<T>(room);
        key = arena.take<T>(b.size_.keyed ? room : 0);
      }
      for (std::int64_t c = 0; c < chunks(b.items_.group, b.dft_.rows()); ++c) {
        if (b.a_.filter) statics.push_back(take_plane<T>(arena, b.dft_.spectrum()));
        if (b.a_.grad_filter) sums.push_back(take_plane<T>(arena, b.dft_.spectrum()));
      }
      const std::int64_t buffer = b.wants_.any() ? b.dft_.buffer() : 0;
      for (std::int64_t i = 0; i < b.spread_.rows; ++i) {
        std::array<Plane<T>, 5> z;
        for (Plane<T>& p : z) p = take_plane<T>(arena, buffer);
        rows.push_back({z[0],
                        z[1],
                        z[2],
                        z[3],
                        z[4],
                        b.conditioning_.take(arena, b.size_.keyed),
                        b.conditioning_.take(arena, b.complex_),
                        b.conditioning_.take(arena, b.size_.keyed),
                        {}});
        if (b.mix_)
          for (T*& made : rows.back().made) made = b.mix_.take(arena, b.dft_.rows());
      }
    }
  };

  static Items divide(const ConditionedConv& size, const ConditionedConvBackward& a, const MixRows<T>& mix,
                      int rows) {
    Items items{size.batch, size.channels,
                group<T>(size.channels, mix.length_of_group(), {a.grad_out, a.x, a.query, a.key}, rows),
                size.batch};
    if (a.filter || mix)
      items.runs =
          std::max<std::int64_t>(1, std::min(size.batch, (kRuns + items.groups() - 1) / items.groups()));
    return items;
  }

  void item(const Item& item, const Item& next, std::int64_t run, Slot& slot, const Shared& shared) const {
    const std::int64_t pitch = signals_.pitch;
    if (a_.filter && (wants_.convolution || wants_.signal))
      load_statics(size_, a_.filter, item, dft_, pitch, slot.u, slot.rows[0].u, slot.rows[0].other,
                   slot.statics, spread_.inner);
    for (const Plane<T>& sum : slot.sums)
      std::fill_n(sum.re, dft_.spectrum(), T(0)), std::fill_n(sum.im, dft_.spectrum(), T(0));
    std::fill_n(short_sums(shared, run, item.channel), item.channels * mix_.sums(), T(0));
    for (std::int64_t batch = item.batch; batch < item.batch_end; ++batch) {
      const auto part = [&](std::int64_t begin, std::int64_t end) {
        return Part{batch, item.channel, item.channels, begin, end};
      };
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        if (mix_)
          return mix_.load(
              {{a_.x, slot.u}, {a_.grad_out, slot.g}, {a_.pre_gate, slot.query}, {a_.post_gate, slot.key}},
              part(begin, end));
        signals_.load(a_.x, a_.pre_gate, part(begin, end), slot.u);
        signals_.load(a_.grad_out, a_.post_gate, part(begin, end), slot.g);
        signals_.load(a_.query, {}, part(begin, end), slot.query);
        signals_.load(a_.key, {}, part(begin, end), slot.key);
      });
      spread_.each_row(
          chunks(item.channels, dft_.rows()), [&](std::int64_t c, std::int64_t r, const Team& team) {
            const Chunk chunk = chunk_of(c, item.channels, dft_.rows());
            RowsAhead ahead(dft_, team);
            for (const Input* a : {&a_.x, &a_.pre_gate, &a_.grad_out, &a_.post_gate, &a_.query, &a_.key})
              ahead.add(*a, item.after(next, batch, c), size_.length);
            rows({batch, item.channel + chunk.first}, chunk, slot, run, c, ahead, slot.rows[std::size_t(r)],
                 shared, team);
          });
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        if (mix_)
          return mix_.store(
              {{a_.grad_x, slot.u}, {a_.grad_pre_gate, slot.query}, {a_.grad_post_gate, slot.key}},
              part(begin, end));
        signals_.store(a_.grad_post_gate, a_.grad_out, part(begin, end), slot.u);
        if (!signals_.in_place(a_.grad_x, a_.pre_gate, a_.grad_pre_gate, a_.x)) {
          signals_.store_loaded(a_.grad_x, a_.pre_gate, part(begin, end), slot.g);
          signals_.store_loaded(a_.grad_pre_gate, a_.x, part(begin, end), slot.g);
        }
        signals_.store(a_.grad_query, {}, part(begin, end), slot.query);
        signals_.store(a_.grad_key, {}, part(begin, end), slot.key);
      });
    }
    if (a_.grad_filter) keep_sums(item, run, slot, shared);
  }

  // What is not wanted goes along where it costs no transform, so that the bits of one gradient do not depend
  // on which others are wanted.
  void rows(Row at, Chunk chunk, const Slot& slot, std::int64_t run, std::int64_t c, RowsAhead& ahead,
            const typename Slot::Rows& s, const Shared& shared, const Team& team) const {
    const std::int64_t pitch = mix_ ? mix_.pitch : signals_.pitch, first = chunk.first * pitch;
    const std::int64_t count = chunk.count;
    T *const x = slot.u + first, *const grad_out = slot.g + first;
    T *const pre_gate = slot.query + first, *const post_gate = slot.key + first;
    const auto [made_x, made_gate, made_u, made_g, made] = s.made;
    const auto make = [&](OrchidMix::Signal signal, const T* of, T* out) {
      mix_.make(signal, at.channel, count, of, out, team);
      return out;
    };
    // From the gradient of what one made to those of its weights and (plus what is in `added`) of its signal.
    const auto pull = [&](OrchidMix::Signal signal, const T* of, T* gradient, const T* added, T* out) {
      mix_.extend(gradient, count);
      mix_.add_sums(signal, count, of, gradient, short_sums(shared, run, at.channel));
      if (a_.grad_x) mix_.pull(signal, at.channel, count, gradient, added, out, team);
    };
    if (mix_) {
      for (T* of : {x, pre_gate, post_gate}) mix_.extend(of, count);
      mix_.multiply(make(OrchidMix::kX, x, made_x), make(OrchidMix::kPreGate, pre_gate, made_gate), made_u,
                    count, team);
      mix_.multiply(make(OrchidMix::kPostGate, post_gate, made_g), grad_out, made_g, count, team);
    }
    const T* u = mix_ ? made_u : signals_.row(a_.x, a_.pre_gate, at, slot.u + first);
    const T* g = mix_ ? made_g : signals_.row(a_.grad_out, a_.post_gate, at, slot.g + first);
    T* weights = shared.weights + (at.batch * size_.channels + at.channel) * (size_.width + 2);
    if (wants_.sums) {
      for (std::int64_t i = 0; i < count; ++i) {
        const T sum = dot<T>(GatedRow<T, T>{u + i * pitch, nullptr, size_.length},
                             GatedRow<T, T>{g + i * pitch, nullptr, size_.length}, size_.length);
        T* of = weights + i * (size_.width + 2) + size_.width;
        of[0] = of[1] = sum;
      }
    }
    if (!wants_.any()) return;

    // 1. The conditioning signal, and of it H.
    const Weights<T> w =
        conditioning_.load_weights(a_.frequency_filter, a_.frequency_bias, a_.skip, at.channel, count);
    const bool multiplies = wants_.convolution || wants_.signal;
    if (multiplies || wants_.conditioning) {
      const T* query =
          mix_ ? make(OrchidMix::kQuery, x, made) : signals_.row(a_.query, {}, at, slot.query + first);
      dft_.forward(query, pitch, count, s.query, s.other, team, ahead);
      if (size_.keyed) {
        const T* key = mix_ ? make(OrchidMix::kKey, x, made) : signals_.row(a_.key, {}, at, slot.key + first);
        dft_.forward(key, pitch, count, s.key, s.other, team, ahead);
      }
      conditioning_.signal(s.query, s.key, s.a, ahead, team);
    }
    if (multiplies)
      conditioning_.filter(w, s.a, a_.filter ? slot.statics[std::size_t(c)] : Plane<T>{}, s.h, team);

    // 2. The convolution and its adjoint, and the gradient of H.
    const bool has_u = wants_.convolution || wants_.spectrum, has_g = wants_.signal || wants_.spectrum;
    if (has_u) dft_.forward(u, pitch, count, s.u, s.other, team, ahead);
    if (has_g) dft_.forward(g, pitch, count, s.g, s.other, team, ahead);
    multiply(has_u ? s.u : s.g, has_g ? s.g : s.u, s, a_.grad_filter ? &slot.sums[std::size_t(c)] : nullptr,
             multiplies, ahead, team);
    if (wants_.convolution) {
      const RealSink<T> c =
          mix_ ? RealSink<T>{made_u} : signals_.row(a_.grad_post_gate, a_.grad_out, at, slot.u + first);
      dft_.inverse(s.u, s.other, c, pitch, count, team, ahead);
      if (mix_) {
        mix_.multiply(made_u, grad_out, made_u, count, team);
        pull(OrchidMix::kPostGate, post_gate, made_u, nullptr, post_gate);
      }
    }
    if (wants_.signal) {
      const RealSink<T> grad_u =
          mix_ ? RealSink<T>{made_g}
               : signals_.row(a_.grad_x, a_.pre_gate, a_.grad_pre_gate, a_.x, at, slot.g + first);
      dft_.inverse(s.g, s.other, grad_u, pitch, count, team, ahead);
      if (mix_) {
        mix_.multiply(made_x, made_g, made_x, count, team);
        mix_.multiply(made_gate, made_g, made_gate, count, team);
        pull(OrchidMix::kPreGate, pre_gate, made_x, nullptr, pre_gate);
        pull(OrchidMix::kX, x, made_gate, nullptr, made);
      }
    }
    if (!wants_.spectrum) return;

    // 3. From there to query, key and the weights.
    conditioning_.end_gradient(s.gradient);
    const auto keep = [&](std::int64_t j, Vec<T> gradient, bool add) {
      for (std::int64_t i = 0; i < count; ++i) {
        T& of = weights[i * (size_.width + 2) + j];
        of = add ? of + gradient[i] : gradient[i];
      }
    };
    if (a_.grad_frequency_filter)
      for (std::int64_t j = 0; j < size_.width; ++j)
        keep(j, conditioning_.tap_gradient(s.gradient, s.a, j), false);
    if (a_.grad_frequency_bias && size_.keyed)
      keep(size_.width, conditioning_.bias_gradient(s.gradient), true);
    if (!wants_.query && !wants_.key) return;
    conditioning_.adjoint(w, s.gradient, s.h, team);
    conditioning_.gradients(s.h, s.a, s.query, s.key, ahead, team);
    if (wants_.query) {
      const RealSink<T> grad_query =
          mix_ ? RealSink<T>{made_u} : signals_.row(a_.grad_query, {}, at, slot.query + first);
      dft_.inverse(s.query, s.other, grad_query, pitch, count, team, ahead);
      if (mix_) pull(OrchidMix::kQuery, x, made_u, made, size_.keyed ? made : x);
    }
    if (wants_.key) {
      const RealSink<T> grad_key =
          mix_ ? RealSink<T>{made_u} : signals_.row(a_.grad_key, {}, at, slot.key + first);
      dft_.inverse(s.key, s.other, grad_key, pitch, count, team, ahead);
      if (mix_) pull(OrchidMix::kKey, x, made_u, made, x);
    }
  }

  T* short_sums(const Shared& shared, std::int64_t run, std::int64_t channel) const {
    return shared.shorts + (run * size_.channels + channel) * mix_.sums();
  }

  void multiply(Plane<T> u, Plane<T> g, const typename Slot::Rows& s, const Plane<T>* sum, bool multiplies,
                RowsAhead& ahead, const Team& team) const {
    const Plane<T> h = multiplies ? s.h : s.u;
    const bool gradient = wants_.spectrum, keyed = size_.keyed;
    const auto take = [&](const auto& at, const auto& product) {
      ahead.next(4);
      if (sum) at.put(*sum, at.get(*sum) + product);
      if (!gradient) return;
      if (keyed) at.put(s.gradient, product);
      else at.put(s.gradient.re, product.re);
    };
    if (complex_)
      dft_.template each_frequency<2, 2>(
          {u, g}, {s.u, s.g},
          [&](const auto& in, auto& out, const auto& at) {
            const auto spectrum = at.get(h);
            out[0] = spectrum * in[0], out[1] = conj(spectrum) * in[1];
            take(at, conj(in[0]) * in[1]);
          },
          team);
    else
      dft_.template each_frequency<2, 2>(
          {u, g}, {s.u, s.g},
          [&](const auto& in, auto& out, const auto& at) {
            const auto spectrum = at.get(h.re);
            out[0] = {spectrum * in[0].re, spectrum * in[0].im};
            out[1] = {spectrum * in[1].re, spectrum * in[1].im};
            take(at, conj(in[0]) * in[1]);
          },
          team);
  }

  // An item's part of the static filter's gradient: back in time.
  void keep_sums(const Item& item, std::int64_t run, Slot& slot, const Shared& shared) const {
    const std::int64_t pitch = signals_.pitch;
    const auto& s = slot.rows[0];
    const T scale = T(dft_.scale() / dft_.multiple());
    for (std::int64_t c = 0; c < chunks(item.channels, dft_.rows()); ++c) {
      const Chunk chunk = chunk_of(c, item.channels, dft_.rows());
      dft_.template each_frequency<0, 1>(
          {}, {s.u},
          [&](const auto&, auto& out, const auto& at) {
            out[0] = at.get(slot.sums[std::size_t(c)]);
            out[0].re *= scale, out[0].im *= scale;
          },
          spread_.inner);
      dft_.inverse(s.u, s.other, {slot.u + chunk.first * pitch}, pitch, chunk.count, spread_.inner);
    }
    for (std::int64_t c = 0; c < item.channels; ++c)
      std::copy_n(slot.u + c * pitch, size_.taps,
                  shared.filter + (run * size_.channels + item.channel + c) * size_.taps);
  }

  // Sums over the batch, of what items left in pieces.
  void finish(const Shared& shared) const {
    const auto& n = size_;
    const std::int64_t each = n.width + 2;
    const auto total = [&](std::int64_t channel, std::int64_t j) {
      T sum = 0;
      for (std::int64_t batch = 0; batch < n.batch; ++batch)
        sum += shared.weights[(batch * n.channels + channel) * each + j];
      return sum;
    };
    parallel_(n.channels, [&](std::int64_t channel) {
      if (a_.grad_frequency_filter) {
        std::array<T, ConditionedConv::kMaxWidth> taps;
        for (std::int64_t j = 0; j < n.width; ++j) taps[std::size_t(j)] = total(channel, j);
        store_rows<T>(a_.grad_frequency_filter, {}, {0, channel, 1, 0, n.width}, taps.data(), 0);
      }
      if (a_.grad_frequency_bias) store_value<T>(a_.grad_frequency_bias, channel, total(channel, n.width));
      if (a_.grad_skip) store_value<T>(a_.grad_skip, channel, total(channel, n.width + 1));
      if (a_.grad_filter) {
        T* sum = shared.filter + channel * n.taps;
        for (std::int64_t run = 1; run < items_.runs; ++run) {
          const T* more = shared.filter + (run * n.channels + channel) * n.taps;
          for (std::int64_t t = 0; t < n.taps; ++t) sum[t] += more[t];
        }
        store_rows<T>(a_.grad_filter, {}, {0, channel, 1, 0, n.taps}, sum, 0);
      }
      if (mix_.sums()) {
        T* sum = short_sums(shared, 0, channel);
        for (std::int64_t run = 1; run < items_.runs; ++run) {
          const T* more = short_sums(shared, run, channel);
          for (std::int64_t i = 0; i < mix_.sums(); ++i) sum[i] += more[i];
        }
        mix_.store_sums(channel, sum);
      }
    });
  }

  ConditionedConv size_;
  ConditionedConvBackward a_;
  const Dft& dft_;
  MixRows<T> mix_;
  Conditioning<T, Dft> conditioning_;
  bool complex_;  // H
  Wants wants_;
  Items items_;
  Team parallel_;
  Spread spread_;
  Signals<T, Dft> signals_;
};

}  // namespace
