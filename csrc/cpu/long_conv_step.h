// The CPU kernels of long_conv_step, one set per CPU capability.
#pragma once
#include "../long_conv_step.h"
#include "parallel.h"

namespace equiconv::cpu {

struct LongConvStepKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads; 0 for most tokens.
  std::int64_t (*step_scratch)(const LongConvStep&, const LongConvStepTensors&, int threads);
  // Takes the tokens one after the other, or where there is no x adds the square that ends at `position`.
  void (*step)(const LongConvStep&, const LongConvStepTensors&, void* scratch, int threads, Parallel);
  std::int64_t (*filter_scratch)(const StepFilter&, const StepTaps&, int threads);
  // Taps to what the steps are given.
  void (*filter)(const StepFilter&, const StepTaps&, void* scratch, int threads, Parallel);
};

// The kernels of the capability in use (capability.h).
const LongConvStepKernels& long_conv_step();

}  // namespace equiconv::cpu
