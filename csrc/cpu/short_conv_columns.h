// short_conv where channels lie side by side, as in (B, L, D): vectors of channels, all their taps at once.
//
// A strip of neighbouring channels is walked along the sequence, a few positions at a time. Rows, the strip's
// values at a position, are read through pointers, so that what lies outside of the sequence is a row of
// zeros, or the row a period away, and nothing has an edge.
//
// Backward goes the same way with the taps in reverse order, over grad_out or, where something follows the
// sums, over their gradients, which are made anew and kept in a ring of rows as long as they are in reach.
// Gradients of the weights are summed over 16 positions in registers, then over a run of units in memory,
// then over the runs; how many there are depends on the sizes alone, and so do the bits.
#pragma once
#include <algorithm>

#include "arena.h"
#include "short_conv_epilogue.h"
#include "short_conv_sums.h"
#include "storage.h"
#include "team.h"

namespace {

using namespace equiconv;

// The rows of one sample and stream from a channel on.
template <class S>
struct Positions {
  const S* first;
  std::int64_t stride, length;
  bool circular;
  const S* zeros;

  const S* operator()(std::int64_t position) const {
    if (position < 0 || position >= length) {
      if (!circular) return zeros;
      position %= length;
      if (position < 0) position += length;
    }
    return first + position * stride;
  }
};

// The rows of R positions, of M arrays, that will be wanted soon: where streams are three, more are read side
// by side than a processor foresees by itself.
template <class S, int M, int R>
struct Soon {
  const S* row[M][R];

  void rows(int m, const Positions<S>& of, std::int64_t position) {
    for (int i = 0; i < R; ++i) row[m][i] = of(position + 4 * R + i);
  }
  // Inlined by force: GCC 12 takes a function that only prefetches for one without effect.
  EQUICONV_INLINE void fetch(int i, std::int64_t lane) const {
    if (lane % (64 / sizeof(S)) == 0)
#pragma GCC unroll 5
      for (int m = 0; m < M; ++m) __builtin_prefetch(row[m][i] + lane);
  }
};

// The taps of a strip's channels as rows, zeros beyond its channels: those of stream s, tap j, then the bias.
template <class T>
struct TapRows {
  T* first;
  std::int64_t pitch;
  int taps;

  T* tap(int stream, int j) const { return first + (stream * (taps + 1) + j) * pitch; }
  T* bias(int stream) const { return tap(stream, taps); }
};

// Positions at once, and vectors side by side: a line of memory is written at one go, into few pages.
template <int N>
constexpr int kHigh = N == 3 ? 2 : 4;
constexpr int kWide = 2;
constexpr int kBlock = 16;           // positions summed in registers
constexpr int kRing = 4 * kBlock;    // of which kBlock + taps + 2 are in reach
constexpr std::int64_t kUnit = 256;  // positions of a piece of work

template <class S, class T>
EQUICONV_INLINE void put_row(S* to, Vec<T> v, std::int64_t count, bool past_caches) {
  if (count < kLanes<T>) store_some<T>(to, v, int(count));
  else if (past_caches) stream<S, T>(to, v);
  else store(to, v);
}
template <class T, class S>
EQUICONV_INLINE Vec<T> get_row(const S* from, std::int64_t count) {
  return count < kLanes<T> ? load_some<T>(from, int(count)) : load(from);
}

// The sums of R positions, N streams: calls sink(i, lane, count, p) with each position's vectors of streams.
// rows[s][i + taps - 1 - j] is what tap j reads for position i.
template <int N, int R, class T, class S, class Sink>
EQUICONV_INLINE void sum_taps(const S* const (*rows)[kBlock + kMaxTaps], const TapRows<T>& taps, bool bias,
                              std::int64_t lanes, const Sink& sink) {
  constexpr int W = kLanes<T>;
  std::int64_t lane = 0;
  for (; lane + kWide * W <= lanes; lane += kWide * W) {
    Vec<T> sums[R][kWide][N];
#pragma GCC unroll 3
    for (int s = 0; s < N; ++s)
#pragma GCC unroll 2
      for (int v = 0; v < kWide; ++v) {
        const Vec<T> start = bias ? load(taps.bias(s) + lane + v * W) : Vec<T>{};
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i) sums[i][v][s] = start;
      }
    for (int j = 0; j < taps.taps; ++j)
#pragma GCC unroll 3
      for (int s = 0; s < N; ++s) {
        const T* tap = taps.tap(s, j) + lane;
        const S* const* from = rows[s] + (taps.taps - 1 - j);
        const Vec<T> f[kWide] = {load(tap), load(tap + W)};
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
          for (int v = 0; v < kWide; ++v) sums[i][v][s] += f[v] * load(from[i] + lane + v * W);
      }
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < kWide; ++v) sink(i, lane + v * W, W, sums[i][v]);
  }
  for (; lane < lanes; lane += W) {
    const std::int64_t count = std::min<std::int64_t>(W, lanes - lane);
    for (int i = 0; i < R; ++i) {
      Vec<T> p[N];
      for (int s = 0; s < N; ++s) {
        p[s] = bias ? load(taps.bias(s) + lane) : Vec<T>{};
        for (int j = 0; j < taps.taps; ++j)
          p[s] += load(taps.tap(s, j) + lane) * get_row<T>(rows[s][i + taps.taps - 1 - j] + lane, count);
      }
      sink(i, lane, count, p);
    }
  }
}

