// fft_conv on the CPU: y = post_gate * (filter (*) u + skip * u), u = pre_gate * x, and its gradients.
//
// Work goes in items: a group of neighbouring channels of one batch entry (one channel where positions are
// contiguous, a tile's width of them where channels are), or, with a filter shared by the batch, such a group
// over a run of batch entries. An item's rows are loaded and gated into cache, transformed one at a time
// (ring.h), and gated and stored; no intermediate ever goes to memory. Backward recomputes the spectra of u
// and filter instead of saving them: three transforms down and up to three back.
//
// Bound by arithmetic up to N = 64k or so (about 3.5 vector instructions a point, level and transform), by
// the traffic with the outer caches beyond.
#include "fft_conv.h"

#include "fft_conv_items.h"

namespace {

// Tiles, like rows, are fetched ahead only where their rows are short: others do not stay in the cache, and
// then asking for them only costs time.
bool tiles_ahead(const FftConv& size, DType dtype) {
  return size.length * bytes_of(dtype) <= Ahead::kLongest;
}

// ---- forward -------------------------------------------------------------------------------------
template <class T>
class Forward {
 public:
  Forward(const FftConv& size, const FftConvForward& a, int threads, cpu::Parallel parallel)
      : conv_(size),
        a_(a),
        items_(divide(size, a, threads)),
        spread_(items_.count(), items_.group, threads, parallel) {
    reuse_ = !conv_.direct && size.shared && items_.group * conv_.points <= Convolution<T>::kReuse;
    in_place_ = conv_.in_place({a.x, a.pre_gate, a.post_gate, as_input(a.y)});
    past_caches_ = past_caches(a.y.dtype, size.batch * size.channels * size.length, in_place_);
  }

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
    T *u, *filters;       // an item's rows
    Complex<T>* spectra;  // of filters that are reused
    struct Row {
      T *re, *im, *padded;
      Complex<T>*u, *k;
    };
    std::vector<Row> rows;

    Slot(const Forward& f, Arena& arena) {
      const auto& c = f.conv_;
      u = arena.take<T>(f.in_place_ ? 0 : f.items_.group * c.pitch);
      filters = arena.take<T>(c.turns(f.a_.filter, f.items_.group) ? f.items_.group * c.turned_pitch() : 0);
      spectra = arena.take<Complex<T>>(f.reuse_ ? f.items_.group * c.vectors() : 0);
      for (std::int64_t i = 0; i < f.spread_.rows; ++i)
        rows.push_back({arena.take<T>(c.filter_row()), arena.take<T>(c.two_sided ? c.filter_row() : 0),
                        arena.take<T>(c.padded), arena.take<Complex<T>>(c.vectors()),
                        arena.take<Complex<T>>(f.reuse_ ? 0 : c.vectors())});
    }
  };

  static Items divide(const FftConv& size, const FftConvForward& a, int threads) {
    Items items{size.batch, size.channels,
                std::min(std::max({group_of<T>(a.x, size.length), group_of<T>(a.y, size.length),
                                   group_of<T>(a.filter, size.taps)}),
                         std::max<std::int64_t>(size.channels, 1)),
                size.batch};
    if (size.shared) items.runs = std::min(size.batch, (4 * threads + items.groups() - 1) / items.groups());
    return items;
  }

