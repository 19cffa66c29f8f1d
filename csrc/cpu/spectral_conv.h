// The CPU kernels of spectral_conv, one set per CPU capability.
#pragma once
#include "../spectral_conv.h"
#include "fft_conv.h"

namespace equiconv::cpu {

struct SpectralConvKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads: O(threads * length).
  std::int64_t (*forward_scratch)(const SpectralConv&, const SpectralConvForward&, int threads);
  std::int64_t (*backward_scratch)(const SpectralConv&, const SpectralConvBackward&, int threads);
  void (*forward)(const SpectralConv&, const SpectralConvForward&, void* scratch, int threads, Parallel);
  void (*backward)(const SpectralConv&, const SpectralConvBackward&, void* scratch, int threads, Parallel);
};

// The kernels of the capability in use (capability.h).
const SpectralConvKernels& spectral_conv();

}  // namespace equiconv::cpu
