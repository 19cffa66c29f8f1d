// spectral_conv on the CPU: y = post_gate * (irfft(spectrum * rfft(u)) + skip * u), u = pre_gate * x, and its
// gradients.
//
// Work goes in items as in fft_conv.cpp: a group of neighbouring channels over a run of batch entries. Their
// rows are loaded and gated into cache, transformed one at a time or a vector's width of them side by side
// (real_dft.h), multiplied frequency by frequency with the spectrum as it lies in memory, transformed back,
// gated and stored. No filter and no intermediate ever goes to memory. Backward has two transforms and up to
// two back.
#include "spectral_conv.h"

#include "spectral_rows.h"

namespace {

// ---- half spectra between memory and natural rows (re, im) ------------------------------------------------

// re, im <- scale * (the spectrum + skip); the imaginary parts that no real row has are 0.
template <class T>
void load_spectrum(const SpectralConv& size, const Input& spectrum, const Input& skip, Row at, T* re, T* im,
                   T scale) {
  constexpr int W = kLanes<T>;
  const std::int64_t n = size.frequencies();
  const T added = skip ? load_value<T>(skip, at.channel) : T(0);
  if (!size.complex) {
    load_rows<T>(spectrum, {}, {at.batch, at.channel, 1, 0, n}, re, 0);
    for (std::int64_t k = 0; k < n; ++k) re[k] = (re[k] + added) * scale;
    std::fill_n(im, n, T(0));
    return;
  }
  const T* pairs =
      static_cast<const T*>(spectrum.data) + 2 * (at.batch * spectrum.batch + at.channel * spectrum.channel);
  std::int64_t k = 0;
  if (spectrum.position == 1)
    for (; k + W <= n; k += W) {
      const Number<Vec<T>> z = unzip<T>(load(pairs + 2 * k), load(pairs + 2 * k + W));
      store(re + k, (z.re + splat(added)) * splat(scale)), store(im + k, z.im * splat(scale));
    }
  for (; k < n; ++k)
    re[k] = (pairs[2 * k * spectrum.position] + added) * scale,
    im[k] = pairs[2 * k * spectrum.position + 1] * scale;
  im[0] = 0;
  if (size.length % 2 == 0) im[n - 1] = 0;
}

// The gradient <- scale * (re, im), half as much at the frequencies that are their own mirror image.
template <class T>
void store_spectrum(const SpectralConv& size, const Output& gradient, Row at, T* re, T* im, T scale) {
  constexpr int W = kLanes<T>;
  const std::int64_t n = size.frequencies();
  const bool even = size.length % 2 == 0;
  re[0] *= T(0.5), im[0] = 0;
  if (even) re[n - 1] *= T(0.5), im[n - 1] = 0;
  if (!size.complex) {
    for (std::int64_t k = 0; k < n; ++k) re[k] *= scale;
    return store_rows<T>(gradient, {}, {at.batch, at.channel, 1, 0, n}, re, 0);
  }
  T* pairs = static_cast<T*>(gradient.data) + 2 * (at.batch * gradient.batch + at.channel * gradient.channel);
  std::int64_t k = 0;
  if (gradient.position == 1)
    for (; k + W <= n; k += W) {
      Vec<T> a, b;
      zip<T>({load(re + k) * splat(scale), load(im + k) * splat(scale)}, a, b);
      store(pairs + 2 * k, a), store(pairs + 2 * k + W, b);
    }
  for (; k < n; ++k)
    pairs[2 * k * gradient.position] = re[k] * scale, pairs[2 * k * gradient.position + 1] = im[k] * scale;
}

// ---- what forward and backward share ----------------------------------------------------------------------

// Natural rows of half spectra, for a chunk.
template <class T>
struct NaturalRows {
  T *re, *im;
  std::int64_t pitch;
  NaturalRows(Arena& arena, const SpectralConv& size, int rows) : pitch(row_pitch<T>(size.frequencies())) {
    re = arena.take<T>(rows * pitch), im = arena.take<T>(rows * pitch);
  }
};

template <class T, class Dft>
void load_spectra(const SpectralConv& size, const Input& spectrum, const Input& skip, Row at,
                  std::int64_t count, const Dft& dft, const NaturalRows<T>& natural, Plane<T> out) {
  const T scale = T(dft.scale());
  if (dft.rows() == 1) return load_spectrum(size, spectrum, skip, at, out.re, out.im, scale);
  for (std::int64_t c = 0; c < count; ++c)
    load_spectrum(size, spectrum, skip, {at.batch, at.channel + c}, natural.re + c * natural.pitch,
                  natural.im + c * natural.pitch, scale);
  dft.arrange(natural.re, natural.im, natural.pitch, count, out);
}

// ---- forward ----------------------------------------------------------------------------------------------
template <class T, class Dft>
class SpectralForward {
 public:
  SpectralForward(const SpectralConv& size, const SpectralConvForward& a, int threads, cpu::Parallel parallel)
      : size_(size),
        a_(a),
        dft_(transform_of<Dft>(size.length)),
        pitch_(row_pitch<T>(size.length)),
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
        item(items_[n], slots[std::size_t(i)]);
    });
  }

 private:
  struct Slot {
    T* u;  // an item's rows
    struct Rows {
      Plane<T> a, b, h;
      NaturalRows<T> natural;
    };
    std::vector<Rows> rows;

    Slot(const SpectralForward& f, Arena& arena) {
      u = arena.take<T>(f.items_.group * f.pitch_);
      for (std::int64_t i = 0; i < f.spread_.rows; ++i) {
        const Plane<T> a = take_plane<T>(arena, f.dft_.buffer()), b = take_plane<T>(arena, f.dft_.buffer());
        const Plane<T> h = take_plane<T>(arena, f.dft_.spectrum());
        rows.push_back({a, b, h, NaturalRows<T>(arena, f.size_, f.dft_.rows() > 1 ? f.dft_.rows() : 0)});
      }
    }
  };

  static Items divide(const SpectralConv& size, const SpectralConvForward& a, int rows, int threads) {
    Items items{size.batch, size.channels, group<T>(size.channels, size.length, {a.x, as_input(a.y)}, rows),
                size.batch};
    if (size.shared) items.runs = std::min(size.batch, (4 * threads + items.groups() - 1) / items.groups());
    return items;
  }

  void item(const Item& item, Slot& slot) const {
    for (std::int64_t batch = item.batch; batch < item.batch_end; ++batch) {
      const auto part = [&](std::int64_t begin, std::int64_t end) {
        return Part{batch, item.channel, item.channels, begin, end};
      };
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        load_rows<T>(a_.x, a_.pre_gate, part(begin, end), slot.u + begin, pitch_);
      });
      spread_.each_row(chunks(item.channels, dft_.rows()),
                       [&](std::int64_t c, std::int64_t r, const Team& team) {
                         const Chunk chunk = chunk_of(c, item.channels, dft_.rows());
                         const bool kept = size_.shared && item.channels <= dft_.rows() && batch > item.batch;
                         rows({batch, item.channel + chunk.first}, chunk.count, slot.u + chunk.first * pitch_,
                              slot.rows[std::size_t(r)], kept, team);
                       });
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        store_rows<T>(a_.y, a_.post_gate, part(begin, end), slot.u + begin, pitch_);
      });
    }
  }

  // u <- irfft((spectrum + skip) * rfft(u)); `kept`: the spectrum is still there
  void rows(Row at, std::int64_t count, T* u, const typename Slot::Rows& s, bool kept,
            const Team& team) const {
    dft_.forward(u, pitch_, count, s.a, s.b, team);
    if (!kept) load_spectra(size_, a_.spectrum, a_.skip, at, count, dft_, s.natural, s.h);
    dft_.template each_frequency<1, 1>(
        {s.a}, {s.b}, [&](const auto& in, auto& out, const auto& at) { out[0] = at.get(s.h) * in[0]; }, team);
    dft_.inverse(s.b, s.a, {u}, pitch_, count, team);
  }

  SpectralConv size_;
  SpectralConvForward a_;
  const Dft& dft_;
  std::int64_t pitch_;
  Items items_;
  Spread spread_;
};