// Adds the sums over `height` positions of g times what each tap read, and of g.
template <class T, class Sx, class Sg>
void add_weight_gradients(const Sx* const* rows, const Sg* const* grads, int height, std::int64_t lanes,
                          const TapRows<T>& total, int stream, bool filter, bool bias) {
  constexpr int W = kLanes<T>, kTogether = 4;
  const int taps = total.taps;
  for (std::int64_t lane = 0; lane < lanes; lane += W) {
    const std::int64_t count = std::min<std::int64_t>(W, lanes - lane);
    const auto add = [&](T* to, Vec<T> v) { store(to + lane, load(to + lane) + v); };
    const auto some = [&](auto together, int j) {
      constexpr int J = together();
      Vec<T> sums[J] = {};
      for (int i = 0; i < height; ++i) {
        const Vec<T> g = get_row<T>(grads[i] + lane, count);
        const Sx* const* from = rows + (i + taps - 1 - j);
#pragma GCC unroll 4
        for (int k = 0; k < J; ++k) sums[k] += g * get_row<T>(from[-k] + lane, count);
      }
#pragma GCC unroll 4
      for (int k = 0; k < J; ++k) add(total.tap(stream, j + k), sums[k]);
    };
    if (filter) {
      int j = 0;
      for (; j + kTogether <= taps; j += kTogether) some(std::integral_constant<int, kTogether>{}, j);
      for (; j < taps; ++j) some(std::integral_constant<int, 1>{}, j);
    }
    if (bias) {
      Vec<T> sum{};
      for (int i = 0; i < height; ++i) sum += get_row<T>(grads[i] + lane, count);
      add(total.bias(stream), sum);
    }
  }
}

// How the work is cut: strips of lanes (a channel's parts are neighbouring lanes), units of positions.
template <class T, Kind K>
struct Columns {
  static constexpr int N = kStreams<K>;
  // A strip's rows in reach stay in the second cache; where gradients are made anew, they and the ring do.
  static constexpr std::int64_t kStrip = (K == Kind::plain ? 4096 : N == 1 ? 2048 : 1024) / sizeof(T);

  explicit Columns(const ShortConv& n)
      : size(n), lanes(n.channels * n.parts), strips((lanes + kStrip - 1) / kStrip), units(n) {}

