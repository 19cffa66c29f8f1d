// short_conv's tensors as tiles of 32 lanes by some positions in shared memory. A lane is a channel, or a
// part of one where x is complex.
//
// A tile is read and written along whichever axis is contiguous, 16 bytes at a time where that is aligned,
// and worked on with the 32 threads of a warp on the 32 lanes. The pitch is odd: neighbouring lanes, and in
// (B, L, D) the vectors of neighbouring threads, fall into different banks.
#pragma once
#include "fft_conv_tensors.cuh"
#include "short_conv.h"

namespace equiconv::cuda {

constexpr int kLanesOfTile = 32, kThreads = 256, kWarps = kThreads / 32;
constexpr int kEach = 8;               // positions of a thread
constexpr int kTile = kWarps * kEach;  // results of a tile, along the sequence
constexpr int kReach = kMaxTaps - 1;
constexpr int kPitch = kTile + 3 * kMaxTaps + 1;  // of x in the backward pass, the longest: odd

static_assert(kPitch % 2 == 1);

// Where a tile lies: the sample, the stream's first channel, the first lane.
struct TilePlace {
  std::int64_t batch, channel, lane;
};

template <class Void>
__device__ __forceinline__ std::int64_t offset_of(const Array<Void>& a, const ShortConv& n,
                                                  const TilePlace& at, int lane, std::int64_t position) {
  const std::int64_t c = n.parts == 2 ? (at.lane + lane) / 2 : at.lane + lane;
  const std::int64_t part = n.parts == 2 ? (at.lane + lane) % 2 : 0;
  return at.batch * a.batch + (at.channel + c) * a.channel + part + position * a.position;
}

// Whether threads take 16 bytes of an array at a time: along the lanes, or along the sequence.
struct Widths {
  bool lanes, positions;
};
template <class Void>
inline Widths widths_of(const Array<Void>& a, const ShortConv& n) {
  const std::int64_t size = a.dtype == DType::float64 ? 8 : a.dtype == DType::float32 ? 4 : 2;
  const std::int64_t width = 16 / size;
  const auto fits = [&](std::int64_t stride) { return stride % width == 0; };
  const bool aligned = reinterpret_cast<std::uintptr_t>(a.data) % 16 == 0 && fits(a.batch);
  return {aligned && a.channel == n.parts && fits(a.position) && fits(n.channels * n.parts),
          aligned && n.parts == 1 && a.position == 1 && fits(a.channel)};
}

// Calls f(lane, place, how many) for the pieces of `lanes` x `count` places that the threads of a block
// share, neighbouring threads along the contiguous axis; at most `width` places at once, which begin at a
// multiple of it.
template <class F>
__device__ __forceinline__ void for_tile(int lanes, int count, bool along_lanes, int width, F f) {
  if (along_lanes) {
    const int each = kLanesOfTile / width;
#pragma unroll 1
    for (int i = threadIdx.x; i < each * count; i += kThreads) {
      const int lane = i % each * width;
      if (lane < lanes) f(lane, i / each);
    }
  } else {
    const int each = (count + width - 1) / width;
#pragma unroll 1
    for (int i = threadIdx.x; i < lanes * each; i += kThreads) f(i / each, i % each * width);
  }
}

// tile[lane][k] = the value at position first + k, k < count; zero outside of the sequence, or what is a
// period away, and in lanes that do not exist.
template <class R>
__device__ __forceinline__ void load_tile(R* tile, const Input& a, Widths widths, const ShortConv& n,
                                          const TilePlace& at, int lanes, std::int64_t first, int count) {
#pragma unroll 1
  for (int i = threadIdx.x; i < (kLanesOfTile - lanes) * count; i += kThreads)
    tile[(lanes + i / count) * kPitch + i % count] = R(0);
  with_stored_type<R>(a.dtype, [&](auto type) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    constexpr int kWidth = Wide<T>::kWidth;
    const T* data = static_cast<const T*>(a.data);
    const auto place_of = [&](std::int64_t position) {
      if (!n.circular) return position < n.length ? position : std::int64_t{-1};
      while (position < 0) position += n.length;
      while (position >= n.length) position -= n.length;  // once, unless the row is shorter than a tile
      return position;
    };
    const auto one = [&](int lane, int k) {
      const std::int64_t position = place_of(first + k);
      tile[lane * kPitch + k] = position < 0 ? R(0) : R(data[offset_of(a, n, at, lane, position)]);
    };
    const bool along_lanes = a.channel == n.parts && n.channels * n.parts > 1;
    if (widths.lanes) {
      for_tile(lanes, count, true, kWidth, [&](int lane, int k) {
        const std::int64_t position = place_of(first + k);
        Wide<T> v{};
        if (position >= 0) v = *reinterpret_cast<const Wide<T>*>(data + offset_of(a, n, at, lane, position));
#pragma unroll
        for (int i = 0; i < kWidth; ++i) tile[(lane + i) * kPitch + k] = R(v.value[i]);
      });
    } else if (widths.positions && !along_lanes) {
      // 16 bytes at a time from the first aligned place on, if they are all in the sequence.
      const int skip = int((kWidth - first % kWidth) % kWidth);
      for_tile(lanes, count + kWidth, false, kWidth, [&](int lane, int group) {
        const int k = group + skip - kWidth;
        if (k >= 0 && k + kWidth <= count && first + k >= 0 && first + k + kWidth <= n.length) {
          const Wide<T> v = *reinterpret_cast<const Wide<T>*>(data + offset_of(a, n, at, lane, first + k));
#pragma unroll
          for (int i = 0; i < kWidth; ++i) tile[lane * kPitch + k + i] = R(v.value[i]);
        } else {
#pragma unroll 1
          for (int i = 0; i < kWidth; ++i)
            if (k + i >= 0 && k + i < count) one(lane, k + i);
        }
      });
    } else {
      for_tile(lanes, count, along_lanes, 1, one);
    }
  });
}

