// conditioned_conv on the CPU: y = post_gate * (irfft((H + rfft(filter)) * rfft(u)) + skip * u), u = pre_gate
// * x, with H made of query and key (conditioning.h), and its gradients.
//
// Work goes in items as in spectral_conv.cpp: a group of neighbouring channels over a run of batch entries,
// whose rows are transformed one at a time or a vector's width of them side by side. The static filter is
// transformed once for an item. No spectrum goes to memory: forward has two transforms, or three with a key,
// and one back; backward makes them anew and has one more, and up to four back. Rows whose positions are
// contiguous and that no gate changes are read and written where they lie.
//
// Bound by arithmetic as long as a thread's rows and spectra fit in its second cache.
#include "conditioned_conv.h"

#include "conditioning.h"

namespace {

// ---- forward ----------------------------------------------------------------------------------------------
template <class T, class Dft>
class ConditionedForward {
 public:
  ConditionedForward(const ConditionedConv& size, const ConditionedConvForward& a, int threads,
                     cpu::Parallel parallel)
      : size_(size),
        a_(a),
        dft_(transform_of<Dft>(size.length)),
        signals_(size.length, dft_),
        conditioning_(size, dft_),
        complex_(size.keyed || a.filter),
        items_(divide(size, a, dft_.rows(), threads)),
        spread_(items_.count(), chunks(items_.group, dft_.rows()), threads, parallel) {}

  std::int64_t scratch() const {
    Arena arena(nullptr);
    for (std::int64_t i = 0; i < spread_.slots; ++i) Slot(*this, arena);
    return arena.used();
  }

  void run(void* scratch) const {
    const FlushSubnormals flush;
    Arena arena(scratch);
    std::vector<Slot> slots;
    for (std::int64_t i = 0; i < spread_.slots; ++i) slots.emplace_back(*this, arena);
    spread_.outer(spread_.slots, [&](std::int64_t i) {
      for (std::int64_t n = items_.count() * i / spread_.slots; n < items_.count() * (i + 1) / spread_.slots;
           ++n)
        item(items_[n], items_[n + 1], slots[std::size_t(i)]);
    });
  }

 private:
  struct Slot {
    T *u, *query, *key;  // an item's rows
    std::vector<Plane<T>> statics;
    struct Rows {
      Plane<T> z, k, other, a, h;
    };
    std::vector<Rows> rows;

    Slot(const ConditionedForward& f, Arena& arena) {
      const std::int64_t room = f.items_.group * f.signals_.pitch;
      u = arena.take<T>(room);
      query = arena.take<T>(f.signals_.in_place(f.a_.query, {}) ? 0 : room);
      key = arena.take<T>(!f.a_.key || f.signals_.in_place(f.a_.key, {}) ? 0 : room);
      if (f.a_.filter)
        for (std::int64_t c = 0; c < chunks(f.items_.group, f.dft_.rows()); ++c)
          statics.push_back(take_plane<T>(arena, f.dft_.spectrum()));
      for (std::int64_t i = 0; i < f.spread_.rows; ++i) {
        const std::int64_t buffer = f.dft_.buffer();
        rows.push_back({take_plane<T>(arena, buffer), take_plane<T>(arena, f.size_.keyed ? buffer : 0),
                        take_plane<T>(arena, buffer), f.conditioning_.take(arena, f.size_.keyed),
                        f.conditioning_.take(arena, f.complex_)});
      }
    }
  };

  static Items divide(const ConditionedConv& size, const ConditionedConvForward& a, int rows, int threads) {
    Items items{size.batch, size.channels,
                group<T>(size.channels, size.length, {a.x, a.query, a.key, as_input(a.y)}, rows), size.batch};
    if (a.filter) items.runs = std::min(size.batch, (4 * threads + items.groups() - 1) / items.groups());
    return items;
  }