  std::int64_t width(std::int64_t strip) const { return std::min(kStrip, lanes - strip * kStrip); }

  // Reversed, they are what grad_x is summed with.
  void read_taps(const Input& filter, const Input& bias, std::int64_t strip, bool reversed,
                 const TapRows<T>& to) const {
    const std::int64_t first = strip * kStrip, count = width(strip);
    for (int s = 0; s < N; ++s) {
      for (int j = 0; j < size.taps; ++j)
        read_row(filter, s, first, count, reversed ? size.taps - 1 - j : j, to.tap(s, j));
      if (bias) read_row(bias, s, first, count, 0, to.bias(s));
    }
  }

  template <class S>
  Positions<S> positions(const Input& a, const Place& at, int stream, std::int64_t strip,
                         const S* zeros) const {
    return {static_cast<const S*>(a.data) + at.batch * a.batch + stream * lanes + strip * kStrip, a.position,
            size.length, size.circular, zeros};
  }
  template <class S>
  S* row(const Output& a, std::int64_t batch, std::int64_t position, int stream, std::int64_t strip) const {
    return static_cast<S*>(a.data) + batch * a.batch + position * a.position + stream * lanes +
           strip * kStrip;
  }

  ShortConv size;
  std::int64_t lanes, strips;
  Units<kUnit> units;

 private:
  void read_row(const Input& a, int stream, std::int64_t first, std::int64_t count, int j, T* to) const {
    with_storage(a.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      const S* from = static_cast<const S*>(a.data) + stream * size.channels * a.channel + j * a.position;
      for (std::int64_t i = 0; i < count; ++i) to[i] = T(widen(from[(first + i) / size.parts * a.channel]));
      std::fill(to + count, to + kStrip, T(0));
    });
  }
};

template <class S, Kind K>
class ForwardColumns {
  using T = typename Arithmetic<S>::type;
  using C = Columns<T, K>;
  static constexpr int N = C::N, R = kHigh<N>;

 public:
  ForwardColumns(const ShortConv& size, const ShortConvForward& a, Team team)
      : columns_(size), a_(a), team_(team), past_caches_(past_caches(size, a.y.dtype)) {}

  std::int64_t scratch() const {
    Arena arena(nullptr);
    slots(arena);
    return arena.used();
  }

  void run(void* scratch) const {
    Arena arena(scratch);
    const Slots s = slots(arena);
    const std::int64_t units = columns_.units.count, tasks = columns_.strips * units;
    team_(team_.threads, [&](std::int64_t worker) {
      const TapRows<T> taps{s.taps + worker * taps_size(), C::kStrip, columns_.size.taps};
      S* zeros = s.zeros + worker * 2 * C::kStrip;
      std::fill(zeros, zeros + C::kStrip, S{});
      std::int64_t strip = -1;
      for (std::int64_t task = tasks * worker / team_.threads; task < tasks * (worker + 1) / team_.threads;
           ++task) {
        if (task / units != strip) {
          strip = task / units;
          columns_.read_taps(a_.filter, a_.bias, strip, false, taps);
        }
        unit(columns_.units[task % units], strip, taps, zeros);
      }
    });
  }

 private:
  struct Slots {
    T* taps;
    S* zeros;
  };
  std::int64_t taps_size() const { return N * (columns_.size.taps + 1) * C::kStrip; }
  Slots slots(Arena& arena) const {
    return {arena.take<T>(team_.threads * taps_size()), arena.take<S>(team_.threads * 2 * C::kStrip)};
  }

  void unit(const Place& at, std::int64_t strip, const TapRows<T>& taps, S* zeros) const {
    for (std::int64_t t = at.begin; t < at.end; t += R) rows(at, t, strip, taps, zeros);
    if (past_caches_) fence();
  }