  void item(const Item& item, const Item& next, Slot& slot) const {
    const auto& n = conv_.size;
    Filters filters;
    const auto turn = [&](std::int64_t batch) {
      filters = conv_.turned(a_.filter, items_.group, {batch, item.channel}, item.channels, slot.filters,
                             spread_.inner);
    };
    if (n.shared) turn(0);
    if (reuse_)
      spread_.each_row(item.channels, [&](std::int64_t c, std::int64_t r, const Team& team) {
        Complex<T>* k = slot.spectra + c * conv_.vectors();
        const auto& s = slot.rows[std::size_t(r)];
        conv_.read_filter(filters.rows, filters[c], s.re, s.im, k, team);
        Spectra<T> x;
        x.split = {k};
        conv_.transform->multiply(x, team);
      });
    for (std::int64_t batch = item.batch; batch < item.batch_end; ++batch) {
      if (!n.shared) turn(batch);
      const auto load = [&](std::int64_t begin, std::int64_t end) {
        load_rows<T>(a_.x, a_.pre_gate, {batch, item.channel, item.channels, begin, end}, slot.u + begin,
                     conv_.pitch);
      };
      const auto store = [&](std::int64_t begin, std::int64_t end) {
        store_rows<T>(a_.y, a_.post_gate, {batch, item.channel, item.channels, begin, end}, slot.u + begin,
                      conv_.pitch, past_caches_);
      };
      if (!in_place_) spread_.inner.ranges(n.length, load);
      spread_.each_row(item.channels, [&](std::int64_t c, std::int64_t r, const Team& team) {
        row({batch, item.channel + c}, slot.u + c * conv_.pitch, filters, c, slot.rows[std::size_t(r)],
            reuse_ ? slot.spectra + c * conv_.vectors() : nullptr, team, ahead(item, next, batch, c));
      });
      if (!in_place_) spread_.inner.ranges(n.length, store);
    }
  }

  // What row c of an item leaves to be fetched while it is worked on: what is stored next, and what is loaded
  // then.
  Ahead ahead(const Item& item, const Item& next, std::int64_t batch, std::int64_t c) const {
    const auto& n = conv_.size;
    Ahead rows(conv_.leaves());
    look_ahead(rows, a_.post_gate, batch, item.channel + c, n.length);
    if (!past_caches_) look_ahead(rows, a_.y, batch, item.channel + c, n.length);
    const Row then = item.after(next, batch, c);
    for (const Input* a : {&a_.x, &a_.pre_gate}) {
      look_ahead(rows, *a, then.batch, then.channel, n.length);
      if (tiles_ahead(n, a_.x.dtype)) look_ahead(rows, *a, item.slice_after(next, batch, c, n.length));
    }
    if (tiles_ahead(n, a_.x.dtype)) look_ahead(rows, a_.post_gate, item.slice(batch, c, n.length));
    if (!reuse_) look_ahead(rows, a_.filter, then.batch, then.channel, n.taps);
    return rows;
  }

  // u <- filter (*) u + skip * u, or in place from x to y
  void row(Row at, T* u, const Filters& filters, std::int64_t c, const typename Slot::Row& s,
           Complex<T>* ready, const Team& team, const Ahead& ahead) const {
    const auto& n = conv_.size;
    const T skip = a_.skip ? load_value<T>(a_.skip, at.channel) : T(0);
    if (conv_.direct) {
      conv_.load_taps(filters.rows, filters[c], s.re);
      const T* padded = conv_.pad(u, s.padded);
      slide<T, -1>(s.re, n.taps, padded + conv_.centre, u, n.length);
      if (a_.skip)
        for (std::int64_t t = 0; t < n.length; ++t) u[t] += skip * padded[t];
      return;
    }
    Spectra<T> x;
    x.u = s.u, x.k = ready ? ready : s.k, x.convolve = true, x.merge = {x.u}, x.ahead = &ahead;
    conv_.read_signal(in_place_, a_.x, a_.pre_gate, at, u, x.u, team);
    if (ready) {
      x.split = {x.u};
    } else {
      conv_.read_filter(filters.rows, filters[c], s.re, s.im, x.k, team);
      x.split = {x.u, x.k};
    }
    conv_.transform->multiply(x, team);
    if (!in_place_) return conv_.write_signal(x.u, u, bool(a_.skip), skip, team);
    with_arithmetic_storage<T>(a_.x.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      const GatedSink<T, S> y{{row_of<S>(a_.y, at), row_of<const S>(a_.post_gate, at)},
                              {},
                              conv_.template signal<S>(a_.x, a_.pre_gate, at),
                              bool(a_.skip),
                              skip,
                              past_caches_};
      conv_.transform->write_to(x.u, y, team);
    });
  }

  Convolution<T> conv_;
  FftConvForward a_;
  Items items_;
  Spread spread_;
  bool reuse_;        // a shared filter's spectrum serves the whole batch
  bool in_place_;     // rows are read and written where they lie
  bool past_caches_;  // and then are not wanted in the caches
};

