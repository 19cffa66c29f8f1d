// The CUDA launchers of implicit_filter: asynchronous on `stream`, no allocation, no synchronisation.
#pragma once
#include <cuda_runtime_api.h>

#include "../implicit_filter.h"

namespace equiconv::cuda {

// Bytes of device workspace (256-byte aligned) that a call needs.
std::int64_t implicit_filter_workspace(const ImplicitFilter&, const ImplicitFilterForward&);
std::int64_t implicit_filter_backward_workspace(const ImplicitFilter&, const ImplicitFilterBackward&);

// No size but `inner` may be 0. Gradients are contiguous, all else has any strides.
cudaError_t implicit_filter(const ImplicitFilter&, const ImplicitFilterForward&, void* workspace,
                            cudaStream_t stream);
cudaError_t implicit_filter_backward(const ImplicitFilter&, const ImplicitFilterBackward&, void* workspace,
                                     cudaStream_t stream);

}  // namespace equiconv::cuda