  // The results at R positions; of those past the end, into a row that nobody reads.
  void rows(const Place& at, std::int64_t t, std::int64_t strip, const TapRows<T>& taps, S* zeros) const {
    const ShortConv& n = columns_.size;
    const S* from[N][kBlock + kMaxTaps];
    for (int s = 0; s < N; ++s) {
      const auto x = columns_.template positions<S>(a_.x, at, s, strip, zeros);
      for (int k = 0; k < R + n.taps - 1; ++k) from[s][k] = x(t + n.ahead - (n.taps - 1) + k);
    }
    Soon<S, N, R> soon;
    for (int s = 0; s < N; ++s)
      soon.rows(s, columns_.template positions<S>(a_.x, at, s, strip, zeros), t + n.ahead);
    S* to[kResults<K>][R];
    for (int r = 0; r < kResults<K>; ++r)
      for (int i = 0; i < R; ++i)
        to[r][i] = t + i < at.end ? columns_.template row<S>(r ? a_.product : a_.y, at.batch, t + i, 0, strip)
                                  : zeros + C::kStrip;
    sum_taps<N, R>(from, taps, bool(a_.bias), columns_.width(strip),
                   [&](int i, std::int64_t lane, std::int64_t count, Vec<T>* p)
                       __attribute__((always_inline)) {
                         soon.fetch(i, lane);
                         finish<K, T>(columns_.size.epilogue, p);
                         for (int r = 0; r < kResults<K>; ++r)
                           put_row<S, T>(to[r][i] + lane, p[r], count, past_caches_);
                       });
  }

  C columns_;
  ShortConvForward a_;
  Team team_;
  bool past_caches_;
};

template <class S, Kind K>
class BackwardColumns {
  using T = typename Arithmetic<S>::type;
  using C = Columns<T, K>;
  static constexpr int N = C::N, R = kHigh<N>;
  static constexpr bool kAnew =
      K != Kind::plain;  // the gradients of the sums are made, else they are grad_out
  using G = std::conditional_t<kAnew, T, S>;

 public:
  BackwardColumns(const ShortConv& size, const ShortConvBackward& a, Team team)
      : columns_(size),
        a_(a),
        sums_(size, columns_.units.count, size.parts),
        team_(team),
        past_caches_(past_caches(size, a.x.dtype)) {}

  std::int64_t scratch() const {
    Arena arena(nullptr);
    slots(arena);
    return arena.used();
  }

  void run(void* scratch) const {
    Arena arena(scratch);
    const Slots s = slots(arena);
    const std::int64_t tasks = columns_.strips * sums_.runs;
    team_(team_.threads, [&](std::int64_t worker) {
      const Slot slot(s, *this, worker);
      std::int64_t strip = -1;
      for (std::int64_t task = tasks * worker / team_.threads; task < tasks * (worker + 1) / team_.threads;
           ++task) {
        if (task / sums_.runs != strip) {
          strip = task / sums_.runs;
          if (kAnew) columns_.read_taps(a_.filter, a_.bias, strip, false, slot.taps);
          if (a_.grad_x) columns_.read_taps(a_.filter, {}, strip, true, slot.reversed);
        }
        const std::int64_t run = task % sums_.runs;
        slot.clear();
        for (std::int64_t u = sums_.begin(run); u < sums_.begin(run + 1); ++u)
          unit(columns_.units[u], strip, slot);
        if (weights()) keep(s.sums, run, strip, slot);
      }
    });
    if (weights()) sums_.template finish<T>(s.sums, a_.grad_filter, a_.grad_bias, team_);
  }

