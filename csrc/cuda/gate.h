// The CUDA launchers of gate: asynchronous on `stream`, no allocation, no synchronisation.
#pragma once
#include <cuda_runtime_api.h>

#include "../gate.h"

namespace equiconv::cuda {

// Bytes of device workspace (256-byte aligned) that a call needs; may be 0.
std::int64_t gate_forward_workspace(const Gate&, const GateForward&);
std::int64_t gate_backward_workspace(const Gate&, const GateBackward&);

cudaError_t gate_forward(const Gate&, const GateForward&, void* workspace, cudaStream_t stream);
cudaError_t gate_backward(const Gate&, const GateBackward&, void* workspace, cudaStream_t stream);

}  // namespace equiconv::cuda
