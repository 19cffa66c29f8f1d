// The CUDA launchers of short_conv: asynchronous on `stream`, no allocation, no synchronisation.
#pragma once
#include <cuda_runtime_api.h>

#include "../short_conv.h"

namespace equiconv::cuda {

// Bytes of device workspace (256-byte aligned) that a call needs; may be 0.
std::int64_t short_conv_forward_workspace(const ShortConv&, const ShortConvForward&);
std::int64_t short_conv_backward_workspace(const ShortConv&, const ShortConvBackward&);
std::int64_t short_conv_step_workspace(const ShortConv&, const ShortConvStep&);

cudaError_t short_conv_forward(const ShortConv&, const ShortConvForward&, void* workspace,
                               cudaStream_t stream);
cudaError_t short_conv_backward(const ShortConv&, const ShortConvBackward&, void* workspace,
                                cudaStream_t stream);
cudaError_t short_conv_step(const ShortConv&, const ShortConvStep&, void* workspace, cudaStream_t stream);

}  // namespace equiconv::cuda