 private:
  struct Slots {
    T *taps, *reversed, *total, *ring, *sums;
    S* zeros;
    T* wide_zeros;
  };
  struct Slot {
    Slot(const Slots& s, const BackwardColumns& of, std::int64_t worker)
        : taps{s.taps + worker * of.taps_size(), C::kStrip, of.columns_.size.taps},
          reversed{s.reversed + worker * of.taps_size(), C::kStrip, of.columns_.size.taps},
          total{s.total + worker * of.taps_size(), C::kStrip, of.columns_.size.taps},
          ring(s.ring + worker * kRingSize),
          zeros(s.zeros + worker * 2 * C::kStrip),
          wide_zeros(s.wide_zeros + worker * C::kStrip) {
      std::fill(zeros, zeros + C::kStrip, S{});
      std::fill(wide_zeros, wide_zeros + C::kStrip, T(0));
    }
    void clear() const { std::fill(total.first, total.tap(N, 0), T(0)); }
    // The gradients of the sums at a position, which may be one before the first.
    T* made(int stream, std::int64_t position) const {
      return ring + (stream * kRing + (position + kRing) % kRing) * C::kStrip;
    }

    TapRows<T> taps, reversed, total;
    T* ring;
    S* zeros;
    T* wide_zeros;
  };
  static constexpr std::int64_t kRingSize = kAnew ? N * kRing * C::kStrip : 0;

  bool weights() const { return a_.grad_filter || a_.grad_bias; }
  std::int64_t taps_size() const { return N * (columns_.size.taps + 1) * C::kStrip; }
  Slots slots(Arena& arena) const {
    const std::int64_t each = team_.threads * taps_size(), row = team_.threads * C::kStrip;
    Slots s{};
    s.taps = arena.take<T>(each), s.reversed = arena.take<T>(each), s.total = arena.take<T>(each);
    s.ring = arena.take<T>(team_.threads * kRingSize);
    s.sums = arena.take<T>(weights() ? sums_.size() : 0);
    s.zeros = arena.take<S>(2 * row), s.wide_zeros = arena.take<T>(row);
    return s;
  }

  void unit(const Place& at, std::int64_t strip, const Slot& slot) const {
    const ShortConv& n = columns_.size;
    std::int64_t made = n.circular ? at.begin - n.ahead : std::max<std::int64_t>(at.begin - n.ahead, 0);
    for (std::int64_t t = at.begin; t < at.end; t += kBlock) {
      const int height = int(std::min<std::int64_t>(kBlock, at.end - t));
      if (kAnew) {
        std::int64_t end = a_.grad_x ? t + height - n.ahead + n.taps - 1 : t + height;
        if (!n.circular) end = std::min(end, n.length);
        for (; made < end; made += R) make(at, made, strip, slot);
      }
      block(at, t, height, strip, slot);
    }
    if (past_caches_) fence();
  }

  // The gradients of the sums at R positions, into the ring.
  void make(const Place& at, std::int64_t t, std::int64_t strip, const Slot& slot) const {
    const ShortConv& n = columns_.size;
    const S* from[N][kBlock + kMaxTaps];
    const S* grads[kResults<K>][R];
    T* to[N][R];
    for (int s = 0; s < N; ++s) {
      const auto x = columns_.template positions<S>(a_.x, at, s, strip, slot.zeros);
      for (int k = 0; k < R + n.taps - 1; ++k) from[s][k] = x(t + n.ahead - (n.taps - 1) + k);
      for (int i = 0; i < R; ++i) to[s][i] = slot.made(s, t + i);
    }
    Soon<S, N + kResults<K>, R> soon;
    for (int s = 0; s < N; ++s)
      soon.rows(s, columns_.template positions<S>(a_.x, at, s, strip, slot.zeros), t + n.ahead);
    for (int r = 0; r < kResults<K>; ++r) {
      const Input& grad = r == 0 ? a_.grad_out : a_.grad_product;
      const auto g = columns_.template positions<S>(grad, at, 0, strip, slot.zeros);
      for (int i = 0; i < R; ++i) grads[r][i] = g(t + i);
      soon.rows(N + r, g, t);
    }
    sum_taps<N, R>(from, slot.taps, bool(a_.bias), columns_.width(strip),
                   [&](int i, std::int64_t lane, std::int64_t count, Vec<T>* p)
                       __attribute__((always_inline)) {
                         soon.fetch(i, lane);
                         Vec<T> g[kResults<K>];
                         for (int r = 0; r < kResults<K>; ++r) g[r] = get_row<T>(grads[r][i] + lane, count);
                         pull<K, T>(columns_.size.epilogue, g, p);
                         for (int s = 0; s < N; ++s) store(to[s][i] + lane, p[s]);
                       });
  }

