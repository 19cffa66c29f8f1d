// The CUDA launchers of pair_invariants: asynchronous on `stream`, no allocation, no synchronisation.
#pragma once
#include <cuda_runtime_api.h>

#include "../pair_invariants.h"

namespace equiconv::cuda {

// Bytes of device workspace that a call needs: none.
std::int64_t pair_invariants_workspace(const PairInvariants&, const PairInvariantsForward&);
std::int64_t pair_invariants_backward_workspace(const PairInvariants&, const PairInvariantsBackward&);

cudaError_t pair_invariants(const PairInvariants&, const PairInvariantsForward&, void* workspace,
                            cudaStream_t stream);
cudaError_t pair_invariants_backward(const PairInvariants&, const PairInvariantsBackward&, void* workspace,
                                     cudaStream_t stream);

}  // namespace equiconv::cuda
