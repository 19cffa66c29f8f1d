// The CPU kernels of implicit_filter, one set per CPU capability.
#pragma once
#include "../implicit_filter.h"
#include "parallel.h"

namespace equiconv::cpu {

struct ImplicitFilterKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads: the weights, for each thread a tile of
  // positions, and backward at most 32 times the weights' gradients.
  std::int64_t (*forward_scratch)(const ImplicitFilter&, const ImplicitFilterForward&, int threads);
  std::int64_t (*backward_scratch)(const ImplicitFilter&, const ImplicitFilterBackward&, int threads);
  void (*forward)(const ImplicitFilter&, const ImplicitFilterForward&, void* scratch, int threads, Parallel);
  void (*backward)(const ImplicitFilter&, const ImplicitFilterBackward&, void* scratch, int threads,
                   Parallel);
};

// The kernels of the capability in use (capability.h).
const ImplicitFilterKernels& implicit_filter();

}  // namespace equiconv::cpu