  void item(const Item& item, const Item& next, Slot& slot) const {
    const std::int64_t pitch = signals_.pitch;
    if (a_.filter)
      load_statics(size_, a_.filter, item, dft_, pitch, slot.u, slot.rows[0].z, slot.rows[0].other,
                   slot.statics, spread_.inner);
    for (std::int64_t batch = item.batch; batch < item.batch_end; ++batch) {
      const auto part = [&](std::int64_t begin, std::int64_t end) {
        return Part{batch, item.channel, item.channels, begin, end};
      };
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        signals_.load(a_.x, a_.pre_gate, part(begin, end), slot.u);
        signals_.load(a_.query, {}, part(begin, end), slot.query);
        signals_.load(a_.key, {}, part(begin, end), slot.key);
      });
      spread_.each_row(
          chunks(item.channels, dft_.rows()), [&](std::int64_t c, std::int64_t r, const Team& team) {
            const Chunk chunk = chunk_of(c, item.channels, dft_.rows());
            RowsAhead ahead;
            ahead.add(a_.post_gate, {batch, item.channel + c}, size_.length);
            for (const Input* a : {&a_.query, &a_.key, &a_.x, &a_.pre_gate})
              ahead.add(*a, item.after(next, batch, c), size_.length);
            rows({batch, item.channel + chunk.first}, chunk, slot, ahead.where_useful(dft_, team),
                 a_.filter ? slot.statics[std::size_t(c)] : Plane<T>{}, slot.rows[std::size_t(r)], team);
          });
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        signals_.store(a_.y, a_.post_gate, part(begin, end), slot.u);
      });
    }
  }

  void rows(Row at, Chunk chunk, const Slot& slot, RowsAhead* ahead, Plane<T> statics,
            const typename Slot::Rows& s, const Team& team) const {
    const std::int64_t pitch = signals_.pitch, first = chunk.first * pitch, count = chunk.count;
    // 1. H, of query and key
    dft_.forward(signals_.row(a_.query, {}, at, slot.query + first), pitch, count, s.z, s.other, team);
    if (a_.key)
      dft_.forward(signals_.row(a_.key, {}, at, slot.key + first), pitch, count, s.k, s.other, team);
    conditioning_.signal(s.z, s.k, s.a, ahead, team);
    const Weights<T> w =
        conditioning_.load_weights(a_.frequency_filter, a_.frequency_bias, a_.skip, at.channel, count);
    conditioning_.filter(w, s.a, statics, s.h, team);
    // 2. the convolution
    dft_.forward(signals_.row(a_.x, a_.pre_gate, at, slot.u + first), pitch, count, s.z, s.other, team);
    if (complex_)
      dft_.template each_frequency<1, 1>(
          {s.z}, {s.z},
          [&](const auto& in, auto& out, const auto& at) {
            if (ahead) ahead->next();
            out[0] = at.get(s.h) * in[0];
          },
          team);
    else
      dft_.template each_frequency<1, 1>(
          {s.z}, {s.z},
          [&](const auto& in, auto& out, const auto& at) {
            if (ahead) ahead->next();
            const auto h = at.get(s.h.re);
            out[0] = {h * in[0].re, h * in[0].im};
          },
          team);
    dft_.inverse(s.z, s.other, signals_.row(a_.y, a_.post_gate, at, slot.u + first), pitch, count, team);
  }

  ConditionedConv size_;
  ConditionedConvForward a_;
  const Dft& dft_;
  Signals<T, Dft> signals_;
  Conditioning<T, Dft> conditioning_;
  bool complex_;  // H
  Items items_;
  Spread spread_;
};

