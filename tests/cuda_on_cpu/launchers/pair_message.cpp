// The launchers of pair_message, callable from Python: arguments by pointer, C names.
#include "../../../csrc/cuda/pair_message.h"

namespace cuda = equiconv::cuda;
using namespace equiconv;

extern "C" {
std::int64_t pair_message_aggregate_workspace(const PairMessage* size, const PairAggregate* a) {
  return cuda::pair_message_aggregate_workspace(*size, *a);
}
std::int64_t pair_message_gradients_workspace(const PairMessage* size, const PairGradients* a) {
  return cuda::pair_message_gradients_workspace(*size, *a);
}
int pair_message_aggregate(const PairMessage* size, const PairAggregate* a, void* workspace) {
  return cuda::pair_message_aggregate(*size, *a, workspace, nullptr);
}
int pair_message_gradients(const PairMessage* size, const PairGradients* a, void* workspace) {
  return cuda::pair_message_gradients(*size, *a, workspace, nullptr);
}
}
