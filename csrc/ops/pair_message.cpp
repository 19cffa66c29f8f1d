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

// An undirected Graph's pairs of one direction, by receiver, and the opposite of every orientation.
struct OneWay {
  const Tensor &offsets, &senders, &rows, &antipode;

  PairGroups by_receiver() const { return GraphTensors::groups(offsets, senders, rows); }
  Antipodes antipodes() const { return {rows.size(0), antipode.const_data_ptr<std::int64_t>()}; }
};

void check_one_way(const OneWay& pairs, const GraphTensors& graph, const Tensor& x,
                   std::int64_t orientations) {
  for (const Tensor* t : {&pairs.offsets, &pairs.senders, &pairs.rows})
    if (!(t->device() == x.device()) || t->scalar_type() != graph.senders.scalar_type() || t->dim() != 1 ||
        !t->is_contiguous() ||
        t->size(0) != (t == &pairs.offsets ? graph.receiver_offsets.size(0) : pairs.rows.size(0)) ||
        pairs.rows.size(0) > graph.senders.size(0) || 2 * pairs.rows.size(0) < graph.senders.size(0) ||
        graph.receiver_offsets.size(0) != graph.sender_offsets.size(0))
      refuse(kOp, ": graph must be as Graph.undirected makes it, but holds a tensor of shape ",
             text(t->sizes()), " and type ", text(t->scalar_type()));

  const Tensor& antipode = pairs.antipode;
  if (!(antipode.device() == x.device()))
    refuse(kOp, ": antipode must be on the device of x, ", text(x.device()), ", but is on ",
           text(antipode.device()));
  if (antipode.scalar_type() != ScalarType::Long)
    refuse(kOp, ": antipode must be int64, but is ", text(antipode.scalar_type()));
  if (antipode.dim() != 1 || antipode.size(0) != orientations)
    refuse(kOp, ": antipode must have shape (", orientations, ",), one for each orientation of x, but has ",
           text(antipode.sizes()));
  if (!antipode.is_contiguous()) refuse(kOp, ": antipode must be contiguous, but is not");
#ifndef EQUICONV_CUDA
  const auto* of = antipode.const_data_ptr<std::int64_t>();
  for (std::int64_t o = 0; o < orientations; ++o)
    if (of[o] < 0 || of[o] >= orientations)
      refuse(kOp, ": antipode must be 0 to ", orientations - 1, ", but antipode[", o, "] is ", of[o]);
  for (std::int64_t o = 0; o < orientations; ++o)
    if (of[of[o]] != o)
      refuse(kOp, ": antipode must lead back to where it comes from, but leads from ", o, " to ", of[o],
             " to ", of[of[o]]);
#endif
}

PairMessage check(const Tensor& x, const Tensor& basis, const Tensor& weight, const GraphTensors& graph,
                  const OneWay* one_way) {
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

  PairMessage size{graph.senders.size(0),
                   graph.sender_offsets.size(0) - 1,
                   graph.receiver_offsets.size(0) - 1,
                   x.dim() == 3 ? x.size(1) : 1,
                   weight.size(0),
                   weight.size(1),
                   basis.dim() == 2,
                   x.scalar_type() == ScalarType::Float && tf32_is_allowed()};
  if (x.size(0) != size.senders)
    refuse(kOp, ": x must have a row for each sender of graph, ", size.senders, ", but has ", x.size(0));
  if (one_way) {
    check_one_way(*one_way, graph, x, size.orientations);
    size.antipodes = one_way->antipodes();
  }
  if (basis.size(0) != size.rows())
    refuse(kOp, ": basis must have a row for each ", one_way ? "undirected " : "", "pair of graph, ",
           size.rows(), ", but has ", basis.size(0));
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

Tensor messages(const Tensor& x, const Tensor& basis, const Tensor& weight, const GraphTensors& graph,
                const OneWay* one_way) {
  const PairMessage size = check(x, basis, weight, graph, one_way);
  const auto shape = shape_of_out(x, size.receivers);
  if (is_empty(size)) return torch::stable::new_zeros(x, shape);
  const Tensor out = torch::stable::new_empty(x, shape);
  launch(x, kernels().aggregate_scratch, kernels().aggregate, size,
         PairAggregate{size.receivers, graph.by_receiver(), read(x), read(basis), read(weight), write(out)});
  return out;
}

// Each gradient that is needed, like its argument; in the place of any other a tensor of shape (0,).
using Gradients = std::tuple<Tensor, Tensor, Tensor>;
Gradients gradients(const Tensor& grad_out, const Tensor& x, const Tensor& basis, const Tensor& weight,
                    const GraphTensors& graph, const OneWay* one_way, bool need_x, bool need_basis,
                    bool need_weight) {
  const PairMessage size = check(x, basis, weight, graph, one_way);
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
    const PairGroups pairs = one_way ? one_way->by_receiver() : graph.by_receiver();
    launch(x, kernels().gradients_scratch, kernels().gradients, size,
           PairGradients{pairs, read(grad_out), read(x), read(basis), read(weight),
                         need_basis ? write(grad_basis) : none, need_weight ? write(grad_weight) : none});
  }
  return {grad_x, grad_basis, grad_weight};
}