// ---- backward ---------------------------------------------------------------------------------------------
template <class T, class Dft>
class SpectralBackward {
 public:
  SpectralBackward(const SpectralConv& size, const SpectralConvBackward& a, int threads,
                   cpu::Parallel parallel)
      : size_(size),
        a_(a),
        dft_(transform_of<Dft>(size.length)),
        pitch_(row_pitch<T>(size.length)),
        signal_(a.grad_x || a.grad_pre_gate),
        transforms_(signal_ || a.grad_post_gate || a.grad_spectrum),
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
        item(items_[n], n / items_.groups(), slots[std::size_t(i)], shared);
    });
    finish(shared);
  }

 private:
  // Sums over the batch are taken in an order that depends on the sizes alone: same bits for any number of
  // threads.
  static constexpr std::int64_t kRuns = 64;

  struct Shared {
    T* spectrum;  // (runs, channels, 2, frequencies): gradient of a shared spectrum, by run of the batch
    T* skip;      // (batch, channels)
    Shared(const SpectralBackward& b, Arena& arena) {
      const auto& n = b.size_;
      spectrum = arena.take<T>(b.summed() ? b.items_.runs * n.channels * 2 * n.frequencies() : 0);
      skip = arena.take<T>(b.a_.grad_skip ? n.batch * n.channels : 0);
    }
  };
  struct Slot {
    T *u, *g;  // an item's rows
    struct Rows {
      Plane<T> u, u_other, g, g_other, h, gradient;
      NaturalRows<T> natural;
    };
    std::vector<Rows> rows;
    std::vector<Plane<T>> sums;  // of a shared spectrum's gradients, by chunk of the item

    Slot(const SpectralBackward& b, Arena& arena) {
      u = arena.take<T>(b.items_.group * b.pitch_), g = arena.take<T>(b.items_.group * b.pitch_);
      const std::int64_t buffer = b.transforms_ ? b.dft_.buffer() : 0, spectrum = b.dft_.spectrum();
      for (std::int64_t i = 0; i < b.spread_.rows; ++i) {
        std::array<Plane<T>, 4> buffers;
        for (Plane<T>& p : buffers) p = take_plane<T>(arena, buffer);
        const Plane<T> h = take_plane<T>(arena, spectrum), gradient = take_plane<T>(arena, spectrum);
        rows.push_back({buffers[0], buffers[1], buffers[2], buffers[3], h, gradient,
                        NaturalRows<T>(arena, b.size_, b.dft_.rows())});
      }
      if (b.summed())
        for (std::int64_t c = 0; c < chunks(b.items_.group, b.dft_.rows()); ++c)
          sums.push_back(take_plane<T>(arena, spectrum));
    }
  };

  static Items divide(const SpectralConv& size, const SpectralConvBackward& a, int rows) {
    Items items{size.batch, size.channels, group<T>(size.channels, size.length, {a.x, a.grad_out}, rows),
                size.batch};
    if (size.shared)
      items.runs =
          std::max<std::int64_t>(1, std::min(size.batch, (kRuns + items.groups() - 1) / items.groups()));
    return items;
  }
  bool summed() const { return size_.shared && a_.grad_spectrum; }

  void item(const Item& item, std::int64_t run, Slot& slot, const Shared& shared) const {
    for (const Plane<T>& sum : slot.sums)
      std::fill_n(sum.re, dft_.spectrum(), T(0)), std::fill_n(sum.im, dft_.spectrum(), T(0));
    for (std::int64_t batch = item.batch; batch < item.batch_end; ++batch) {
      const auto part = [&](std::int64_t begin, std::int64_t end) {
        return Part{batch, item.channel, item.channels, begin, end};
      };
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        load_rows<T>(a_.x, a_.pre_gate, part(begin, end), slot.u + begin, pitch_);
        load_rows<T>(a_.grad_out, a_.post_gate, part(begin, end), slot.g + begin, pitch_);
      });
      if (a_.grad_skip)
        for (std::int64_t c = 0; c < item.channels; ++c)
          shared.skip[batch * size_.channels + item.channel + c] =
              dot<T>(GatedRow<T, T>{slot.u + c * pitch_, nullptr, size_.length},
                     GatedRow<T, T>{slot.g + c * pitch_, nullptr, size_.length}, size_.length);
      if (!transforms_) continue;
      spread_.each_row(chunks(item.channels, dft_.rows()),
                       [&](std::int64_t c, std::int64_t r, const Team& team) {
                         const Chunk chunk = chunk_of(c, item.channels, dft_.rows());
                         rows({batch, item.channel + chunk.first}, chunk.count, slot.u + chunk.first * pitch_,
                              slot.g + chunk.first * pitch_, slot.rows[std::size_t(r)],
                              summed() ? &slot.sums[std::size_t(c)] : nullptr, team);
                       });
      spread_.inner.ranges(size_.length, [&](std::int64_t begin, std::int64_t end) {
        if (a_.grad_post_gate)
          store_rows<T>(a_.grad_post_gate, a_.grad_out, part(begin, end), slot.u + begin, pitch_);
        if (a_.grad_x) store_rows<T>(a_.grad_x, a_.pre_gate, part(begin, end), slot.g + begin, pitch_);
        if (a_.grad_pre_gate) store_rows<T>(a_.grad_pre_gate, a_.x, part(begin, end), slot.g + begin, pitch_);
      });
    }
    if (summed()) keep_sums(item, run, slot, shared);
  }

  // u <- irfft((spectrum + skip) * rfft(u)) and g <- irfft(conj(spectrum + skip) * rfft(g)), where they are
  // wanted; the spectrum's gradient is stored, or added to `sum`. What is not wanted is not transformed, but
  // goes along in each_frequency: so the bits of one gradient do not depend on which others are wanted.
  void rows(Row at, std::int64_t count, T* u, T* g, const typename Slot::Rows& s, const Plane<T>* sum,
            const Team& team) const {
    const bool convolve = bool(a_.grad_post_gate), gradient = bool(a_.grad_spectrum);
    if (convolve || gradient) dft_.forward(u, pitch_, count, s.u, s.u_other, team);
    if (signal_ || gradient) dft_.forward(g, pitch_, count, s.g, s.g_other, team);
    if (convolve || signal_) load_spectra(size_, a_.spectrum, a_.skip, at, count, dft_, s.natural, s.h);
    const Plane<T>&in_u = convolve || gradient ? s.u : s.g, &in_g = signal_ || gradient ? s.g : s.u;
    const Plane<T>& h = convolve || signal_ ? s.h : in_u;
    dft_.template each_frequency<2, 2>(
        {in_u, in_g}, {s.u_other, s.g_other},
        [&](const auto& in, auto& out, const auto& at) {
          const auto spectrum = at.get(h);
          out[0] = spectrum * in[0], out[1] = conj(spectrum) * in[1];
          if (!gradient) return;
          const auto product = conj(in[0]) * in[1];
          if (sum) at.put(*sum, at.get(*sum) + product);
          else at.put(s.gradient, product);
        },
        team);
    if (gradient && !sum) store_gradients(at, count, s.gradient, s.natural);
    if (convolve) dft_.inverse(s.u_other, s.u, {u}, pitch_, count, team);
    if (signal_) dft_.inverse(s.g_other, s.g, {g}, pitch_, count, team);
  }

  void store_gradients(Row at, std::int64_t count, Plane<T> gradient, const NaturalRows<T>& natural) const {
    dft_.natural(gradient, natural.re, natural.im, natural.pitch, count);
    for (std::int64_t c = 0; c < count; ++c)
      store_spectrum(size_, a_.grad_spectrum, {at.batch, at.channel + c}, natural.re + c * natural.pitch,
                     natural.im + c * natural.pitch, T(dft_.gradient_scale()));
  }

  T* partial(const Shared& shared, std::int64_t run, std::int64_t channel) const {
    return shared.spectrum + (run * size_.channels + channel) * 2 * size_.frequencies();
  }
  void keep_sums(const Item& item, std::int64_t run, Slot& slot, const Shared& shared) const {
    const std::int64_t n = size_.frequencies();
    const NaturalRows<T>& natural = slot.rows[0].natural;
    for (std::int64_t c = 0; c < chunks(item.channels, dft_.rows()); ++c) {
      const Chunk chunk = chunk_of(c, item.channels, dft_.rows());
      dft_.natural(slot.sums[std::size_t(c)], natural.re, natural.im, natural.pitch, chunk.count);
      for (std::int64_t i = 0; i < chunk.count; ++i) {
        T* to = partial(shared, run, item.channel + chunk.first + i);
        std::copy_n(natural.re + i * natural.pitch, n, to);
        std::copy_n(natural.im + i * natural.pitch, n, to + n);
      }
    }
  }

  // Sums over the batch that items left in pieces.
  void finish(const Shared& shared) const {
    const std::int64_t n = size_.frequencies();
    if (summed())
      parallel_(size_.channels, [&](std::int64_t channel) {
        T* total = partial(shared, 0, channel);
        for (std::int64_t run = 1; run < items_.runs; ++run) {
          const T* more = partial(shared, run, channel);
          for (std::int64_t k = 0; k < 2 * n; ++k) total[k] += more[k];
        }
        store_spectrum(size_, a_.grad_spectrum, {0, channel}, total, total + n, T(dft_.gradient_scale()));
      });
    if (a_.grad_skip)
      for (std::int64_t channel = 0; channel < size_.channels; ++channel) {
        T total = 0;
        for (std::int64_t batch = 0; batch < size_.batch; ++batch)
          total += shared.skip[batch * size_.channels + channel];
        store_value<T>(a_.grad_skip, channel, total);
      }
  }

  SpectralConv size_;
  SpectralConvBackward a_;
  const Dft& dft_;
  std::int64_t pitch_;
  bool signal_, transforms_;
  Items items_;
  Team parallel_;
  Spread spread_;
};