// ---- backward ------------------------------------------------------------------------------------
template <class T>
class Backward {
 public:
  Backward(const FftConv& size, const FftConvBackward& a, int threads, cpu::Parallel parallel)
      : conv_(size),
        a_(a),
        signal_(a.grad_x || a.grad_pre_gate),
        items_(divide(size, a)),
        parallel_{parallel, threads},
        spread_(items_.count(), items_.group, threads, parallel),
        in_place_(conv_.in_place({a.grad_out, a.x, a.pre_gate, a.post_gate, as_input(a.grad_x),
                                  as_input(a.grad_pre_gate), as_input(a.grad_post_gate)})),
        past_caches_(past_caches(a.x.dtype, size.batch * size.channels * size.length, in_place_)) {}

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

  struct Shared {
    T* filter;  // (runs, channels, taps): gradient of a shared filter, by run of the batch
    T* skip;    // (batch, channels)
    Shared(const Backward& b, Arena& arena) {
      const auto& n = b.conv_.size;
      filter = arena.take<T>(n.shared && b.a_.grad_filter ? b.items_.runs * n.channels * n.taps : 0);
      skip = arena.take<T>(b.a_.grad_skip ? n.batch * n.channels : 0);
    }
  };
  struct Slot {
    T *u, *g, *filters;  // an item's rows
    Complex<T>* sums;    // spectra of a shared filter's gradients
    struct Row {
      T *re, *im, *padded;
      Complex<T>*u, *k, *g;
    };
    std::vector<Row> rows;

    Slot(const Backward& b, Arena& arena) {
      const auto& c = b.conv_;
      const std::int64_t staged = b.in_place_ ? 0 : b.items_.group * c.pitch;
      u = arena.take<T>(staged), g = arena.take<T>(staged);
      filters = arena.take<T>(c.turns(b.a_.filter, b.items_.group) ? b.items_.group * c.turned_pitch() : 0);
      sums = arena.take<Complex<T>>(c.size.shared && b.a_.grad_filter ? b.items_.group * c.vectors() : 0);
      const std::int64_t row = std::max(c.filter_row(), c.size.taps);  // a filter's polynomial, then its taps
      for (std::int64_t i = 0; i < b.spread_.rows; ++i)
        rows.push_back({arena.take<T>(row), arena.take<T>(row), arena.take<T>(c.padded),
                        arena.take<Complex<T>>(c.vectors()), arena.take<Complex<T>>(c.vectors()),
                        arena.take<Complex<T>>(c.vectors())});
    }
  };

  static Items divide(const FftConv& size, const FftConvBackward& a) {
    Items items{size.batch, size.channels,
                std::min(std::max({group_of<T>(a.x, size.length), group_of<T>(a.grad_out, size.length),
                                   group_of<T>(a.filter, size.taps)}),
                         std::max<std::int64_t>(size.channels, 1)),
                size.batch};
    if (size.shared)
      items.runs =
          std::max<std::int64_t>(1, std::min(size.batch, (kRuns + items.groups() - 1) / items.groups()));
    return items;
  }

