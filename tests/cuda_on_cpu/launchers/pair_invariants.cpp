// The launchers of pair_invariants, callable from Python: arguments by pointer, C names.
#include "../../../csrc/cuda/pair_invariants.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

extern "C" {
bool pair_invariants_monomials(PairInvariants* size, std::int64_t degree) {
  return size->set_monomials(degree);
}
std::int64_t pair_invariants_workspace(const PairInvariants* size, const PairInvariantsForward* a) {
  return cuda::pair_invariants_workspace(*size, *a);
}
std::int64_t pair_invariants_backward_workspace(const PairInvariants* size, const PairInvariantsBackward* a) {
  return cuda::pair_invariants_backward_workspace(*size, *a);
}
int pair_invariants(const PairInvariants* size, const PairInvariantsForward* a, void* workspace) {
  return cuda::pair_invariants(*size, *a, workspace, nullptr);
}
int pair_invariants_backward(const PairInvariants* size, const PairInvariantsBackward* a, void* workspace) {
  return cuda::pair_invariants_backward(*size, *a, workspace, nullptr);
}
}