// ---- backward ---------------------------------------------------------------------------------------------
template <class T, class Dft>
class ConditionedBackward {
 public:
  ConditionedBackward(const ConditionedConv& size, const ConditionedConvBackward& a, int threads,
                      cpu::Parallel parallel)
      : size_(size),
        a_(a),
        dft_(transform_of<Dft>(size.length)),
        signals_(size.length, dft_),
        conditioning_(size, dft_),
        complex_(size.keyed || a.filter),
        wants_(a, size.keyed),
        items_(divide(size, a, dft_.rows())),
        parallel_{parallel, threads},
        spread_(items_.count(), chunks(items_.group, dft_.rows()), threads, parallel) {}

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
    bool conditioning;  // those of query, key and frequency_filter
    bool spectrum;      // that of H: for these, and for the static filter and Type II's bias
    Wants(const ConditionedConvBackward& a, bool keyed)
        : sums(a.grad_skip || a.grad_frequency_bias),
          convolution(a.grad_post_gate),
          signal(a.grad_x || a.grad_pre_gate),
          conditioning(a.grad_query || a.grad_key || a.grad_frequency_filter),
          spectrum(conditioning || a.grad_filter || (a.grad_frequency_bias && keyed)) {}
    bool any() const { return convolution || signal || spectrum; }
  };

  struct Shared {
    T* weights;  // (batch, channels, width + 2): gradients of frequency_filter, frequency_bias and skip
    T* filter;   // (runs, channels, taps): those of the static filter, by run of the batch
    Shared(const ConditionedBackward& b, Arena& arena) {
      const auto& n = b.size_;
      weights = arena.take<T>(
          b.wants_.sums || b.a_.grad_frequency_filter ? n.batch * n.channels * (n.width + 2) : 0);
      filter = arena.take<T>(b.a_.grad_filter ? b.items_.runs * n.channels * n.taps : 0);
    }
  };
  struct Slot {
    T *u, *g, *query, *key;  // an item's rows
    std::vector<Plane<T>> statics, sums;
    struct Rows {
      Plane<T> u, g, query, key, other, a, h, gradient;
    };
    std::vector<Rows> rows;

    Slot(const ConditionedBackward& b, Arena& arena) {
      const std::int64_t room = b.items_.group * b.signals_.pitch;
      u = arena.take<T>(room), g = arena.take<T>(room), query = arena.take<T>(room);
      key = arena.take<T>(b.a_.key ? room : 0);
      for (std::int64_t c = 0; c < chunks(b.items_.group, b.dft_.rows()); ++c) {
        if (b.a_.filter) statics.push_back(take_plane<T>(arena, b.dft_.spectrum()));
        if (b.a_.grad_filter) sums.push_back(take_plane<T>(arena, b.dft_.spectrum()));
      }
      const std::int64_t buffer = b.wants_.any() ? b.dft_.buffer() : 0;
      for (std::int64_t i = 0; i < b.spread_.rows; ++i) {
        std::array<Plane<T>, 5> z;
        for (Plane<T>& p : z) p = take_plane<T>(arena, buffer);
        rows.push_back({z[0], z[1], z[2], z[3], z[4], b.conditioning_.take(arena, b.size_.keyed),
                        b.conditioning_.take(arena, b.complex_), b.conditioning_.take(arena, b.size_.keyed)});
      }
    }
  };

  static Items divide(const ConditionedConv& size, const ConditionedConvBackward& a, int rows) {
    Items items{size.batch, size.channels,
                group<T>(size.channels, size.length, {a.grad_out, a.x, a.query, a.key}, rows), size.batch};
    if (a.filter)
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
    for (std::int64_t batch = item.batch; batch < item.batch_end; ++batch) {
      const auto part = [&](std::int64_t begin, std::int64_t end) {
        return Part{batch, item.channel, item.channels, begin, end};
      };
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        signals_.load(a_.x, a_.pre_gate, part(begin, end), slot.u);
        signals_.load(a_.grad_out, a_.post_gate, part(begin, end), slot.g);
        signals_.load(a_.query, {}, part(begin, end), slot.query);
        signals_.load(a_.key, {}, part(begin, end), slot.key);
      });
      spread_.each_row(
          chunks(item.channels, dft_.rows()), [&](std::int64_t c, std::int64_t r, const Team& team) {
            const Chunk chunk = chunk_of(c, item.channels, dft_.rows());
            RowsAhead ahead;
            for (const Input* a : {&a_.x, &a_.pre_gate, &a_.grad_out, &a_.post_gate, &a_.query, &a_.key})
              ahead.add(*a, item.after(next, batch, c), size_.length);
            rows({batch, item.channel + chunk.first}, chunk, slot, c, ahead.where_useful(dft_, team),
                 slot.rows[std::size_t(r)], shared, team);
          });
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        signals_.store(a_.grad_post_gate, a_.grad_out, part(begin, end), slot.u);
        signals_.store(a_.grad_x, a_.pre_gate, part(begin, end), slot.g);
        signals_.store(a_.grad_pre_gate, a_.x, part(begin, end), slot.g);
        signals_.store(a_.grad_query, {}, part(begin, end), slot.query);
        signals_.store(a_.grad_key, {}, part(begin, end), slot.key);
      });
    }
    if (a_.grad_filter) keep_sums(item, run, slot, shared);
  }

  // What is not wanted goes along where it costs no transform, so that the bits of one gradient do not depend
  // on which others are wanted.
  void rows(Row at, Chunk chunk, const Slot& slot, std::int64_t c, RowsAhead* ahead,
            const typename Slot::Rows& s, const Shared& shared, const Team& team) const {
    const std::int64_t pitch = signals_.pitch, first = chunk.first * pitch, count = chunk.count;
    const T* u = signals_.row(a_.x, a_.pre_gate, at, slot.u + first);
    const T* g = signals_.row(a_.grad_out, a_.post_gate, at, slot.g + first);
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
      dft_.forward(signals_.row(a_.query, {}, at, slot.query + first), pitch, count, s.query, s.other, team);
      if (a_.key)
        dft_.forward(signals_.row(a_.key, {}, at, slot.key + first), pitch, count, s.key, s.other, team);
      conditioning_.signal(s.query, s.key, s.a, ahead, team);
    }
    if (multiplies)
      conditioning_.filter(w, s.a, a_.filter ? slot.statics[std::size_t(c)] : Plane<T>{}, s.h, team);

    // 2. The convolution and its adjoint, and the gradient of H.
    const bool has_u = wants_.convolution || wants_.spectrum, has_g = wants_.signal || wants_.spectrum;
    if (has_u) dft_.forward(u, pitch, count, s.u, s.other, team);
    if (has_g) dft_.forward(g, pitch, count, s.g, s.other, team);
    multiply(has_u ? s.u : s.g, has_g ? s.g : s.u, s, a_.grad_filter ? &slot.sums[std::size_t(c)] : nullptr,
             multiplies, ahead, team);
    if (wants_.convolution) dft_.inverse(s.u, s.other, slot.u + first, pitch, count, team);
    if (wants_.signal)
      dft_.inverse(s.g, s.other, signals_.row(a_.grad_x, a_.pre_gate, at, slot.g + first), pitch, count,
                   team);
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
    if (!a_.grad_query && !a_.grad_key) return;
    conditioning_.adjoint(w, s.gradient, s.h, team);
    conditioning_.gradients(s.h, s.a, s.query, s.key, ahead, team);
    if (a_.grad_query)
      dft_.inverse(s.query, s.other, signals_.row(a_.grad_query, {}, at, slot.query + first), pitch, count,
                   team);
    if (a_.grad_key)
      dft_.inverse(s.key, s.other, signals_.row(a_.grad_key, {}, at, slot.key + first), pitch, count, team);
  }

  void multiply(Plane<T> u, Plane<T> g, const typename Slot::Rows& s, const Plane<T>* sum, bool multiplies,
                RowsAhead* ahead, const Team& team) const {
    const Plane<T> h = multiplies ? s.h : s.u;
    const bool gradient = wants_.spectrum, keyed = size_.keyed;
    const auto take = [&](const auto& at, const auto& product) {
      if (ahead) ahead->next();
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
      dft_.inverse(s.u, s.other, slot.u + chunk.first * pitch, pitch, chunk.count, spread_.inner);
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
    });
  }

  ConditionedConv size_;
  ConditionedConvBackward a_;
  const Dft& dft_;
  Signals<T, Dft> signals_;
  Conditioning<T, Dft> conditioning_;
  bool complex_;  // H
  Wants wants_;
  Items items_;
  Team parallel_;
  Spread spread_;
};

