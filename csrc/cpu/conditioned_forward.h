// conditioned_conv and orchid_mix, forward: see conditioned_conv.cpp.
#pragma once
#include "orchid_mix_rows.h"

namespace {

template <class T, class Dft>
class ConditionedForward {
 public:
  // mix: null but for orchid_mix
  ConditionedForward(const ConditionedConv& size, const ConditionedConvForward& a, const OrchidMix* mix,
                     int threads, cpu::Parallel parallel)
      : size_(size),
        a_(a),
        dft_(transform_of<Dft>(size.length)),
        mix_(size, mix),
        conditioning_(size, dft_),
        complex_(size.keyed || a.filter),
        items_(divide(size, a, mix_.length_of_group(), dft_.rows(), threads)),
        spread_(items_.count(), chunks(items_.group, dft_.rows()), threads, parallel),
        signals_(size, dft_, spread_) {}

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
      signals_.finish();
    });
  }

 private:
  struct Slot {
    T *u, *query, *key;  // an item's rows; of orchid_mix x, pre_gate and post_gate as they are given
    std::vector<Plane<T>> statics;
    struct Rows {
      Plane<T> z, k, other, a, h;
      T *made, *gate;  // of orchid_mix
    };
    std::vector<Rows> rows;

    Slot(const ConditionedForward& f, Arena& arena) {
      if (f.mix_) {
        for (T** rows : {&u, &query, &key}) *rows = f.mix_.take(arena, f.items_.group);
      } else {
        const std::int64_t room = f.items_.group * f.signals_.pitch;
        u = arena.take<T>(room);
        query = arena.take<T>(f.signals_.in_place(f.a_.query, {}) ? 0 : room);
        key = arena.take<T>(!f.a_.key || f.signals_.in_place(f.a_.key, {}) ? 0 : room);
      }
      if (f.a_.filter)
        for (std::int64_t c = 0; c < chunks(f.items_.group, f.dft_.rows()); ++c)
          statics.push_back(take_plane<T>(arena, f.dft_.spectrum()));
      for (std::int64_t i = 0; i < f.spread_.rows; ++i) {
        const std::int64_t buffer = f.dft_.buffer(), together = f.mix_ ? f.dft_.rows() : 0;
        rows.push_back({take_plane<T>(arena, buffer), take_plane<T>(arena, f.size_.keyed ? buffer : 0),
                        take_plane<T>(arena, buffer), f.conditioning_.take(arena, f.size_.keyed),
                        f.conditioning_.take(arena, f.complex_), f.mix_.take(arena, together),
                        f.mix_.take(arena, together)});
      }
    }
  };

  static Items divide(const ConditionedConv& size, const ConditionedConvForward& a, std::int64_t length,
                      int rows, int threads) {
    Items items{size.batch, size.channels,
                group<T>(size.channels, length, {a.x, a.query, a.key, as_input(a.y)}, rows), size.batch};
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
        if (mix_)
          return mix_.load({{a_.x, slot.u}, {a_.pre_gate, slot.query}, {a_.post_gate, slot.key}},
                           part(begin, end));
        signals_.load(a_.x, a_.pre_gate, part(begin, end), slot.u);
        signals_.load(a_.query, {}, part(begin, end), slot.query);
        signals_.load(a_.key, {}, part(begin, end), slot.key);
      });
      spread_.each_row(
          chunks(item.channels, dft_.rows()), [&](std::int64_t c, std::int64_t r, const Team& team) {
            const Chunk chunk = chunk_of(c, item.channels, dft_.rows());
            RowsAhead ahead(dft_, team);
            const Row then = item.after(next, batch, c);
            ahead.add(a_.post_gate, mix_ ? then : Row{batch, item.channel + c}, size_.length);
            for (const Input* a : {&a_.query, &a_.key, &a_.x, &a_.pre_gate})
              ahead.add(*a, then, size_.length);
            rows({batch, item.channel + chunk.first}, chunk, slot, ahead,
                 a_.filter ? slot.statics[std::size_t(c)] : Plane<T>{}, slot.rows[std::size_t(r)], team);
          });
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        if (mix_) return mix_.store({{a_.y, slot.query}}, part(begin, end));
        signals_.store(a_.y, a_.post_gate, part(begin, end), slot.u);
      });
    }
  }

  void rows(Row at, Chunk chunk, const Slot& slot, RowsAhead& ahead, Plane<T> statics,
            const typename Slot::Rows& s, const Team& team) const {
    const std::int64_t pitch = mix_ ? mix_.pitch : signals_.pitch, first = chunk.first * pitch;
    const std::int64_t count = chunk.count;
    T *const x = slot.u + first, *const pre_gate = slot.query + first, *const post_gate = slot.key + first;
    const auto made = [&](OrchidMix::Signal signal, const T* rows, T* out) {
      mix_.make(signal, at.channel, count, rows, out, team);
      return out;
    };
    if (mix_)
      for (T* rows : {x, pre_gate, post_gate}) mix_.extend(rows, count);

    // 1. H, of query and key
    const auto query = [&] {
      return mix_ ? made(OrchidMix::kQuery, x, s.made) : signals_.row(a_.query, {}, at, slot.query + first);
    };
    const auto key = [&] {
      return mix_ ? made(OrchidMix::kKey, x, s.made) : signals_.row(a_.key, {}, at, slot.key + first);
    };
    dft_.forward(query(), pitch, count, s.z, s.other, team, ahead);
    if (size_.keyed) dft_.forward(key(), pitch, count, s.k, s.other, team, ahead);
    conditioning_.signal(s.z, s.k, s.a, ahead, team);
    const Weights<T> w =
        conditioning_.load_weights(a_.frequency_filter, a_.frequency_bias, a_.skip, at.channel, count);
    conditioning_.filter(w, s.a, statics, s.h, team);
    // 2. the convolution
    const auto u = [&]() -> const T* {
      if (!mix_) return signals_.row(a_.x, a_.pre_gate, at, slot.u + first);
      mix_.multiply(made(OrchidMix::kX, x, s.made), made(OrchidMix::kPreGate, pre_gate, s.gate), s.made,
                    count, team);
      return s.made;
    };
    dft_.forward(u(), pitch, count, s.z, s.other, team, ahead);
    if (complex_)
      dft_.template each_frequency<1, 1>(
          {s.z}, {s.z},
          [&](const auto& in, auto& out, const auto& at) {
            ahead.next(4);
            out[0] = at.get(s.h) * in[0];
          },
          team);
    else
      dft_.template each_frequency<1, 1>(
          {s.z}, {s.z},
          [&](const auto& in, auto& out, const auto& at) {
            ahead.next(4);
            const auto h = at.get(s.h.re);
            out[0] = {h * in[0].re, h * in[0].im};
          },
          team);
    const RealSink<T> y = mix_ ? RealSink<T>{pre_gate} : signals_.row(a_.y, a_.post_gate, at, slot.u + first);
    dft_.inverse(s.z, s.other, y, pitch, count, team, ahead);
    if (mix_) mix_.multiply(y.y, made(OrchidMix::kPostGate, post_gate, s.gate), y.y, count, team);
  }

  ConditionedConv size_;
  ConditionedConvForward a_;
  const Dft& dft_;
  MixRows<T> mix_;
  Conditioning<T, Dft> conditioning_;
  bool complex_;  // H
  Items items_;
  Spread spread_;
  Signals<T, Dft> signals_;
};

}  // namespace
