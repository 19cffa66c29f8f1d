// The launchers of short_conv, callable from Python: arguments by pointer, C names.
#include "../../../csrc/cuda/short_conv.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

extern "C" {
std::int64_t short_conv_forward_workspace(const ShortConv* size, const ShortConvForward* a) {
  return cuda::short_conv_forward_workspace(*size, *a);
}
std::int64_t short_conv_backward_workspace(const ShortConv* size, const ShortConvBackward* a) {
  return cuda::short_conv_backward_workspace(*size, *a);
}
std::int64_t short_conv_step_workspace(const ShortConv* size, const ShortConvStep* a) {
  return cuda::short_conv_step_workspace(*size, *a);
}
int short_conv_forward(const ShortConv* size, const ShortConvForward* a, void* workspace) {
  return cuda::short_conv_forward(*size, *a, workspace, nullptr);
}
int short_conv_backward(const ShortConv* size, const ShortConvBackward* a, void* workspace) {
  return cuda::short_conv_backward(*size, *a, workspace, nullptr);
}
int short_conv_step(const ShortConv* size, const ShortConvStep* a, void* workspace) {
  return cuda::short_conv_step(*size, *a, workspace, nullptr);
}
}
