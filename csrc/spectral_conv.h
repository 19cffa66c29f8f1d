// spectral_conv: what a kernel is given, on any device. No torch in here.
//
//   y = post_gate * (irfft(spectrum * rfft(u)) + skip * u), u = pre_gate * x        docs/mathematics.md
#pragma once
#include "fft_conv.h"

namespace equiconv {

// Sizes of one call. `shared`: one spectrum per channel, else one per batch entry and channel. `complex`: a
// spectrum's entries are pairs (real part, imaginary part) of its dtype, and its strides count pairs.
struct SpectralConv {
  std::int64_t batch, channels, length;
  bool shared, complex;

  std::int64_t frequencies() const { return length / 2 + 1; }
};

// x, gates and y have one dtype. skip has that dtype too, or float32 beside a half type; spectrum is float64
// beside float64, else float32 or, if real, a half type.
struct SpectralConvForward {
  Input x, spectrum, pre_gate, post_gate, skip;
  Output y;
};

// Gradients are written where their data is not null, each in the dtype of what it is a gradient of, and
// contiguous. That of the spectrum pairs with it as real numbers do: d(loss) = Re(conj(gradient)
// d(spectrum)).
struct SpectralConvBackward {
  Input grad_out, x, spectrum, pre_gate, post_gate, skip;
  Output grad_x, grad_spectrum, grad_pre_gate, grad_post_gate, grad_skip;
};

}  // namespace equiconv
