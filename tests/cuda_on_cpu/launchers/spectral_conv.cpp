// The launchers of spectral_conv, callable from Python: arguments by pointer, C names.
#include "../../../csrc/cuda/spectral_conv.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

extern "C" {
bool spectral_conv_fuses(std::int64_t length, DType dtype) {
  return cuda::spectral_conv_fuses(length, dtype);
}
std::int64_t spectral_conv_forward_workspace(const SpectralConv* size, const SpectralConvForward* a) {
  return cuda::spectral_conv_forward_workspace(*size, *a);
}
std::int64_t spectral_conv_backward_workspace(const SpectralConv* size, const SpectralConvBackward* a) {
  return cuda::spectral_conv_backward_workspace(*size, *a);
}
int spectral_conv_forward(const SpectralConv* size, const SpectralConvForward* a, void* workspace) {
  return cuda::spectral_conv_forward(*size, *a, workspace, nullptr);
}
int spectral_conv_backward(const SpectralConv* size, const SpectralConvBackward* a, void* workspace) {
  return cuda::spectral_conv_backward(*size, *a, workspace, nullptr);
}
}
