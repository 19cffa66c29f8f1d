// The CUDA launchers of pair_message: asynchronous on `stream`, no allocation, no synchronisation.
#pragma once
#include <cuda_runtime_api.h>

#include "../pair_message.h"

namespace equiconv::cuda {

// Bytes of device workspace (256-byte aligned) that a call needs; may be 0.
std::int64_t pair_message_aggregate_workspace(const PairMessage&, const PairAggregate&);
std::int64_t pair_message_gradients_workspace(const PairMessage&, const PairGradients&);

cudaError_t pair_message_aggregate(const PairMessage&, const PairAggregate&, void* workspace,
                                   cudaStream_t stream);
cudaError_t pair_message_gradients(const PairMessage&, const PairGradients&, void* workspace,
                                   cudaStream_t stream);

}  // namespace equiconv::cuda
