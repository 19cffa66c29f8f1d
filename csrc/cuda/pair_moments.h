// The CUDA launchers of pair_moments: asynchronous on `stream`, no allocation, no synchronisation.
#pragma once
#include <cuda_runtime_api.h>

#include "../pair_moments.h"

namespace equiconv::cuda {

// Bytes of device workspace (256-byte aligned) that a call needs: for the gradient of x a row of channels for
// each pair, of one orientation or of as many as fit in 32 MB; else 0.
std::int64_t pair_moments_workspace(const PairMessage&, const PairMoments&);
std::int64_t pair_moments_gradients_workspace(const PairMessage&, const PairMomentsGradients&);

cudaError_t pair_moments(const PairMessage&, const PairMoments&, void* workspace, cudaStream_t stream);
cudaError_t pair_moments_gradients(const PairMessage&, const PairMomentsGradients&, void* workspace,
                                   cudaStream_t stream);

}  // namespace equiconv::cuda
