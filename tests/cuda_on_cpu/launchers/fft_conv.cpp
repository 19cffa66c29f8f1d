// The launchers of fft_conv, callable from Python: arguments by pointer, C names.
#include "../../../csrc/cuda/fft_conv.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

extern "C" {
std::int64_t fft_conv_forward_workspace(const FftConv* size, const FftConvForward* a) {
  return cuda::fft_conv_forward_workspace(*size, *a);
}
std::int64_t fft_conv_backward_workspace(const FftConv* size, const FftConvBackward* a) {
  return cuda::fft_conv_backward_workspace(*size, *a);
}
int fft_conv_forward(const FftConv* size, const FftConvForward* a, void* workspace) {
  return cuda::fft_conv_forward(*size, *a, workspace, nullptr);
}
int fft_conv_backward(const FftConv* size, const FftConvBackward* a, void* workspace) {
  return cuda::fft_conv_backward(*size, *a, workspace, nullptr);
}
}