// ---- the table --------------------------------------------------------------------------------------------
std::int64_t forward_scratch(const SpectralConv& size, const SpectralConvForward& a, int threads) {
  return with_transform(a.x.dtype, size.length, [&](auto t, auto* dft) {
    return SpectralForward<decltype(t), Pointee<decltype(dft)>>(size, a, threads, nullptr).scratch();
  });
}
std::int64_t backward_scratch(const SpectralConv& size, const SpectralConvBackward& a, int threads) {
  return with_transform(a.x.dtype, size.length, [&](auto t, auto* dft) {
    return SpectralBackward<decltype(t), Pointee<decltype(dft)>>(size, a, threads, nullptr).scratch();
  });
}
void forward(const SpectralConv& size, const SpectralConvForward& a, void* scratch, int threads,
             cpu::Parallel parallel) {
  with_transform(a.x.dtype, size.length, [&](auto t, auto* dft) {
    SpectralForward<decltype(t), Pointee<decltype(dft)>>(size, a, threads, parallel).run(scratch);
  });
}
void backward(const SpectralConv& size, const SpectralConvBackward& a, void* scratch, int threads,
              cpu::Parallel parallel) {
  with_transform(a.x.dtype, size.length, [&](auto t, auto* dft) {
    SpectralBackward<decltype(t), Pointee<decltype(dft)>>(size, a, threads, parallel).run(scratch);
  });
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const SpectralConvKernels spectral_conv;
const SpectralConvKernels spectral_conv = {forward_scratch, backward_scratch, forward, backward};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
