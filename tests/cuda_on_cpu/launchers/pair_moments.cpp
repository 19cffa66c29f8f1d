// The launchers of pair_moments, callable from Python: arguments by pointer, C names.
#include "../../../csrc/cuda/pair_moments.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

extern "C" {
std::int64_t pair_moments_workspace(const PairMessage* size, const PairMoments* a) {
  return cuda::pair_moments_workspace(*size, *a);
}
std::int64_t pair_moments_gradients_workspace(const PairMessage* size, const PairMomentsGradients* a) {
  return cuda::pair_moments_gradients_workspace(*size, *a);
}
int pair_moments(const PairMessage* size, const PairMoments* a, void* workspace) {
  return cuda::pair_moments(*size, *a, workspace, nullptr);
}
int pair_moments_gradients(const PairMessage* size, const PairMomentsGradients* a, void* workspace) {
  return cuda::pair_moments_gradients(*size, *a, workspace, nullptr);
}
}
