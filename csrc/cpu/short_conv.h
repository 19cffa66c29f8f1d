// The CPU kernels of short_conv, one set per CPU capability.
#pragma once
#include "../short_conv.h"
#include "parallel.h"

namespace equiconv::cpu {

struct ShortConvKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads.
  std::int64_t (*forward_scratch)(const ShortConv&, const ShortConvForward&, int threads);
  std::int64_t (*backward_scratch)(const ShortConv&, const ShortConvBackward&, int threads);
  std::int64_t (*step_scratch)(const ShortConv&, const ShortConvStep&, int threads);
  void (*forward)(const ShortConv&, const ShortConvForward&, void* scratch, int threads, Parallel);
  void (*backward)(const ShortConv&, const ShortConvBackward&, void* scratch, int threads, Parallel);
  void (*step)(const ShortConv&, const ShortConvStep&, void* scratch, int threads, Parallel);
};

// The kernels of the capability in use (capability.h).
const ShortConvKernels& short_conv();

}  // namespace equiconv::cpu
