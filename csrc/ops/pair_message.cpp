// The binding of pair_message: schema, argument checks, allocation. Compiled once for each device.
#include "../pair_message.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "../cpu/pair_message.h"
#include "check.h"
#include "device_cpu.h"

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "pair_message";

// A Graph's pairs, by receiver and by sender.
struct GraphTensors {
  const Tensor &receiver_offsets, &senders, &receiver_rows, &sender_offsets, &receivers, &sender_rows;

  PairGroups by_receiver() const { return groups(receiver_offsets, senders, receiver_rows); }
  PairGroups by_sender() const { return groups(sender_offsets, receivers, sender_rows); }

 private:
  static PairGroups groups(const Tensor& offsets, const Tensor& neighbours, const Tensor& rows) {
    return {offsets.const_data_ptr(), neighbours.const_data_ptr(), rows.const_data_ptr(),
            offsets.scalar_type() == ScalarType::Long};
  }
};

// ---- checks ----------------------------------------------------------------------------------------

// What Graph makes; that its indices are in range, it has checked.
void check_graph(const GraphTensors& graph, const Tensor& x) {
  const std::int64_t pairs = graph.senders.dim() ? graph.senders.size(0) : 0;
  for (const Tensor* t : {&graph.receiver_offsets, &graph.senders, &graph.receiver_rows,
                          &graph.sender_offsets, &graph.receivers, &graph.sender_rows}) {
    if (!(t->device() == x.device()))
      refuse(kOp, ": graph must be on the device of x, ", text(x.device()), ", but is on ",
             text(t->device()));
    const bool offsets = t == &graph.receiver_offsets || t == &graph.sender_offsets;
    const ScalarType dtype = t->scalar_type();
    if (t->dim() != 1 || !t->is_contiguous() || (dtype != ScalarType::Int && dtype != ScalarType::Long) ||
        dtype != graph.senders.scalar_type() || (offsets ? t->size(0) < 1 : t->size(0) != pairs))
      refuse(kOp, ": graph must be as equiconv.Graph makes it, but holds a tensor of shape ",
             text(t->sizes()), " and type ", text(dtype));
  }
}

PairMessage check(const Tensor& x, const Tensor& basis, const Tensor& weight, const GraphTensors& graph) {
  check_floating(kOp, "x", x);
  if (x.dim() != 2 && x.dim() != 3)
    refuse(kOp, ": x must be (S, O, C) or (S, C), but has shape ", text(x.sizes()));
  check_graph(graph, x);
  check_kind(kOp, "basis", basis, x);
  if (basis.dim() != 2 && (basis.dim() != 3 || x.dim() == 2))
    refuse(kOp, ": basis must be ", x.dim() == 2 ? "(E, K) where x is (S, C)" : "(E, O, K) or (E, K)",
           ", but has shape ", text(basis.sizes()));
  check_kind(kOp, "weight", weight, x, true);
  check_rank(kOp, "weight", weight, 2, "(K, C)");

  const PairMessage size{graph.senders.size(0),
                         graph.sender_offsets.size(0) - 1,
                         graph.receiver_offsets.size(0) - 1,
                         x.dim() == 3 ? x.size(1) : 1,
                         weight.size(0),
                         weight.size(1),
                         basis.dim() == 2};
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

// ---- tensors as strided arrays -----------------------------------------------------------------------

// (row, orientation, entry), or (row, entry).
template <class Void>
Rows<Void> rows(Void* data, const Tensor& t) {
  return {data, dtype_of(t), t.stride(0), t.dim() == 3 ? t.stride(1) : 0, t.stride(t.dim() - 1)};
}
InputRows read(const Tensor& t) { return rows(t.const_data_ptr(), t); }
OutputRows write(const Tensor& t) { return rows(t.mutable_data_ptr(), t); }

std::vector<std::int64_t> shape_of_out(const Tensor& x, std::int64_t receivers) {
  std::vector<std::int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape[0] = receivers;
  return shape;
}

// ---- the ops -------------------------------------------------------------------------------------------

const cpu::PairMessageKernels& kernels() { return cpu::pair_message(); }

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

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
  m.impl("pair_message", TORCH_BOX(&pair_message));
  m.impl("pair_message_backward", TORCH_BOX(&pair_message_backward));
}

}  // namespace equiconv::ops
