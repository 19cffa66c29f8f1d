// short_conv where positions lie side by side, as in (B, D, L), and wherever else channels do not: vectors of
// positions, one channel after another.
//
// A piece of a row is read into the first cache, with what its taps reach on both sides, whatever its
// strides, dtype and edges; from there the sums are vectors that begin anywhere. Results leave the same way.
// Of complex rows real and imaginary parts are neighbours there, and taps two places apart.
#pragma once
#include <algorithm>
#include <array>

#include "arena.h"
#include "short_conv_epilogue.h"
#include "short_conv_sums.h"
#include "storage.h"
#include "team.h"

namespace {

using namespace equiconv;

constexpr std::int64_t kPiece = 1024;     // positions of a piece
constexpr std::int64_t kNeighbours = 16;  // channels of a piece of work: they may share lines of memory

// Values from (batch, channel, first position) on, `count` positions; zero outside of the sequence, or
// what is there a period away.
template <class T>
void read_piece(const ShortConv& n, const Input& a, std::int64_t batch, std::int64_t channel,
                std::int64_t first, std::int64_t count, T* to) {
  with_arithmetic_storage<T>(a.dtype, [&](auto* storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    const S* row = static_cast<const S*>(a.data) + batch * a.batch + channel * a.channel;
    const auto inside = [&](std::int64_t begin, std::int64_t end) {  // positions in the sequence
      const S* from = row + begin * a.position;
      std::int64_t i = 0, values = (end - begin) * n.parts;
      if (a.position == n.parts) {
        for (; i + kLanes<T> <= values; i += kLanes<T>) store(to + i, load(from + i));
        for (; i < values; ++i) to[i] = widen(from[i]);
      } else if (n.parts == 1) {
        for (; i < values; ++i) to[i] = widen(from[i * a.position]);
      } else {
        for (; i < values; ++i) to[i] = widen(from[i / 2 * a.position + i % 2]);
      }
      to += values;
    };
    for (std::int64_t begin = first; begin < first + count;) {
      std::int64_t shift = 0;
      if (n.circular) shift = begin >= 0 ? begin / n.length : -((n.length - 1 - begin) / n.length);
      const std::int64_t at = begin - shift * n.length;
      const bool outside = at < 0 || at >= n.length;
      const std::int64_t stop = !outside ? n.length : at < 0 ? 0 : at + count;
      const std::int64_t end = std::min(first + count - begin, stop - at) + at;
      if (outside) {
        to = std::fill_n(to, (end - at) * n.parts, T(0));
      } else {
        inside(at, end);
      }
      begin += end - at;
    }
  });
}

// Where the next channel's piece will be read, for its lines to be asked for while this one's sums are made:
// no processor foresees rows that are pages apart.
struct NextPiece {
  const char* first;  // null where it is not contiguous, or there is none
  std::int64_t size;  // bytes of a value

  NextPiece() = default;
  NextPiece(const ShortConv& n, const Input& a, const Place& at, std::int64_t channel, bool exists)
      : first(nullptr), size(bytes_of(a.dtype)) {
    if (exists && a.position == n.parts)
      first = static_cast<const char*>(a.data) +
              (at.batch * a.batch + (channel + 1) * a.channel + at.begin * a.position) * size;
  }
  // Inlined by force: GCC 12 takes a function that only prefetches for one without effect.
  EQUICONV_INLINE void fetch(std::int64_t value) const {
    if (first && value * size % 64 == 0) __builtin_prefetch(first + value * size);
  }
};

template <class T>
void write_piece(const ShortConv& n, const Output& a, std::int64_t batch, std::int64_t channel,
                 std::int64_t first, std::int64_t count, const T* from, bool past_caches) {
  with_arithmetic_storage<T>(a.dtype, [&](auto* storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    S* to = static_cast<S*>(a.data) + batch * a.batch + channel * a.channel + first * a.position;
    const std::int64_t values = count * n.parts;
    if (a.position == n.parts) {
      std::int64_t i = 0;
      if (past_caches)
        for (; i + kLanes<T> <= values; i += kLanes<T>) stream<S, T>(to + i, load(from + i));
      else
        for (; i + kLanes<T> <= values; i += kLanes<T>) store(to + i, load(from + i));
      for (; i < values; ++i) narrow(to + i, from[i]);
    } else {
      for (std::int64_t i = 0; i < values; ++i) narrow(to + i / n.parts * a.position + i % n.parts, from[i]);
    }
  });
}

// A channel's taps and bias.
template <class T>
struct Taps {
  T tap[kMaxTaps], bias;

