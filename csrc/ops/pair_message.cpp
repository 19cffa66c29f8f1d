// The binding of pair_message: schema, argument checks, allocation. Compiled once for each device.
#include "../pair_message.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "check.h"

#ifdef EQUICONV_CUDA
#include "../cuda/pair_message.h"
#include "device_cuda.h"
#else
#include "../cpu/pair_message.h"
#include "device_cpu.h"
#endif
#include "graph.h"

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "pair_message";

// ---- checks ----------------------------------------------------------------------------------------

#ifdef EQUICONV_CUDA
// Whether torch may round the factors of a float32 product to TF32. Its stable ABI has no word for this
// setting, so python/equiconv/ops/tf32.py is asked.
bool tf32_is_allowed() {
  StableIValue answer[1];
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("equiconv::tf32_is_allowed", "", answer, TORCH_ABI_VERSION));
  return torch::stable::detail::to<bool>(answer[0]);
}
#else
constexpr bool tf32_is_allowed() { return false; }
#endif

PairMessage check(const Tensor& x, const Tensor& basis, const Tensor& weight, const GraphTensors& graph) {
  check_floating(kOp, "x", x);
  if (x.dim() != 2 && x.dim() != 3)
    refuse(kOp, ": x must be (S, O, C) or (S, C), but has shape ", text(x.sizes()));
  check_graph(kOp, graph, x);
  check_kind(kOp, "basis", basis, x);
  if (basis.dim() != 2 && (basis.dim() != 3 || x.dim() == 2))
    refuse(kOp, ": basis must be ", x.dim() == 2 ? "(E, K) where x is (S, C)" : "(E, O, K) or (E, K)",
           ", but has shape ", text(basis.sizes()));
  check_kind(kOp, "weight", weight, x, true);
  check_rank(kOp, "weight", weight, 2, "(K, C) or (K, C, D)");

  const PairMessage size{graph.senders.size(0),
                         graph.sender_offsets.size(0) - 1,
                         graph.receiver_offsets.size(0) - 1,
                         x.dim() == 3 ? x.size(1) : 1,
                         weight.size(0),
                         weight.size(1),
                         basis.dim() == 2,
                         x.scalar_type() == ScalarType::Float && tf32_is_allowed()};
  if (x.size(0) != size.senders)
    refuse(kOp, ": x must have a row for each sender of graph, ", size.senders, ", but has ", x.size(0));
  if (basis.size(0) != size.pairs)
    refuse(kOp, ": basis must have a row for each pair of graph, ", size.pairs, ", but has ", basis.size(0));
  if (!size.shared && basis.size(1) != size.orientations)
    refuse(kOp, ": basis must have the orientations of x, ", size.orientations, ", but has ", basis.size(1));
  if (basis.size(basis.dim() - 1) != size.functions)
    refuse(kOp, ": weight must have the functions of basis, ", basis.size(basis.dim() - 1), ", but has ",
           size.functions);
  if (x.size(x.dim() - 1) != size.channels)
    refuse(kOp, ": weight must have the channels of x, ", x.size(x.dim() - 1), ", but has ", size.channels);
  return size;
}

std::vector<std::int64_t> shape_of_out(const Tensor& x, std::int64_t receivers) {
  std::vector<std::int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape[0] = receivers;
  return shape;
}

// ---- the ops -------------------------------------------------------------------------------------------

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::pair_message_aggregate_workspace) aggregate_scratch =
      cuda::pair_message_aggregate_workspace;
  decltype(&cuda::pair_message_gradients_workspace) gradients_scratch =
      cuda::pair_message_gradients_workspace;
  decltype(&cuda::pair_message_aggregate) aggregate = cuda::pair_message_aggregate;
  decltype(&cuda::pair_message_gradients) gradients = cuda::pair_message_gradients;
};
Kernels kernels() { return {}; }
#else
const cpu::PairMessageKernels& kernels() { return cpu::pair_message(); }
#endif

// Nothing is summed: what is not empty itself is zero.
bool is_empty(const PairMessage& size) {
  return size.pairs == 0 || size.orientations == 0 || size.functions == 0 || size.channels == 0;
}

