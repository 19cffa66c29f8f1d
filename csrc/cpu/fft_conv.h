// The CPU kernels of fft_conv, one set per CPU capability.
#pragma once
#include "../fft_conv.h"
#include "parallel.h"

namespace equiconv::cpu {

struct FftConvKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads: O(threads * length).
  std::int64_t (*forward_scratch)(const FftConv&, const FftConvForward&, int threads);
  std::int64_t (*backward_scratch)(const FftConv&, const FftConvBackward&, int threads);
  void (*forward)(const FftConv&, const FftConvForward&, void* scratch, int threads, Parallel);
  void (*backward)(const FftConv&, const FftConvBackward&, void* scratch, int threads, Parallel);
};

// The kernels of the capability in use (capability.h).
const FftConvKernels& fft_conv();

}  // namespace equiconv::cpu