  Taps(const ShortConv& n, const Input& filter, const Input& b, std::int64_t channel) {
    read(filter, channel, n.taps, tap);
    bias = 0;
    if (b) read(b, channel, 1, &bias);
  }

 private:
  static void read(const Input& a, std::int64_t channel, int count, T* to) {
    with_storage(a.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      const S* from = static_cast<const S*>(a.data) + channel * a.channel;
      for (int j = 0; j < count; ++j) to[j] = T(widen(from[j * a.position]));
    });
  }
};

// Those of a channel of each stream.
template <int N, class T>
std::array<Taps<T>, std::size_t(N)> taps_of(const ShortConv& n, const Input& filter, const Input& bias,
                                            std::int64_t channel) {
  if constexpr (N == 1) return {Taps<T>(n, filter, bias, channel)};
  else
    return {Taps<T>(n, filter, bias, channel), Taps<T>(n, filter, bias, n.channels + channel),
            Taps<T>(n, filter, bias, 2 * n.channels + channel)};
}

// The sums at `values` places, a vector's lanes rounded up: calls sink(place, vectors of the streams).
// rows[s][i + (taps - 1 - j) * parts] is what tap j reads for place i.
template <int N, class T, class Sink>
EQUICONV_INLINE void slide_taps(const T* const* rows, const Taps<T>* taps, int count, int parts,
                                bool reversed, std::int64_t values, const Sink& sink) {
  constexpr int W = kLanes<T>, U = N == 3 ? 2 : 4;
  for (std::int64_t i = 0; i < values; i += U * W) {
    Vec<T> sums[U][N];
#pragma GCC unroll 3
    for (int s = 0; s < N; ++s)
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) sums[u][s] = splat(reversed ? T(0) : taps[s].bias);
    for (int j = 0; j < count; ++j)
#pragma GCC unroll 3
      for (int s = 0; s < N; ++s) {
        const Vec<T> f = splat(taps[s].tap[reversed ? count - 1 - j : j]);
        const T* from = rows[s] + i + (count - 1 - j) * parts;
#pragma GCC unroll 4
        for (int u = 0; u < U; ++u) sums[u][s] += f * load(from + u * W);
      }
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) sink(i + u * W, sums[u]);
  }
}

// What both directions share: where pieces lie in the first cache, with room for whole vectors past their
// end.
template <class T, Kind K>
struct PieceRows {
  static constexpr int N = kStreams<K>;
  static constexpr std::int64_t kRoom = 2 * (kPiece + 2 * kMaxTaps) + 4 * kLanes<T>;  // 2: parts

  explicit PieceRows(const ShortConv& n)
      : size(n), units(n), groups((n.channels + kNeighbours - 1) / kNeighbours) {}

  // Calls f(channel) for the channels of a group.
  template <class F>
  void each(std::int64_t group, F f) const {
    const std::int64_t end = std::min(size.channels, (group + 1) * kNeighbours);
    for (std::int64_t c = group * kNeighbours; c < end; ++c) f(c);
  }

  ShortConv size;
  Units<kPiece> units;
  std::int64_t groups;
};

template <class T, Kind K>
class ForwardRows {
  using P = PieceRows<T, K>;
  static constexpr int N = P::N, M = kResults<K>;

 public:
  ForwardRows(const ShortConv& size, const ShortConvForward& a, Team team)
      : pieces_(size), a_(a), team_(team), past_caches_(past_caches(size, a.y.dtype)) {}

  std::int64_t scratch() const {
    Arena arena(nullptr);
    arena.take<T>(team_.threads * (N + M) * P::kRoom);
    return arena.used();
  }

  void run(void* scratch) const {
    Arena arena(scratch);
    T* all = arena.take<T>(team_.threads * (N + M) * P::kRoom);
    const std::int64_t tasks = pieces_.units.count * pieces_.groups;
    team_(team_.threads, [&](std::int64_t worker) {
      T* room = all + worker * (N + M) * P::kRoom;
      std::fill_n(room, N * P::kRoom, T(0));
      for (std::int64_t task = tasks * worker / team_.threads; task < tasks * (worker + 1) / team_.threads;
           ++task)
        pieces_.each(task % pieces_.groups,
                     [&](std::int64_t c) { piece(pieces_.units[task / pieces_.groups], c, room); });
      if (past_caches_) fence();
    });
  }

