// The CPU kernels of orchid_mix, one set per CPU capability: those of conditioned_conv, given short
// convolutions. Of the arrays query and key and their gradients are absent.
#pragma once
#include "../orchid_mix.h"
#include "parallel.h"

namespace equiconv::cpu {

struct OrchidMixKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads: O(threads * length).
  std::int64_t (*forward_scratch)(const ConditionedConv&, const ConditionedConvForward&, const OrchidMix&,
                                  int threads);
  std::int64_t (*backward_scratch)(const ConditionedConv&, const ConditionedConvBackward&, const OrchidMix&,
                                   int threads);
  void (*forward)(const ConditionedConv&, const ConditionedConvForward&, const OrchidMix&, void* scratch,
                  int threads, Parallel);
  void (*backward)(const ConditionedConv&, const ConditionedConvBackward&, const OrchidMix&, void* scratch,
                   int threads, Parallel);
};

// The kernels of the capability in use (capability.h).
const OrchidMixKernels& orchid_mix();

}  // namespace equiconv::cpu
