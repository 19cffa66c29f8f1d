// The launchers of gate, callable from Python: arguments by pointer, C names.
#include "../../../csrc/cuda/gate.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

extern "C" {
std::int64_t gate_forward_workspace(const Gate* size, const GateForward* a) {
  return cuda::gate_forward_workspace(*size, *a);
}
std::int64_t gate_backward_workspace(const Gate* size, const GateBackward* a) {
  return cuda::gate_backward_workspace(*size, *a);
}
int gate_forward(const Gate* size, const GateForward* a, void* workspace) {
  return cuda::gate_forward(*size, *a, workspace, nullptr);
}
int gate_backward(const Gate* size, const GateBackward* a, void* workspace) {
  return cuda::gate_backward(*size, *a, workspace, nullptr);
}
}