 private:
  void piece(const Place& at, std::int64_t c, T* room) const {
    const ShortConv& n = pieces_.size;
    const std::int64_t count = at.end - at.begin;
    T *rows[N], *results = room + N * P::kRoom;
    NextPiece next[N];
    for (int s = 0; s < N; ++s) {
      next[s] = {n, a_.x, at, s * n.channels + c, c + 1 < n.channels};
      rows[s] = room + s * P::kRoom;
      read_piece(n, a_.x, at.batch, s * n.channels + c, at.begin + n.ahead - (n.taps - 1), count + n.taps - 1,
                 rows[s]);
    }
    const auto taps = taps_of<N, T>(n, a_.filter, a_.bias, c);
    slide_taps<N, T>(rows, taps.data(), n.taps, n.parts, false, count * n.parts,
                     [&](std::int64_t i, Vec<T>* p) __attribute__((always_inline)) {
                       for (int s = 0; s < N; ++s) next[s].fetch(i);
                       finish<K, T>(n.epilogue, p);
                       for (int r = 0; r < M; ++r) store(results + r * P::kRoom + i, p[r]);
                     });
    write_piece(n, a_.y, at.batch, c, at.begin, count, results, past_caches_);
    if constexpr (M == 2)
      write_piece(n, a_.product, at.batch, c, at.begin, count, results + P::kRoom, past_caches_);
  }

  P pieces_;
  ShortConvForward a_;
  Team team_;
  bool past_caches_;
};

// The sums over `values` places of g times what each tap read, and of g, added to total[0 … taps].
template <class T>
void add_weight_gradients(const T* x, const T* g, std::int64_t values, int taps, int parts, T* total) {
  constexpr int W = kLanes<T>, kTogether = 4;
  const std::int64_t whole = values / W * W;
  const int rest = int(values - whole);
  const auto some = [&](auto together, int j) {
    constexpr int J = together();
    Vec<T> sums[J] = {};
    const T* from = x + (taps - 1 - j) * parts;
    for (std::int64_t i = 0; i < whole; i += W) {
      const Vec<T> v = load(g + i);
#pragma GCC unroll 4
      for (int k = 0; k < J; ++k) sums[k] += v * load(from + i - k * parts);
    }
    if (rest) {
      const Vec<T> v = load_some<T>(g + whole, rest);
      for (int k = 0; k < J; ++k) sums[k] += v * load_some<T>(from + whole - k * parts, rest);
    }
    for (int k = 0; k < J; ++k) total[j + k] += sum<T>(sums[k]);
  };
  int j = 0;
  for (; j + kTogether <= taps; j += kTogether) some(std::integral_constant<int, kTogether>{}, j);
  for (; j < taps; ++j) some(std::integral_constant<int, 1>{}, j);
  Vec<T> all{};
  for (std::int64_t i = 0; i < whole; i += W) all += load(g + i);
  if (rest) all += load_some<T>(g + whole, rest);
  total[taps] += sum<T>(all);
}

template <class T, Kind K>
class BackwardRows {
  using P = PieceRows<T, K>;
  static constexpr int N = P::N, M = kResults<K>;
  static constexpr bool kAnew = K != Kind::plain;

