// Between strided tensors and rows in cache: load, convert, gate; gate, convert, store.
#pragma once
#include <algorithm>

#include "../fft_conv.h"
#include "direct.h"
#include "ring_passes.h"
#include "simd.h"
#include "storage.h"

namespace {

using equiconv::Input;
using equiconv::Output;

// How a group of neighbouring channels lies in memory.
enum class Lie { rows, tiles, scattered };  // positions contiguous, channels contiguous, neither

template <class Void>
Lie lie_of(const equiconv::Array<Void>& a) {
  return a.position == 1 ? Lie::rows : a.channel == 1 ? Lie::tiles : Lie::scattered;
}
template <class A, class B>
Lie lie_of(const A& a, const B& gate, std::int64_t channels) {
  const Lie lie = lie_of(a);
  if (lie == Lie::tiles && channels == 1) return Lie::scattered;  // a tile for one channel is mostly air
  return !gate || lie_of(gate) == lie ? lie : Lie::scattered;
}

// Channels that are worth loading together where they are contiguous: at least a whole cache line of them,
// more while their rows fit the L2 cache beside their transforms, up to four lines. (Elsewhere one.) Measured
// on AVX2 against 4 tiles' width at any length: (B, L, D) takes 1.2 instead of 1.4 times as long as (B, D, L)
// at 4k, 1.2 instead of 1.5 at 16k; at 1k four lines beat two by a quarter.
template <class T, class Void>
std::int64_t group_of(const equiconv::Array<Void>& a, std::int64_t length) {
  if (lie_of(a) != Lie::tiles) return 1;
  constexpr std::int64_t cached =
      kVectorBytes == 64 ? 1 << 19 : 1 << 18;  // of L2 caches of 1 MB, and of half
  const std::int64_t line = 64 / std::int64_t(bytes_of(a.dtype));
  std::int64_t group = 4 * line;
  while (group > line && group * length * std::int64_t(sizeof(T)) > cached) group /= 2;
  return std::max<std::int64_t>(group, kLanes<T>);
}

template <class Pointee, class Void>
Pointee* pointer(const equiconv::Array<Void>& a, std::int64_t batch, std::int64_t channel,
                 std::int64_t position) {
  return a ? static_cast<Pointee*>(a.data) + batch * a.batch + channel * a.channel + position * a.position
           : nullptr;
}

// Part of a tensor: `channels` rows from (batch, channel), positions [begin, end).
struct Part {
  std::int64_t batch, channel, channels, begin, end;
};

// ---- contiguous rows where they lie, as sources and sinks of the passes ----
// Several streams are read at once, each across pages: their next lines are asked for by hand, once a line.
template <int R = 1, class S>
EQUICONV_INLINE void fetch_next(const S* p, std::int64_t t, std::int64_t step = 0) {
  constexpr std::int64_t line = 64 / sizeof(S);
  if (kLanes<typename Arithmetic<S>::type> < line && t % line) return;
#pragma GCC unroll 8
  for (int s = 0; s < R; ++s) __builtin_prefetch(reinterpret_cast<const char*>(p + t + s * step) + 1024);
}

// x[t] (* gate[t]), zero from `length` on.
template <class T, class S>
struct GatedRow {
  static constexpr bool kReal = true;
  const S *x, *gate;
  std::int64_t length;

  std::int64_t whole() const { return length / kLanes<T>; }
  template <bool kWhole, int R>
  EQUICONV_INLINE void read(std::int64_t t, std::int64_t step, Complex<T> (&a)[R]) const {
    if constexpr (kWhole) {
      fetch_next<R>(x, t, step);
#pragma GCC unroll 8
      for (int s = 0; s < R; ++s) a[s].re = load(x + t + s * step);
      if (!gate) return;
      fetch_next<R>(gate, t, step);
#pragma GCC unroll 8
      for (int s = 0; s < R; ++s) a[s].re *= load(gate + t + s * step);
    } else {
#pragma GCC unroll 8
      for (int s = 0; s < R; ++s) a[s].re = re(t + s * step);
    }
  }
  EQUICONV_INLINE Vec<T> re(std::int64_t t) const {
    if (t + kLanes<T> <= length) {
      fetch_next(x, t);
      if (!gate) return load(x + t);
      fetch_next(gate, t);
      return load(x + t) * load(gate + t);
    }
    if (t >= length) return Vec<T>{};
    const int count = int(length - t);
    return gate ? load_some<T>(x + t, count) * load_some<T>(gate + t, count) : load_some<T>(x + t, count);
  }
};
// y[t] = (v + skip * u[t]) (* gate[t]); a second output has the same v and skip, and its own gate.
template <class T, class S>
struct GatedSink {
  struct Out {
    S* y;
    const S* gate;
  };
  Out first, second;
  GatedRow<T, S> u;
  bool with_skip;
  T skip;
  bool past_caches;

