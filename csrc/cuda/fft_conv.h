// The CUDA launchers of fft_conv: asynchronous on `stream`, no allocation, no synchronisation.
#pragma once
#include <cuda_runtime_api.h>

#include "../fft_conv.h"

namespace equiconv::cuda {

// Bytes of device workspace (256-byte aligned) that a call needs; may be 0.
std::int64_t fft_conv_forward_workspace(const FftConv&, const FftConvForward&);
std::int64_t fft_conv_backward_workspace(const FftConv&, const FftConvBackward&);

cudaError_t fft_conv_forward(const FftConv&, const FftConvForward&, void* workspace, cudaStream_t stream);
cudaError_t fft_conv_backward(const FftConv&, const FftConvBackward&, void* workspace, cudaStream_t stream);

}  // namespace equiconv::cuda
