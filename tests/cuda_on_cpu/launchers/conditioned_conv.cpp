// The launchers of conditioned_conv, callable from Python: arguments by pointer, C names.
#include "../../../csrc/cuda/conditioned_conv.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

extern "C" {
bool conditioned_conv_fuses(std::int64_t length, DType dtype) {
  return cuda::conditioned_conv_fuses(length, dtype);
}
std::int64_t conditioned_conv_forward_workspace(const ConditionedConv* size,
                                                const ConditionedConvForward* a) {
  return cuda::conditioned_conv_forward_workspace(*size, *a);
}
std::int64_t conditioned_conv_backward_workspace(const ConditionedConv* size,
                                                 const ConditionedConvBackward* a) {
  return cuda::conditioned_conv_backward_workspace(*size, *a);
}
int conditioned_conv_forward(const ConditionedConv* size, const ConditionedConvForward* a, void* workspace) {
  return cuda::conditioned_conv_forward(*size, *a, workspace, nullptr);
}
int conditioned_conv_backward(const ConditionedConv* size, const ConditionedConvBackward* a,
                              void* workspace) {
  return cuda::conditioned_conv_backward(*size, *a, workspace, nullptr);
}
}