// The other way: `count` positions from `first` on, all in the sequence.
template <class R>
__device__ __forceinline__ void store_tile(const R* tile, const Output& a, Widths widths, const ShortConv& n,
                                           const TilePlace& at, int lanes, std::int64_t first, int count) {
  with_stored_type<R>(a.dtype, [&](auto type) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    constexpr int kWidth = Wide<T>::kWidth;
    T* data = static_cast<T*>(a.data);
    const auto one = [&](int lane, int k) {
      data[offset_of(a, n, at, lane, first + k)] = T(tile[lane * kPitch + k]);
    };
    const bool along_lanes = a.channel == n.parts && n.channels * n.parts > 1;
    if (widths.lanes) {
      for_tile(lanes, count, true, kWidth, [&](int lane, int k) {
        Wide<T> v;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) v.value[i] = T(tile[(lane + i) * kPitch + k]);
        *reinterpret_cast<Wide<T>*>(data + offset_of(a, n, at, lane, first + k)) = v;
      });
    } else if (widths.positions && !along_lanes && first % kWidth == 0) {
      for_tile(lanes, count, false, kWidth, [&](int lane, int k) {
        if (k + kWidth <= count) {
          Wide<T> v;
#pragma unroll
          for (int i = 0; i < kWidth; ++i) v.value[i] = T(tile[lane * kPitch + k + i]);
          *reinterpret_cast<Wide<T>*>(data + offset_of(a, n, at, lane, first + k)) = v;
        } else {
#pragma unroll 1
          for (int i = k; i < count; ++i) one(lane, i);
        }
      });
    } else {
      for_tile(lanes, count, along_lanes, 1, one);
    }
  });
}

// taps[j][lane], then the bias at j = taps: zero in lanes that do not exist.
template <class R>
__device__ __forceinline__ void load_taps(R* taps, const Input& filter, const Input& bias, const ShortConv& n,
                                          const TilePlace& at, int lanes) {
#pragma unroll 1
  for (int i = threadIdx.x; i < (n.taps + 1) * kLanesOfTile; i += kThreads) {
    const int lane = i % kLanesOfTile, j = i / kLanesOfTile;
    const std::int64_t channel = at.channel + (at.lane + lane) / n.parts;
    R value(0);
    if (lane < lanes && j < n.taps)
      value = load_one<R>(filter, channel * filter.channel + j * filter.position);
    if (lane < lanes && j == n.taps && bias.data) value = load_one<R>(bias, channel * bias.channel);
    taps[i] = value;
  }
}

// Adds to sums[k] the sum over taps j of taps[j] row[k + count - 1 - j], j ascending, or with the taps in
// reverse order. Each value of the row is read once and moves on from one sum to the next.
template <class R>
__device__ __forceinline__ void slide(R (&sums)[kEach], const R* row, const R* taps, int count,
                                      bool reversed) {
  R window[kEach];
#pragma unroll
  for (int k = 0; k < kEach; ++k) window[k] = row[k + count - 1];
  for (int j = 0; j < count; ++j) {
    const R f = taps[(reversed ? count - 1 - j : j) * kLanesOfTile];
#pragma unroll
    for (int k = 0; k < kEach; ++k) sums[k] += f * window[k];
#pragma unroll
    for (int k = kEach - 1; k > 0; --k) window[k] = window[k - 1];
    if (j + 1 < count) window[0] = row[count - 2 - j];
  }
}

}  // namespace equiconv::cuda
