// fft_conv: what a kernel is given, on any device. No torch in here.
//
//   y = post_gate * (filter (*) (pre_gate * x) + skip * pre_gate * x)        docs/mathematics.md
#pragma once
#include <cstdint>

#include "dtype.h"

namespace equiconv {

enum class Mode : std::int8_t { causal, bidirectional, circular };

// A strided array indexed (batch, channel, position); strides count elements. Both layouts, a filter
// shared by the batch (stride 0) and non-contiguous tensors are all just strides. Null data: absent.
template <class Void>
struct Array {
  Void* data = nullptr;
  DType dtype = DType::float32;
  std::int64_t batch = 0, channel = 0, position = 0;
  explicit operator bool() const { return data != nullptr; }
};
using Input = Array<const void>;
using Output = Array<void>;

// Sizes of one call. `shared`: one filter per channel, else one per batch entry and channel.
struct FftConv {
  std::int64_t batch, channels, length, taps;
  Mode mode;
  bool shared;
};

// x, gates and y have one dtype. filter and skip have that dtype too, or float32 beside a half type.
struct FftConvForward {
  Input x, filter, pre_gate, post_gate, skip;
  Output y;
};

// Gradients are written where their data is not null, each in the dtype of what it is a gradient of.
// All arrays of one call that exist have the sizes of FftConv; skip and grad_skip are (channel) only.
struct FftConvBackward {
  Input grad_out, x, filter, pre_gate, post_gate, skip;
  Output grad_x, grad_filter, grad_pre_gate, grad_post_gate, grad_skip;
};

}  // namespace equiconv
