// implicit_filter: what a kernel is given, on any device. No torch in here.
//
//   h = sin(first_weight z + first_bias), then inner times h = sin(inner_weight h + inner_bias)
//   filter = exp(-rates t) * (output_weight h)        z: a position's features, t the first of them
#pragma once
#include "fft_conv.h"

namespace equiconv {

// Sizes of one call: L, E, H, M, D.
struct ImplicitFilter {
  std::int64_t length, features, order, inner, channels;
};

// All of one dtype. Strides of what has no channels and positions: features (L, E) have position and channel;
// weights (H, E), (M, H, H) and (D, H) have rows as channels, columns as positions and, of inner layers,
// layers as batch; biases (H,), (M, H) and rates (D,) have channel and batch. filter is (D, L).
struct ImplicitFilterForward {
  Input features, first_weight, first_bias, inner_weight, inner_bias, output_weight, rates;
  Output filter;
};

// grad_out is as filter, the gradients as the weights and biases are. All are written.
struct ImplicitFilterBackward {
  Input grad_out, features, first_weight, first_bias, inner_weight, inner_bias, output_weight, rates;
  Output grad_first_weight, grad_first_bias, grad_inner_weight, grad_inner_bias, grad_output_weight;
};

}  // namespace equiconv
