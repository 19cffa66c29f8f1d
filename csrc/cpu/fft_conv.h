// The CPU kernels of fft_conv, one set per CPU capability.
#pragma once
#include "../fft_conv.h"

namespace equiconv::cpu {

// Calls body(context, i) for i in [0, n), in any order, on the threads of the caller's pool.
using Parallel = void (*)(std::int64_t n, void (*body)(void* context, std::int64_t i), void* context);

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
