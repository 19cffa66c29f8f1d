// The launchers of orchid_mix, callable from Python: arguments by pointer, C names. Arrays come with the mix.
#include "../../../csrc/cuda/orchid_mix.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

namespace {
struct Forward {
  ConditionedConvForward arrays;
  OrchidMix mix;
};
struct Backward {
  ConditionedConvBackward arrays;
  OrchidMix mix;
};
}  // namespace

extern "C" {
bool orchid_mix_fuses(std::int64_t length, DType dtype) { return cuda::orchid_mix_fuses(length, dtype); }
std::int64_t orchid_mix_forward_workspace(const ConditionedConv* size, const Forward* a) {
  return cuda::orchid_mix_forward_workspace(*size, a->arrays, a->mix);
}
std::int64_t orchid_mix_backward_workspace(const ConditionedConv* size, const Backward* a) {
  return cuda::orchid_mix_backward_workspace(*size, a->arrays, a->mix);
}
int orchid_mix_forward(const ConditionedConv* size, const Forward* a, void* workspace) {
  return cuda::orchid_mix_forward(*size, a->arrays, a->mix, workspace, nullptr);
}
int orchid_mix_backward(const ConditionedConv* size, const Backward* a, void* workspace) {
  return cuda::orchid_mix_backward(*size, a->arrays, a->mix, workspace, nullptr);
}
}