Tensor pair_message(const Tensor& x, const Tensor& basis, const Tensor& weight,
                    const Tensor& receiver_offsets, const Tensor& senders, const Tensor& receiver_rows,
                    const Tensor& sender_offsets, const Tensor& receivers, const Tensor& sender_rows) {
  const GraphTensors graph{receiver_offsets, senders, receiver_rows, sender_offsets, receivers, sender_rows};
  const PairMessage size = check(x, basis, weight, graph);
  const auto shape = shape_of_out(x, size.receivers);
  if (is_empty(size)) return torch::stable::new_zeros(x, shape);
  const Tensor out = torch::stable::new_empty(x, shape);
  launch(x, kernels().aggregate_scratch, kernels().aggregate, size,
         PairAggregate{size.receivers, graph.by_receiver(), read(x), read(basis), read(weight), write(out)});
  return out;
}

// Each gradient that is needed, like its argument; in the place of any other a tensor of shape (0,).
std::tuple<Tensor, Tensor, Tensor> pair_message_backward(const Tensor& grad_out, const Tensor& x,
                                                         const Tensor& basis, const Tensor& weight,
                                                         const Tensor& receiver_offsets,
                                                         const Tensor& senders, const Tensor& receiver_rows,
                                                         const Tensor& sender_offsets,
                                                         const Tensor& receivers, const Tensor& sender_rows,
                                                         bool need_x, bool need_basis, bool need_weight) {
  const GraphTensors graph{receiver_offsets, senders, receiver_rows, sender_offsets, receivers, sender_rows};
  const PairMessage size = check(x, basis, weight, graph);
  const auto shape = shape_of_out(x, size.receivers);
  check_kind(kOp, "grad_out", grad_out, x);
  if (!grad_out.sizes().equals(shape))
    refuse(kOp, ": grad_out must have the shape of the result, ", text(shape), ", but has ",
           text(grad_out.sizes()));

  const bool empty = is_empty(size);
  const auto gradient = [&](bool need, const Tensor& argument) {
    const std::int64_t none = 0;
    if (!need) return torch::stable::new_empty(x, {&none, 1});
    return empty ? torch::stable::new_zeros(argument, argument.sizes())
                 : torch::stable::new_empty(argument, argument.sizes());
  };
  const Tensor grad_x = gradient(need_x, x), grad_basis = gradient(need_basis, basis),
               grad_weight = gradient(need_weight, weight);
  if (empty) return {grad_x, grad_basis, grad_weight};

  if (need_x)  // messages the other way round
    launch(x, kernels().aggregate_scratch, kernels().aggregate, size,
           PairAggregate{size.senders, graph.by_sender(), read(grad_out), read(basis), read(weight),
                         write(grad_x)});
  if (need_basis || need_weight) {
    const OutputRows none;
    launch(x, kernels().gradients_scratch, kernels().gradients, size,
           PairGradients{graph.by_receiver(), read(grad_out), read(x), read(basis), read(weight),
                         need_basis ? write(grad_basis) : none, need_weight ? write(grad_weight) : none});
  }
  return {grad_x, grad_basis, grad_weight};
}

}  // namespace

#ifndef EQUICONV_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
  m.def(
      "pair_message(Tensor x, Tensor basis, Tensor weight, Tensor receiver_offsets, Tensor senders, "
      "Tensor receiver_rows, Tensor sender_offsets, Tensor receivers, Tensor sender_rows) -> Tensor");
  m.def(
      "pair_message_backward(Tensor grad_out, Tensor x, Tensor basis, Tensor weight, "
      "Tensor receiver_offsets, Tensor senders, Tensor receiver_rows, Tensor sender_offsets, "
      "Tensor receivers, Tensor sender_rows, bool need_x, bool need_basis, bool need_weight) "
      "-> (Tensor, Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
  m.impl("pair_message", TORCH_BOX(&pair_message));
  m.impl("pair_message_backward", TORCH_BOX(&pair_message_backward));
}

}  // namespace equiconv::ops