 public:
  BackwardRows(const ShortConv& size, const ShortConvBackward& a, Team team)
      : pieces_(size),
        a_(a),
        sums_(size, pieces_.units.count, 1),
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
    const std::int64_t tasks = sums_.runs * pieces_.groups;
    team_(team_.threads, [&](std::int64_t worker) {
      T* room = s.room + worker * kRooms * P::kRoom;
      std::fill_n(room, kRooms * P::kRoom, T(0));
      for (std::int64_t task = tasks * worker / team_.threads; task < tasks * (worker + 1) / team_.threads;
           ++task) {
        const std::int64_t run = task / pieces_.groups;
        T total[N * kNeighbours][kMaxTaps + 1] = {};
        for (std::int64_t u = sums_.begin(run); u < sums_.begin(run + 1); ++u)
          pieces_.each(task % pieces_.groups, [&](std::int64_t c) {
            piece(pieces_.units[u], c, room, total + c % kNeighbours * N);
          });
        if (weights()) keep(s.sums, run, task % pieces_.groups, total);
      }
      if (past_caches_) fence();
    });
    if (weights()) sums_.finish(s.sums, a_.grad_filter, a_.grad_bias, team_);
  }

 private:
  static constexpr int kRooms = 2 * N + M + 1;
  struct Slots {
    T *room, *sums;
  };
  bool weights() const { return a_.grad_filter || a_.grad_bias; }
  Slots slots(Arena& arena) const {
    return {arena.take<T>(team_.threads * kRooms * P::kRoom), arena.take<T>(weights() ? sums_.size() : 0)};
  }

  void piece(const Place& at, std::int64_t c, T* room, T (*total)[kMaxTaps + 1]) const {
    const ShortConv& n = pieces_.size;
    // Gradients of the sums are wanted from `first` on: grad_x reaches that far. x, as far as those reach
    // where they are made anew, else as far as the weights' gradients do.
    const std::int64_t count = at.end - at.begin, reach = n.taps - 1;
    const std::int64_t first = at.begin - n.ahead, wanted = count + reach;
    const std::int64_t x_first = (kAnew ? first : at.begin) + n.ahead - reach;
    const std::int64_t x_count = (kAnew ? wanted : count) + reach;
    T *x[N], *sums[N], *grads[M];
    NextPiece next[N + M];
    for (int r = 0; r < M; ++r)
      next[N + r] = {n, r == 0 ? a_.grad_out : a_.grad_product, at, c, c + 1 < n.channels};
    for (int s = 0; s < N; ++s) {
      next[s] = {n, a_.x, at, s * n.channels + c, c + 1 < n.channels};
      x[s] = room + s * P::kRoom, sums[s] = room + (N + s) * P::kRoom;
      if (kAnew || weights()) read_piece(n, a_.x, at.batch, s * n.channels + c, x_first, x_count, x[s]);
    }
    const auto taps = taps_of<N, T>(n, a_.filter, a_.bias, c);
    if constexpr (kAnew) {
      for (int r = 0; r < M; ++r) {
        grads[r] = room + (2 * N + r) * P::kRoom;
        read_piece(n, r == 0 ? a_.grad_out : a_.grad_product, at.batch, c, first, wanted, grads[r]);
      }
      slide_taps<N, T>(x, taps.data(), n.taps, n.parts, false, wanted * n.parts,
                       [&](std::int64_t i, Vec<T>* p) __attribute__((always_inline)) {
                         for (const NextPiece& piece : next) piece.fetch(i);
                         Vec<T> g[M];
                         for (int r = 0; r < M; ++r) g[r] = load(grads[r] + i);
                         pull<K, T>(n.epilogue, g, p);
                         for (int s = 0; s < N; ++s) store(sums[s] + i, p[s]);
                       });
    } else {
      read_piece(n, a_.grad_out, at.batch, c, first, wanted, sums[0]);
    }
    T* out = room + (2 * N + M) * P::kRoom;
    for (int s = 0; s < N; ++s) {
      if (a_.grad_x) {
        const T* from[1] = {sums[s]};
        slide_taps<1, T>(from, &taps[std::size_t(s)], n.taps, n.parts, true, count * n.parts,
                         [&](std::int64_t i, Vec<T>* p) __attribute__((always_inline)) {
                           if constexpr (!kAnew)
                             for (const NextPiece& piece : next) piece.fetch(i);
                           store(out + i, p[0]);
                         });
        write_piece(n, a_.grad_x, at.batch, s * n.channels + c, at.begin, count, out, past_caches_);
      }
      if (weights())
        add_weight_gradients(x[s] + (kAnew ? n.ahead * n.parts : 0), sums[s] + n.ahead * n.parts,
                             count * n.parts, n.taps, n.parts, total[s]);
    }
  }

  void keep(T* sums, std::int64_t run, std::int64_t group, const T (*total)[kMaxTaps + 1]) const {
    const ShortConv& n = pieces_.size;
    pieces_.each(group, [&](std::int64_t c) {
      for (int s = 0; s < N; ++s)
        for (int j = 0; j <= n.taps; ++j)
          sums_.row(sums, run, j)[s * n.channels + c] = total[c % kNeighbours * N + s][j];
    });
  }

  P pieces_;
  ShortConvBackward a_;
  WeightSums sums_;
  Team team_;
  bool past_caches_;
};

}  // namespace
