// The CUDA launchers of orchid_mix: asynchronous on `stream`, no allocation, no synchronisation. Of the
// arrays query and key and their gradients are absent.
#pragma once
#include <cuda_runtime_api.h>

#include "../orchid_mix.h"

namespace equiconv::cuda {

// Whether there are kernels for calls of this length, computed in float64 or else in float32, on the current
// device: where conditioned_conv has them, and a block can have 81 KB of shared memory (float64: 162).
bool orchid_mix_fuses(std::int64_t length, DType);

// Bytes of device workspace (256-byte aligned) that a call needs.
std::int64_t orchid_mix_forward_workspace(const ConditionedConv&, const ConditionedConvForward&,
                                          const OrchidMix&);
std::int64_t orchid_mix_backward_workspace(const ConditionedConv&, const ConditionedConvBackward&,
                                           const OrchidMix&);

// An error where there are no kernels for the call's length.
cudaError_t orchid_mix_forward(const ConditionedConv&, const ConditionedConvForward&, const OrchidMix&,
                               void* workspace, cudaStream_t stream);
cudaError_t orchid_mix_backward(const ConditionedConv&, const ConditionedConvBackward&, const OrchidMix&,
                                void* workspace, cudaStream_t stream);

}  // namespace equiconv::cuda