  void item(const Item& item, const Item& next, std::int64_t run, Slot& slot, const Shared& shared) const {
    const auto& n = conv_.size;
    const bool summed = n.shared && a_.grad_filter;
    Filters filters;
    const auto turn = [&](std::int64_t batch) {
      filters = conv_.turned(a_.filter, items_.group, {batch, item.channel}, item.channels, slot.filters,
                             spread_.inner);
    };
    if (n.shared) turn(0);
    if (summed && !conv_.direct) std::fill_n(slot.sums, item.channels * conv_.vectors(), Complex<T>{});
    if (summed && conv_.direct)
      for (std::int64_t c = 0; c < item.channels; ++c)
        std::fill_n(partial(shared, run, item.channel + c), n.taps, T(0));
    for (std::int64_t batch = item.batch; batch < item.batch_end; ++batch) {
      if (!n.shared) turn(batch);
      const auto part = [&](std::int64_t begin, std::int64_t end) {
        return Part{batch, item.channel, item.channels, begin, end};
      };
      const auto load = [&](std::int64_t begin, std::int64_t end) {
        load_rows<T>(a_.x, a_.pre_gate, part(begin, end), slot.u + begin, conv_.pitch);
        load_rows<T>(a_.grad_out, a_.post_gate, part(begin, end), slot.g + begin, conv_.pitch);
      };
      const auto store = [&](std::int64_t begin, std::int64_t end) {
        if (a_.grad_post_gate)
          store_rows<T>(a_.grad_post_gate, a_.grad_out, part(begin, end), slot.u + begin, conv_.pitch,
                        past_caches_);
        if (a_.grad_x)
          store_rows<T>(a_.grad_x, a_.pre_gate, part(begin, end), slot.g + begin, conv_.pitch, past_caches_);
        if (a_.grad_pre_gate)
          store_rows<T>(a_.grad_pre_gate, a_.x, part(begin, end), slot.g + begin, conv_.pitch, past_caches_);
      };
      if (!in_place_) spread_.inner.ranges(n.length, load);
      spread_.each_row(item.channels, [&](std::int64_t c, std::int64_t r, const Team& team) {
        T *u = slot.u + c * conv_.pitch, *g = slot.g + c * conv_.pitch;
        const Row at{batch, item.channel + c};
        const auto& s = slot.rows[std::size_t(r)];
        if (a_.grad_skip) shared.skip[batch * n.channels + at.channel] = skip_gradient(at, u, g);
        if (conv_.direct)
          direct_row(at, u, g, filters, c, s, summed ? partial(shared, run, at.channel) : nullptr);
        else
          row(at, u, g, filters, c, s, summed ? slot.sums + c * conv_.vectors() : nullptr, team,
              ahead(item, next, batch, c));
      });
      if (!in_place_) spread_.inner.ranges(n.length, store);
    }
    if (summed && !conv_.direct)
      spread_.each_row(item.channels, [&](std::int64_t c, std::int64_t r, const Team& team) {
        const auto& s = slot.rows[std::size_t(r)];
        Spectra<T> x;
        x.merge = {slot.sums + c * conv_.vectors()};
        conv_.transform->multiply(x, team);
        conv_.transform->write(x.merge[0], s.re, conv_.two_sided ? s.im : nullptr, false, T(0), team);
        conv_.gather_taps(s.re, s.im);
        std::copy(s.re, s.re + n.taps, partial(shared, run, item.channel + c));
      });
  }

  Ahead ahead(const Item& item, const Item& next, std::int64_t batch, std::int64_t c) const {
    const auto& n = conv_.size;
    Ahead rows(conv_.leaves());
    if (!past_caches_) {
      for (const Output* a : {&a_.grad_x, &a_.grad_pre_gate, &a_.grad_post_gate})
        look_ahead(rows, *a, batch, item.channel + c, n.length);
      if (!n.shared) look_ahead(rows, a_.grad_filter, batch, item.channel + c, n.taps);
    }
    const Row then = item.after(next, batch, c);
    for (const Input* a : {&a_.x, &a_.grad_out, &a_.pre_gate, &a_.post_gate}) {
      look_ahead(rows, *a, then.batch, then.channel, n.length);
      if (tiles_ahead(n, a_.x.dtype)) look_ahead(rows, *a, item.slice_after(next, batch, c, n.length));
    }
    look_ahead(rows, a_.filter, then.batch, then.channel, n.taps);
    return rows;
  }

  T* partial(const Shared& shared, std::int64_t run, std::int64_t channel) const {
    return shared.filter + (run * conv_.size.channels + channel) * conv_.size.taps;
  }

