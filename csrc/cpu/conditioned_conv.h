// The CPU kernels of conditioned_conv, one set per CPU capability.
#pragma once
#include "../conditioned_conv.h"
#include "parallel.h"

namespace equiconv::cpu {

struct ConditionedConvKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads: O(threads * length).
  std::int64_t (*forward_scratch)(const ConditionedConv&, const ConditionedConvForward&, int threads);
  std::int64_t (*backward_scratch)(const ConditionedConv&, const ConditionedConvBackward&, int threads);
  void (*forward)(const ConditionedConv&, const ConditionedConvForward&, void* scratch, int threads,
                  Parallel);
  void (*backward)(const ConditionedConv&, const ConditionedConvBackward&, void* scratch, int threads,
                   Parallel);
};

// The kernels of the capability in use (capability.h).
const ConditionedConvKernels& conditioned_conv();

}  // namespace equiconv::cpu
