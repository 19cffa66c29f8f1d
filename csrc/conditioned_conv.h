// conditioned_conv: what a kernel is given, on any device. No torch in here.
//
//   y = post_gate * (irfft((H + rfft(filter, L)) * rfft(u)) + skip * u), u = pre_gate * x
//   H = S(|rfft(query)|), or with a key, S(conj(rfft(key)) * rfft(query))
//   S(a)[k] = bias + sum over j of frequency_filter[j] * a[k - j + width / 2]        docs/mathematics.md
#pragma once
#include "fft_conv.h"

namespace equiconv {

// Sizes of one call. width: taps of the frequency filter. taps: of the static one, 0 where there is none.
struct ConditionedConv {
  static constexpr std::int64_t kMaxWidth = 16;

  std::int64_t batch, channels, length, width, taps;
  bool keyed;

  std::int64_t frequencies() const { return length / 2 + 1; }
};

// x, query, key, gates and y have one dtype. The others have that dtype too, or float32 beside a half type;
// frequency_filter and filter are (channel, tap), frequency_bias and skip (channel).
struct ConditionedConvForward {
  Input x, query, key, frequency_filter, frequency_bias, filter, pre_gate, post_gate, skip;
  Output y;
};

// Gradients are written where their data is not null, each in the dtype of what it is a gradient of, and
// contiguous.
struct ConditionedConvBackward {
  Input grad_out, x, query, key, frequency_filter, frequency_bias, filter, pre_gate, post_gate, skip;
  Output grad_x, grad_query, grad_key, grad_frequency_filter, grad_frequency_bias, grad_filter, grad_pre_gate,
      grad_post_gate, grad_skip;
};

}  // namespace equiconv
