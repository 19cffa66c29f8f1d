// The CUDA launchers of spectral_conv: asynchronous on `stream`, no allocation, no synchronisation.
#pragma once
#include <cuda_runtime_api.h>

#include "../spectral_conv.h"

namespace equiconv::cuda {

// Whether there are kernels for calls of this length, computed in float64 or else in float32, on the current
// device: for powers of two from 64 on, as far as backward's spectra fit in a block's shared memory, at most
// 8192 (float64: 4096).
bool spectral_conv_fuses(std::int64_t length, DType);

// Bytes of device workspace (256-byte aligned) that a call needs; may be 0.
std::int64_t spectral_conv_forward_workspace(const SpectralConv&, const SpectralConvForward&);
std::int64_t spectral_conv_backward_workspace(const SpectralConv&, const SpectralConvBackward&);

// An error where there are no kernels for the call's length.
cudaError_t spectral_conv_forward(const SpectralConv&, const SpectralConvForward&, void* workspace,
                                  cudaStream_t stream);
cudaError_t spectral_conv_backward(const SpectralConv&, const SpectralConvBackward&, void* workspace,
                                   cudaStream_t stream);

}  // namespace equiconv::cuda
