// The CUDA launchers of long_conv_step: asynchronous on `stream`, no allocation, no synchronisation.
#pragma once
#include <cuda_runtime_api.h>

#include "../long_conv_step.h"

namespace equiconv::cuda {

// Bytes of device workspace (256-byte aligned) that a call needs; 0 unless a square goes through fft_conv.
std::int64_t long_conv_step_workspace(const LongConvStep&, const LongConvStepTensors&);
std::int64_t long_conv_step_filter_workspace(const StepFilter&, const StepTaps&);

// Takes the tokens one after the other, or where there is no x adds the square that ends at `position`.
cudaError_t long_conv_step(const LongConvStep&, const LongConvStepTensors&, void* workspace,
                           cudaStream_t stream);
// Taps to what the steps are given, which is zeros before.
cudaError_t long_conv_step_filter(const StepFilter&, const StepTaps&, void* workspace, cudaStream_t stream);

}  // namespace equiconv::cuda
