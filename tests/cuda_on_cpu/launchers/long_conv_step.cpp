// The launchers of long_conv_step, callable from Python: arguments by pointer, C names.
#include "../../../csrc/cuda/long_conv_step.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

extern "C" {
std::int64_t long_conv_step_workspace(const LongConvStep* size, const LongConvStepTensors* a) {
  return cuda::long_conv_step_workspace(*size, *a);
}
std::int64_t long_conv_step_filter_workspace(const StepFilter* size, const StepTaps* a) {
  return cuda::long_conv_step_filter_workspace(*size, *a);
}
int long_conv_step(const LongConvStep* size, const LongConvStepTensors* a, void* workspace) {
  return cuda::long_conv_step(*size, *a, workspace, nullptr);
}
int long_conv_step_filter(const StepFilter* size, const StepTaps* a, void* workspace) {
  return cuda::long_conv_step_filter(*size, *a, workspace, nullptr);
}
}