  T skip_gradient(Row at, const T* u, const T* g) const {
    const std::int64_t n = conv_.size.length;
    if (!in_place_) return dot<T>(GatedRow<T, T>{g, nullptr, n}, GatedRow<T, T>{u, nullptr, n}, n);
    T result = 0;
    with_arithmetic_storage<T>(a_.x.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      result = dot<T>(conv_.template signal<S>(a_.grad_out, a_.post_gate, at),
                      conv_.template signal<S>(a_.x, a_.pre_gate, at), n);
    });
    return result;
  }

  // u <- filter (*) u + skip * u and g <- adjoint(filter) g + skip * g, or in place to the gradients; the
  // filter's gradient is stored, or added to `sum`
  void row(Row at, T* u, T* g, const Filters& filters, std::int64_t c, const typename Slot::Row& s,
           Complex<T>* sum, const Team& team, const Ahead& ahead) const {
    const auto& n = conv_.size;
    const T skip = a_.skip ? load_value<T>(a_.skip, at.channel) : T(0);
    Spectra<T> x;
    x.u = s.u, x.k = s.k, x.g = s.g, x.sum = sum, x.ahead = &ahead;
    x.convolve = bool(a_.grad_post_gate), x.grad_filter = bool(a_.grad_filter), x.grad_signal = signal_;
    int split = 0, merge = 0;
    if (x.convolve || x.grad_filter) {
      conv_.read_signal(in_place_, a_.x, a_.pre_gate, at, u, x.u, team);
      x.split[std::size_t(split++)] = x.u;
    }
    if (x.convolve || x.grad_signal) {
      conv_.read_filter(filters.rows, filters[c], s.re, s.im, x.k, team);
      x.split[std::size_t(split++)] = x.k;
    }
    if (x.grad_filter || x.grad_signal) {
      conv_.read_signal(in_place_, a_.grad_out, a_.post_gate, at, g, x.g, team);
      x.split[std::size_t(split++)] = x.g;
    }
    if (!split) return;
    if (x.convolve) x.merge[std::size_t(merge++)] = x.u;
    if (x.grad_filter && !sum) x.merge[std::size_t(merge++)] = x.k;
    if (x.grad_signal) x.merge[std::size_t(merge++)] = x.g;
    conv_.transform->multiply(x, team);
    if (in_place_) {
      write_gradients(at, x, skip, team);
    } else {
      if (x.convolve) conv_.write_signal(x.u, u, bool(a_.skip), skip, team);
      if (x.grad_signal) conv_.write_signal(x.g, g, bool(a_.skip), skip, team);
    }
    if (x.grad_filter && !sum) {
      if (!conv_.two_sided && lie_of(a_.grad_filter) == Lie::rows)
        return with_arithmetic_storage<T>(a_.grad_filter.dtype, [&](auto* storage) {
          using S = std::remove_pointer_t<decltype(storage)>;
          const GatedRow<T, S> taps{nullptr, nullptr, n.taps};
          conv_.transform->write_to(
              x.k,
              GatedSink<T, S>{{row_of<S>(a_.grad_filter, at), nullptr}, {}, taps, false, T(0), past_caches_},
              team);
        });
      conv_.transform->write(x.k, s.re, conv_.two_sided ? s.im : nullptr, false, T(0), team);
      conv_.gather_taps(s.re, s.im);
      store_rows<T>(a_.grad_filter, {}, {at.batch, at.channel, 1, 0, n.taps}, s.re, 0);
    }
  }

  void write_gradients(Row at, const Spectra<T>& x, T skip, const Team& team) const {
    with_arithmetic_storage<T>(a_.x.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      using Sink = GatedSink<T, S>;
      const auto u = conv_.template signal<S>(a_.x, a_.pre_gate, at);
      const auto g = conv_.template signal<S>(a_.grad_out, a_.post_gate, at);
      const bool with_skip = bool(a_.skip);
      if (x.convolve) {
        const Sink sink{{row_of<S>(a_.grad_post_gate, at), g.x}, {}, u, with_skip, skip, past_caches_};
        conv_.transform->write_to(x.u, sink, team);
      }
      if (x.grad_signal) {
        const Sink sink{{row_of<S>(a_.grad_x, at), u.gate},
                        {row_of<S>(a_.grad_pre_gate, at), u.x},
                        g,
                        with_skip,
                        skip,
                        past_caches_};
        conv_.transform->write_to(x.g, sink, team);
      }
    });
  }

  void direct_row(Row at, T* u, T* g, const Filters& filters, std::int64_t c, const typename Slot::Row& s,
                  T* sum) const {
    const auto& n = conv_.size;
    const T skip = a_.skip ? load_value<T>(a_.skip, at.channel) : T(0);
    conv_.load_taps(filters.rows, filters[c], s.re);
    const T* padded = conv_.pad(u, s.padded);
    if (a_.grad_filter) {  // the taps in reverse order, then turned round
      slide<T, 1>(g, n.length, padded + conv_.centre - (n.taps - 1), s.im, n.taps);
      std::reverse(s.im, s.im + n.taps);
      if (sum)
        for (std::int64_t j = 0; j < n.taps; ++j) sum[j] += s.im[j];
      else store_rows<T>(a_.grad_filter, {}, {at.batch, at.channel, 1, 0, n.taps}, s.im, 0);
    }
    if (a_.grad_post_gate) {
      slide<T, -1>(s.re, n.taps, padded + conv_.centre, u, n.length);
      if (a_.skip)
        for (std::int64_t t = 0; t < n.length; ++t) u[t] += skip * padded[t];
    }
    if (signal_) {
      padded = conv_.pad(g, s.padded);
      slide<T, 1>(s.re, n.taps, padded - conv_.centre, g, n.length);
      if (a_.skip)
        for (std::int64_t t = 0; t < n.length; ++t) g[t] += skip * padded[t];
    }
  }

  // Sums over the batch that items left in pieces.
  void finish(const Shared& shared) const {
    const auto& n = conv_.size;
    if (n.shared && a_.grad_filter)
      parallel_((n.channels + kLanes<T> - 1) / kLanes<T>, [&](std::int64_t group) {
        const std::int64_t first = group * kLanes<T>,
                           count = std::min<std::int64_t>(kLanes<T>, n.channels - first);
        T* total = partial(shared, 0, first);
        for (std::int64_t run = 1; run < items_.runs; ++run) {
          const T* more = partial(shared, run, first);
          for (std::int64_t j = 0; j < count * n.taps; ++j) total[j] += more[j];
        }
        store_rows<T>(a_.grad_filter, {}, {0, first, count, 0, n.taps}, total, n.taps);
      });
    if (a_.grad_skip)
      for (std::int64_t channel = 0; channel < n.channels; ++channel) {
        T total = 0;
        for (std::int64_t batch = 0; batch < n.batch; ++batch)
          total += shared.skip[batch * n.channels + channel];
        store_value<T>(a_.grad_skip, channel, total);
      }
  }

  Convolution<T> conv_;
  FftConvBackward a_;
  bool signal_;
  Items items_;
  Team parallel_;
  Spread spread_;
  bool in_place_;     // rows are read and written where they lie
  bool past_caches_;  // and then are not wanted in the caches
};

// ---- the table -----------------------------------------------------------------------------------
std::int64_t forward_scratch(const FftConv& size, const FftConvForward& a, int threads) {
  return with_arithmetic(a.x.dtype,
                         [&](auto t) { return Forward<decltype(t)>(size, a, threads, nullptr).scratch(); });
}
std::int64_t backward_scratch(const FftConv& size, const FftConvBackward& a, int threads) {
  return with_arithmetic(a.x.dtype,
                         [&](auto t) { return Backward<decltype(t)>(size, a, threads, nullptr).scratch(); });
}
void forward(const FftConv& size, const FftConvForward& a, void* scratch, int threads,
             cpu::Parallel parallel) {
  with_arithmetic(a.x.dtype, [&](auto t) { Forward<decltype(t)>(size, a, threads, parallel).run(scratch); });
}
void backward(const FftConv& size, const FftConvBackward& a, void* scratch, int threads,
              cpu::Parallel parallel) {
  with_arithmetic(a.x.dtype, [&](auto t) { Backward<decltype(t)>(size, a, threads, parallel).run(scratch); });
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const FftConvKernels fft_conv;
const FftConvKernels fft_conv = {forward_scratch, backward_scratch, forward, backward};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
