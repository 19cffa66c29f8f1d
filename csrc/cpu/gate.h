// The CPU kernels of gate, one set per CPU capability.
#pragma once
#include "../gate.h"
#include "parallel.h"

namespace equiconv::cpu {

struct GateKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads: for the gradients of biases at most a
  // 16th of a gradient of x, else nothing.
  std::int64_t (*forward_scratch)(const Gate&, const GateForward&, int threads);
  std::int64_t (*backward_scratch)(const Gate&, const GateBackward&, int threads);
  void (*forward)(const Gate&, const GateForward&, void* scratch, int threads, Parallel);
  void (*backward)(const Gate&, const GateBackward&, void* scratch, int threads, Parallel);
};

// The kernels of the capability in use (capability.h).
const GateKernels& gate();

}  // namespace equiconv::cpu