Tensor pair_message(const Tensor& x, const Tensor& basis, const Tensor& weight,
                    const Tensor& receiver_offsets, const Tensor& senders, const Tensor& receiver_rows,
                    const Tensor& sender_offsets, const Tensor& receivers, const Tensor& sender_rows) {
  return messages(x, basis, weight,
                  {receiver_offsets, senders, receiver_rows, sender_offsets, receivers, sender_rows},
                  nullptr);
}

Gradients pair_message_backward(const Tensor& grad_out, const Tensor& x, const Tensor& basis,
                                const Tensor& weight, const Tensor& receiver_offsets, const Tensor& senders,
                                const Tensor& receiver_rows, const Tensor& sender_offsets,
                                const Tensor& receivers, const Tensor& sender_rows, bool need_x,
                                bool need_basis, bool need_weight) {
  return gradients(grad_out, x, basis, weight,
                   {receiver_offsets, senders, receiver_rows, sender_offsets, receivers, sender_rows},
                   nullptr, need_x, need_basis, need_weight);
}

Tensor pair_message_antipodal(const Tensor& x, const Tensor& basis, const Tensor& weight,
                              const Tensor& receiver_offsets, const Tensor& senders,
                              const Tensor& receiver_rows, const Tensor& sender_offsets,
                              const Tensor& receivers, const Tensor& sender_rows, const Tensor& row_offsets,
                              const Tensor& row_senders, const Tensor& rows, const Tensor& antipode) {
  const OneWay one_way{row_offsets, row_senders, rows, antipode};
  return messages(x, basis, weight,
                  {receiver_offsets, senders, receiver_rows, sender_offsets, receivers, sender_rows},
                  &one_way);
}

Gradients pair_message_antipodal_backward(const Tensor& grad_out, const Tensor& x, const Tensor& basis,
                                          const Tensor& weight, const Tensor& receiver_offsets,
                                          const Tensor& senders, const Tensor& receiver_rows,
                                          const Tensor& sender_offsets, const Tensor& receivers,
                                          const Tensor& sender_rows, const Tensor& row_offsets,
                                          const Tensor& row_senders, const Tensor& rows,
                                          const Tensor& antipode, bool need_x, bool need_basis,
                                          bool need_weight) {
  const OneWay one_way{row_offsets, row_senders, rows, antipode};
  return gradients(grad_out, x, basis, weight,
                   {receiver_offsets, senders, receiver_rows, sender_offsets, receivers, sender_rows},
                   &one_way, need_x, need_basis, need_weight);
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
  m.def(
      "pair_message_antipodal(Tensor x, Tensor basis, Tensor weight, Tensor receiver_offsets, "
      "Tensor senders, Tensor receiver_rows, Tensor sender_offsets, Tensor receivers, Tensor sender_rows, "
      "Tensor row_offsets, Tensor row_senders, Tensor rows, Tensor antipode) -> Tensor");
  m.def(
      "pair_message_antipodal_backward(Tensor grad_out, Tensor x, Tensor basis, Tensor weight, "
      "Tensor receiver_offsets, Tensor senders, Tensor receiver_rows, Tensor sender_offsets, "
      "Tensor receivers, Tensor sender_rows, Tensor row_offsets, Tensor row_senders, Tensor rows, "
      "Tensor antipode, bool need_x, bool need_basis, bool need_weight) -> (Tensor, Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
  m.impl("pair_message", TORCH_BOX(&pair_message));
  m.impl("pair_message_backward", TORCH_BOX(&pair_message_backward));
  m.impl("pair_message_antipodal", TORCH_BOX(&pair_message_antipodal));
  m.impl("pair_message_antipodal_backward", TORCH_BOX(&pair_message_antipodal_backward));
}

}  // namespace equiconv::ops
