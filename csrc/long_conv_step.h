// long_conv_step: what the kernel is given. No torch in here.
//
//   y[t] = post_gate[t] * sum over taps j of filter[j] u[t - j],   u = pre_gate * x docs/mathematics.md
#pragma once
#include <algorithm>
#include <cstdint>

#include "fft_conv.h"

namespace equiconv {

// A CPU adds squares of positions below this one product at a time, others by transforms. On CUDA a token
// takes the taps within its block of so many positions itself, so these are the smallest squares.
constexpr int kBlock = 64;
constexpr int kWidestOfProducts = 256;  // on CUDA: squares that are added one product at a time
constexpr int kLineBytes = 64;          // what channels are padded to, whatever the width of a vector

// A filter of `channels` channels as the steps want it. `widest` is that of the squares, a power of two, or
// 0: no squares.
//   CPU    the factors of the transforms, the first kBlock taps of all channels (tap, channel), and for each
//          vector of channels the spectra of the taps that squares of kBlock, 2 kBlock, …, `widest` positions
//          need;
//   CUDA   the first taps (tap, channel), as many as squares of products need, and where there are wider ones
//          all that these need (channel, tap).
struct StepFilter {
  std::int64_t channels, widest;

  constexpr std::int64_t first_taps() const {
    return std::max<std::int64_t>(kBlock, 2 * std::min<std::int64_t>(widest, kWidestOfProducts));
  }
  constexpr std::int64_t row_taps() const { return widest > kWidestOfProducts ? 2 * widest : 0; }
  constexpr std::int64_t values_on_cuda(int lanes_of_line) const {
    return pitch(lanes_of_line) * first_taps() + channels * row_taps();
  }

  constexpr std::int64_t roots() const { return 6 * widest; }
  constexpr std::int64_t points() const { return widest ? 2 * widest - kBlock : 0; }
  // Channels in whole lines, an odd number of them: rows that lie a power of two of bytes apart would meet in
  // the same places of a cache.
  constexpr std::int64_t pitch(int lanes_of_line) const {
    return ((channels + lanes_of_line - 1) / lanes_of_line | 1) * lanes_of_line;
  }
  constexpr std::int64_t values(int lanes_of_line) const {
    return roots() + pitch(lanes_of_line) * (kBlock + 2 * points());
  }
};

// Sizes of one call. The buffer is (batch, rows, filter's pitch): behind `position` inputs, ahead of it sums.
// Where each of `samples` samples has a filter of its own, they are one batch entry whose channels are theirs
// side by side: filter.channels = samples * channels.
struct LongConvStep {
  StepFilter filter;
  std::int64_t batch, samples, channels, tokens, position, rows;
};

// The taps (channel, position) of a filter, the first `count`, and where they go.
struct StepTaps {
  Input taps;
  std::int64_t count;
  void* prepared;
};

// x, gates and y have one dtype; buffer and filter what it is computed in.
struct LongConvStepTensors {
  Input x, pre_gate, post_gate;
  Output y;
  DType dtype;  // of the next two
  void* buffer;
  const void* filter;
};

}  // namespace equiconv
