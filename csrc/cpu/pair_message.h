// The CPU kernels of pair_message, one set per CPU capability.
#pragma once
#include "../pair_message.h"
#include "parallel.h"

namespace equiconv::cpu {

struct PairMessageKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads: O(functions * channels) for each, and
  // for a message one row of out.
  std::int64_t (*aggregate_scratch)(const PairMessage&, const PairAggregate&, int threads);
  std::int64_t (*gradients_scratch)(const PairMessage&, const PairGradients&, int threads);
  void (*aggregate)(const PairMessage&, const PairAggregate&, void* scratch, int threads, Parallel);
  void (*gradients)(const PairMessage&, const PairGradients&, void* scratch, int threads, Parallel);
};

// The kernels of the capability in use (capability.h).
const PairMessageKernels& pair_message();

}  // namespace equiconv::cpu