  // grad_x at a block's positions, and its share of the weights' gradients.
  void block(const Place& at, std::int64_t t, int height, std::int64_t strip, const Slot& slot) const {
    const ShortConv& n = columns_.size;
    const G* grads[N][kBlock + kMaxTaps];  // at positions t - ahead …
    for (int s = 0; s < N; ++s) {
      const auto g = columns_.template positions<S>(a_.grad_out, at, s, strip, slot.zeros);
      for (int k = 0; k < kBlock + n.taps - 1; ++k) {  // some beyond its end are asked for, not used
        const std::int64_t position = t - n.ahead + k;
        if constexpr (!kAnew) grads[s][k] = g(position);
        else
          grads[s][k] =
              n.circular || (position >= 0 && position < n.length) ? slot.made(s, position) : slot.wide_zeros;
      }
    }
    if (a_.grad_x)
      for (int i = 0; i < height; i += R) grad_rows(at, t, i, strip, grads, slot);
    if (weights())
      for (int s = 0; s < N; ++s) {
        const auto x = columns_.template positions<S>(a_.x, at, s, strip, slot.zeros);
        const S* rows[kBlock + kMaxTaps];
        for (int k = 0; k < height + n.taps - 1; ++k) rows[k] = x(t + n.ahead - (n.taps - 1) + k);
        add_weight_gradients<T>(rows, grads[s] + n.ahead, height, columns_.width(strip), slot.total, s,
                                bool(a_.grad_filter), bool(a_.grad_bias));
      }
  }

  void grad_rows(const Place& at, std::int64_t t, int i0, std::int64_t strip,
                 const G* const (*grads)[kBlock + kMaxTaps], const Slot& slot) const {
    for (int s = 0; s < N; ++s) {
      S* to[R];
      for (int i = 0; i < R; ++i)
        to[i] = t + i0 + i < at.end ? columns_.template row<S>(a_.grad_x, at.batch, t + i0 + i, s, strip)
                                    : slot.zeros + C::kStrip;
      const G* from[1][kBlock + kMaxTaps];
      std::copy_n(grads[s] + i0, R + columns_.size.taps - 1, from[0]);
      const TapRows<T> taps{slot.reversed.tap(s, 0), C::kStrip, columns_.size.taps};
      Soon<S, 2, R> soon;
      if constexpr (!kAnew) {
        soon.rows(0, columns_.template positions<S>(a_.grad_out, at, s, strip, slot.zeros), t + i0);
        soon.rows(1, columns_.template positions<S>(a_.x, at, s, strip, slot.zeros), t + i0);
      }
      sum_taps<1, R>(from, taps, false, columns_.width(strip),
                     [&](int i, std::int64_t lane, std::int64_t count, Vec<T>* p)
                         __attribute__((always_inline)) {
                           if constexpr (!kAnew) soon.fetch(i, lane);
                           put_row<S, T>(to[i] + lane, p[0], count, past_caches_);
                         });
    }
  }

  void keep(T* sums, std::int64_t run, std::int64_t strip, const Slot& slot) const {
    for (int s = 0; s < N; ++s)
      for (int j = 0; j <= columns_.size.taps; ++j)
        std::copy_n(slot.total.tap(s, j), columns_.width(strip),
                    sums_.row(sums, run, j) + s * columns_.lanes + strip * C::kStrip);
  }

  C columns_;
  ShortConvBackward a_;
  WeightSums sums_;
  Team team_;
  bool past_caches_;
};

}  // namespace
