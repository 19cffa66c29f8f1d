// The CPU kernels of pair_moments, one set per CPU capability.
#pragma once
#include "../pair_moments.h"
#include "parallel.h"

namespace equiconv::cpu {

struct PairMomentsKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads: O(functions * channels) for each, and
  // for the gradient of x a row of channels a pair, of one orientation or of as many as fit in 4 MB.
  std::int64_t (*moments_scratch)(const PairMessage&, const PairMoments&, int threads);
  std::int64_t (*gradients_scratch)(const PairMessage&, const PairMomentsGradients&, int threads);
  void (*moments)(const PairMessage&, const PairMoments&, void* scratch, int threads, Parallel);
  void (*gradients)(const PairMessage&, const PairMomentsGradients&, void* scratch, int threads, Parallel);
};

// The kernels of the capability in use (capability.h).
const PairMomentsKernels& pair_moments();

}  // namespace equiconv::cpu