// ---- the table --------------------------------------------------------------------------------------------
std::int64_t forward_scratch(const ConditionedConv& size, const ConditionedConvForward& a, int threads) {
  return with_transform(a.x.dtype, size.length, [&](auto t, auto* dft) {
    return ConditionedForward<decltype(t), Pointee<decltype(dft)>>(size, a, threads, nullptr).scratch();
  });
}
std::int64_t backward_scratch(const ConditionedConv& size, const ConditionedConvBackward& a, int threads) {
  return with_transform(a.x.dtype, size.length, [&](auto t, auto* dft) {
    return ConditionedBackward<decltype(t), Pointee<decltype(dft)>>(size, a, threads, nullptr).scratch();
  });
}
void forward(const ConditionedConv& size, const ConditionedConvForward& a, void* scratch, int threads,
             cpu::Parallel parallel) {
  with_transform(a.x.dtype, size.length, [&](auto t, auto* dft) {
    ConditionedForward<decltype(t), Pointee<decltype(dft)>>(size, a, threads, parallel).run(scratch);
  });
}
void backward(const ConditionedConv& size, const ConditionedConvBackward& a, void* scratch, int threads,
              cpu::Parallel parallel) {
  with_transform(a.x.dtype, size.length, [&](auto t, auto* dft) {
    ConditionedBackward<decltype(t), Pointee<decltype(dft)>>(size, a, threads, parallel).run(scratch);
  });
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const ConditionedConvKernels conditioned_conv;
const ConditionedConvKernels conditioned_conv = {forward_scratch, backward_scratch, forward, backward};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