  std::int64_t whole() const { return u.whole(); }
  template <bool kWhole, int R>
  EQUICONV_INLINE void write(std::int64_t t, std::int64_t step, Complex<T> (&a)[R]) const {
    if (with_skip) {
      Complex<T> b[R];
      u.template read<kWhole>(t, step, b);
#pragma GCC unroll 8
      for (int s = 0; s < R; ++s) a[s].re += splat(skip) * b[s].re;
    }
    for (const Out& out : {first, second}) {
      if (!out.y) continue;
      if constexpr (kWhole) {
        put_whole(out, t, step, a);
      } else {
#pragma GCC unroll 8
        for (int s = 0; s < R; ++s) put(out, t + s * step, a[s].re);
      }
    }
  }
  template <int R>
  EQUICONV_INLINE void put_whole(const Out& out, std::int64_t t, std::int64_t step,
                                 const Complex<T> (&a)[R]) const {
    Vec<T> v[R];
#pragma GCC unroll 8
    for (int s = 0; s < R; ++s) v[s] = a[s].re;
    if (out.gate) {
      fetch_next<R>(out.gate, t, step);
#pragma GCC unroll 8
      for (int s = 0; s < R; ++s) v[s] *= load(out.gate + t + s * step);
    }
    if (!past_caches) fetch_next<R>(out.y, t, step);
#pragma GCC unroll 8
    for (int s = 0; s < R; ++s) store(out.y + t + s * step, v[s], past_caches);
  }
  EQUICONV_INLINE void put(const Out& out, std::int64_t t, Vec<T> v) const {
    if (t >= u.length) return;
    if (t + kLanes<T> <= u.length) {
      if (out.gate) fetch_next(out.gate, t), v *= load(out.gate + t);
      if (!past_caches) fetch_next(out.y, t);
      store(out.y + t, v, past_caches);
    } else {
      const int count = int(u.length - t);
      store_some<T>(out.y + t, out.gate ? v * load_some<T>(out.gate + t, count) : v, count);
    }
  }
  EQUICONV_INLINE static void store(S* to, Vec<T> v, bool past_caches) {
    if (past_caches) stream<S, T>(to, v);
    else ::store(to, v);
  }
};

// Sum of a[t] * b[t], pairwise over blocks: rounding grows with the logarithm of n.
template <class T, class A, class B>
Vec<T> dot_lanes(const A& a, const B& b, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t W = kLanes<T>;
  if (const std::int64_t vectors = (end - begin + W - 1) / W; vectors > kSumBlock) {
    const std::int64_t middle = begin + vectors / 2 * W;
    return dot_lanes<T>(a, b, begin, middle) + dot_lanes<T>(a, b, middle, end);
  }
  Vec<T> total{};
  for (std::int64_t t = begin; t < end; t += W) total += a.re(t) * b.re(t);
  return total;
}
template <class T, class A, class B>
T dot(const A& a, const B& b, std::int64_t n) {
  return sum<T>(dot_lanes<T>(a, b, 0, n));
}

// Whether outputs are so large that they would only push others out of the caches. Of rows 4 to 16 are stored
// side by side, so they only where a vector is a whole cache line: half lines reach the memory one by one.
inline bool past_caches(DType dtype, std::int64_t elements, bool in_place) {
  return elements * bytes_of(dtype) >= 1 << 24 && (!in_place || kVectorBytes == 64);
}
// Adds a row of contiguous positions to what is fetched ahead.
template <class Void>
void look_ahead(Ahead& ahead, const equiconv::Array<Void>& a, std::int64_t batch, std::int64_t channel,
                std::int64_t n) {
  if (!a || lie_of(a) != Lie::rows) return;
  ahead.add_row(pointer<const char>(a, batch * bytes_of(a.dtype), channel * bytes_of(a.dtype), 0),
                n * bytes_of(a.dtype));
}
// Adds part of a tile, contiguous channels.
template <class Void>
void look_ahead(Ahead& ahead, const equiconv::Array<Void>& a, const Part& part) {
  if (!a || lie_of(a) != Lie::tiles) return;
  const std::int64_t size = bytes_of(a.dtype);
  ahead.add(pointer<const char>(a, size * part.batch, size * part.channel, size * part.begin),
            part.end - part.begin, size * a.position, size * part.channels);
}

// Asks for a block of `height` positions by `width` contiguous channels in the order in which it lies, so
// that the hardware sees streams; the tiles that follow go down its columns. (Inlined by force: GCC 12 takes
// a function that only prefetches for one without effect.)
template <class S>
EQUICONV_INLINE void fetch_block(const S* first, std::int64_t stride, int height, std::int64_t width) {
  if (!first) return;
  for (int i = 0; i < height; ++i)
    for (std::int64_t c = 0; c < width; c += 64 / std::int64_t(sizeof(S)))
      __builtin_prefetch(first + i * stride + c);
}

// out[c][t] = a[t] (* gate[t]) for the positions t of the part, rows `pitch` apart; out[0] is position
// `begin`.
template <class T>
void load_rows(const Input& a, const Input& gate, const Part& part, T* out, std::int64_t pitch) {
  constexpr int W = kLanes<T>;
  const std::int64_t n = part.end - part.begin;
  with_arithmetic_storage<T>(a.dtype, [&](auto* storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    const S* x = pointer<const S>(a, part.batch, part.channel, part.begin);
    const S* p = pointer<const S>(gate, part.batch, part.channel, part.begin);
    switch (lie_of(a, gate, part.channels)) {
      case Lie::rows:
        for (std::int64_t c = 0; c < part.channels;
             ++c, out += pitch, x += a.channel, p = p ? p + gate.channel : p) {
          std::int64_t t = 0;
          if (p) {
            for (; t + W <= n; t += W) store(out + t, load(x + t) * load(p + t));
            for (; t < n; ++t) out[t] = widen(x[t]) * widen(p[t]);
          } else {
            for (; t + W <= n; t += W) store(out + t, load(x + t));
            for (; t < n; ++t) out[t] = widen(x[t]);
          }
        }
        break;
      case Lie::tiles:
        for (std::int64_t t = 0; t < n; t += W) {
          const int height = int(std::min<std::int64_t>(W, n - t));
          const int then = int(std::min<std::int64_t>(W, n - t - height));
          fetch_block<S>(x + (t + W) * a.position, a.position, then, part.channels);
          if (p) fetch_block<S>(p + (t + W) * gate.position, gate.position, then, part.channels);
          for (std::int64_t c = 0; c < part.channels; c += W) {
            const int width = int(std::min<std::int64_t>(W, part.channels - c));
            Vec<T> tile[W];
            if (height == W && width == W) {
#pragma GCC unroll 16
              for (int i = 0; i < W; ++i) tile[i] = load(x + c + (t + i) * a.position);
              if (p) {
#pragma GCC unroll 16
                for (int i = 0; i < W; ++i) tile[i] *= load(p + c + (t + i) * gate.position);
              }
              transpose<T>(tile);
#pragma GCC unroll 16
              for (int i = 0; i < W; ++i) store(out + (c + i) * pitch + t, tile[i]);
              continue;
            }
            for (int i = 0; i < W; ++i) tile[i] = Vec<T>{};
            for (int i = 0; i < height; ++i) {
              tile[i] = load_some<T>(x + c + (t + i) * a.position, width);
              if (p) tile[i] *= load_some<T>(p + c + (t + i) * gate.position, width);
            }
            transpose<T>(tile);
            for (int i = 0; i < width; ++i) {
              if (height == W) store(out + (c + i) * pitch + t, tile[i]);
              else store_some<T>(out + (c + i) * pitch + t, tile[i], height);
            }
          }
        }
        break;
      case Lie::scattered:
        for (std::int64_t c = 0; c < part.channels; ++c)
          for (std::int64_t t = 0; t < n; ++t) {
            const T v = widen(x[c * a.channel + t * a.position]);
            out[c * pitch + t] = p ? v * widen(p[c * gate.channel + t * gate.position]) : v;
          }
        break;
    }
  });
}

// y[t] = rows[c][t] (* gate[t]), the mirror image of load_rows.
template <class T>
void store_rows(const Output& y, const Input& gate, const Part& part, const T* rows, std::int64_t pitch,
                bool past_caches = false) {
  constexpr int W = kLanes<T>;
  const std::int64_t n = part.end - part.begin;
  with_arithmetic_storage<T>(y.dtype, [&](auto* storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    S* x = pointer<S>(y, part.batch, part.channel, part.begin);
    const S* p = pointer<const S>(gate, part.batch, part.channel, part.begin);
    switch (lie_of(y, gate, part.channels)) {
      case Lie::rows:
        for (std::int64_t c = 0; c < part.channels;
             ++c, rows += pitch, x += y.channel, p = p ? p + gate.channel : p) {
          std::int64_t t = 0;
          if (p) {
            for (; t + W <= n; t += W) store(x + t, load(rows + t) * load(p + t));
            for (; t < n; ++t) narrow(x + t, rows[t] * widen(p[t]));
          } else {
            for (; t + W <= n; t += W) store(x + t, load(rows + t));
            for (; t < n; ++t) narrow(x + t, rows[t]);
          }
        }
        break;
      case Lie::tiles:
        for (std::int64_t t = 0; t < n; t += W) {
          const int height = int(std::min<std::int64_t>(W, n - t));
          const int then = int(std::min<std::int64_t>(W, n - t - height));
          if (!past_caches) fetch_block<S>(x + (t + W) * y.position, y.position, then, part.channels);
          if (p) fetch_block<S>(p + (t + W) * gate.position, gate.position, then, part.channels);
          const auto whole = [&](auto tiles, std::int64_t c) {
            constexpr int kTiles = tiles;
            Vec<T> tile[kTiles][W] = {};
#pragma GCC unroll 2
            for (int k = 0; k < kTiles; ++k) {
#pragma GCC unroll 16
              for (int i = 0; i < W; ++i) tile[k][i] = load(rows + (c + k * W + i) * pitch + t);
              transpose<T>(tile[k]);
              if (p) {
#pragma GCC unroll 16
                for (int i = 0; i < W; ++i) tile[k][i] *= load(p + c + k * W + (t + i) * gate.position);
              }
            }
            S* to = x + c + t * y.position;
            if (past_caches) {
#pragma GCC unroll 16
              for (int i = 0; i < W; ++i)
#pragma GCC unroll 2
                for (int k = 0; k < kTiles; ++k) stream<S, T>(to + k * W + i * y.position, tile[k][i]);
            } else {
#pragma GCC unroll 16
              for (int i = 0; i < W; ++i)
#pragma GCC unroll 2
                for (int k = 0; k < kTiles; ++k) store(to + k * W + i * y.position, tile[k][i]);
            }
          };
          // so many tiles at once as make whole cache lines
          constexpr int kLineTiles = 64 / kVectorBytes;
          for (std::int64_t c = 0; c < part.channels;) {
            if constexpr (kLineTiles > 1)
              if (height == W && part.channels - c >= kLineTiles * W) {
                whole(std::integral_constant<int, kLineTiles>{}, c), c += kLineTiles * W;
                continue;
              }
            const int width = int(std::min<std::int64_t>(W, part.channels - c));
            if (height == W && width == W) {
              whole(std::integral_constant<int, 1>{}, c), c += W;
              continue;
            }
            Vec<T> tile[W];
            for (int i = 0; i < W; ++i) tile[i] = Vec<T>{};
            for (int i = 0; i < width; ++i) tile[i] = load_some<T>(rows + (c + i) * pitch + t, height);
            transpose<T>(tile);
            for (int i = 0; i < height; ++i) {
              if (p) tile[i] *= load_some<T>(p + c + (t + i) * gate.position, width);
              store_some<T>(x + c + (t + i) * y.position, tile[i], width);
            }
            c += width;
          }
        }
        break;
      case Lie::scattered:
        for (std::int64_t c = 0; c < part.channels; ++c)
          for (std::int64_t t = 0; t < n; ++t) {
            T v = rows[c * pitch + t];
            if (p) v *= widen(p[c * gate.channel + t * gate.position]);
            narrow(x + c * y.channel + t * y.position, v);
          }
        break;
    }
  });
}

// One value of a (channel) array.
template <class T>
T load_value(const Input& a, std::int64_t channel) {
  T value = 0;
  with_storage(a.dtype, [&](auto* storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    value = T(widen(static_cast<const S*>(a.data)[channel * a.channel]));
  });
  return value;
}
template <class T>
void store_value(const Output& a, std::int64_t channel, T value) {
  with_storage(a.dtype, [&](auto* storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    if constexpr (std::is_same_v<typename Arithmetic<S>::type, T>)
      narrow(static_cast<S*>(a.data) + channel * a.channel, value);
  });
}

}  // namespace
