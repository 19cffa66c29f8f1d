// The launchers of implicit_filter, callable from Python: arguments by pointer, C names.
#include "../../../csrc/cuda/implicit_filter.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

extern "C" {
std::int64_t implicit_filter_workspace(const ImplicitFilter* n, const ImplicitFilterForward* a) {
  return cuda::implicit_filter_workspace(*n, *a);
}
std::int64_t implicit_filter_backward_workspace(const ImplicitFilter* n, const ImplicitFilterBackward* a) {
  return cuda::implicit_filter_backward_workspace(*n, *a);
}
int implicit_filter(const ImplicitFilter* n, const ImplicitFilterForward* a, void* workspace) {
  return cuda::implicit_filter(*n, *a, workspace, nullptr);
}
int implicit_filter_backward(const ImplicitFilter* n, const ImplicitFilterBackward* a, void* workspace) {
  return cuda::implicit_filter_backward(*n, *a, workspace, nullptr);
}
}
