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
  // `taps` (channel, position) of them to what the steps are given.
  void (*prepare)(const StepFilter&, const Input& taps, std::int64_t count, void* prepared, int threads,
                  Parallel);
};

// The kernels of the capability in use (capability.h).
const LongConvStepKernels& long_conv_step();

}  // namespace equiconv::cpu
