// short_conv: what a kernel is given, on any device. No torch in here.
//
//   p[b, c, t] = sum over taps j of filter[c, j] x[b, c, t - j + ahead] + bias[c]         y = epilogue(p)
#pragma once
#include <cstdint>

#include "fft_conv.h"

namespace equiconv {

constexpr int kMaxTaps = 16;

// What becomes of p. gated: of three streams of channels, x0, x1 and v, come y = x0 and product = x1 * v.
enum class Epilogue : std::int8_t { none, silu, gelu, gated };

// Sizes of one call. `channels` are those of y; if gated, x, filter and bias have three times as many. Tap 0
// looks `ahead` positions ahead, 0 <= ahead < taps; x is periodic if `circular`, else zero outside.
// parts: 2 where x is complex. Its real and imaginary parts lie side by side, and strides count parts.
struct ShortConv {
  std::int64_t batch, channels, length;
  int taps, ahead, parts;
  bool circular;
  Epilogue epilogue;

  constexpr int streams() const { return epilogue == Epilogue::gated ? 3 : 1; }
};

// x and y have one dtype. filter (channel, position: tap) and bias (channel) have that dtype too, or float32
// beside a half type.
struct ShortConvForward {
  Input x, filter, bias;
  Output y, product;
};

// Gradients are written where their data is not null, each in the dtype of what it is a gradient of.
struct ShortConvBackward {
  Input grad_out, grad_product, x, filter, bias;
  Output grad_x, grad_filter, grad_bias;
};

// One position. x and y are (batch, channel); the states (batch, channel, position) have taps - 1 positions,
// the oldest first.
struct ShortConvStep {
  Input x, state, filter, bias;
  Output y, next;
};

}  // namespace equiconv
