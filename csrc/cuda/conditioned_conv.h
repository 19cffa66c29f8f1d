// The CUDA launchers of conditioned_conv: asynchronous on `stream`, no allocation, no synchronisation.
#pragma once
#include <cuda_runtime_api.h>

#include "../conditioned_conv.h"

namespace equiconv::cuda {

// Whether there are kernels for calls of this length, computed in float64 or else in float32, on the current
// device: for powers of two from 64 on, as far as backward's spectra fit in a block's shared memory, at most
// 8192 (float64: 4096).
bool conditioned_conv_fuses(std::int64_t length, DType);

// Bytes of device workspace (256-byte aligned) that a call needs; may be 0.
std::int64_t conditioned_conv_forward_workspace(const ConditionedConv&, const ConditionedConvForward&);
std::int64_t conditioned_conv_backward_workspace(const ConditionedConv&, const ConditionedConvBackward&);

// An error where there are no kernels for the call's length.
cudaError_t conditioned_conv_forward(const ConditionedConv&, const ConditionedConvForward&, void* workspace,
                                     cudaStream_t stream);
cudaError_t conditioned_conv_backward(const ConditionedConv&, const ConditionedConvBackward&, void* workspace,
                                      cudaStream_t stream);

}  // namespace equiconv::cuda
