// The CPU kernels of pair_invariants, one set per CPU capability.
#pragma once
#include "../pair_invariants.h"
#include "parallel.h"

namespace equiconv::cpu {

struct PairInvariantsKernels {
  // Bytes of scratch (64-byte aligned) for a call on so many threads: for each a few vectors for every
  // feature and orientation of a pair.
  std::int64_t (*forward_scratch)(const PairInvariants&, const PairInvariantsForward&, int threads);
  std::int64_t (*backward_scratch)(const PairInvariants&, const PairInvariantsBackward&, int threads);
  void (*forward)(const PairInvariants&, const PairInvariantsForward&, void* scratch, int threads, Parallel);
  void (*backward)(const PairInvariants&, const PairInvariantsBackward&, void* scratch, int threads,
                   Parallel);
};

// The kernels of the capability in use (capability.h).
const PairInvariantsKernels& pair_invariants();

}  // namespace equiconv::cpu
