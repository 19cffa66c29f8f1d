// The binding of pair_moments: schema, argument checks, allocation. Compiled once for each device.
#include "../pair_moments.h"

#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "check.h"

#ifdef EQUICONV_CUDA
#include "../cuda/pair_moments.h"
#include "device_cuda.h"
#else
#include "../cpu/pair_moments.h"
#include "device_cpu.h"
#endif
#include "graph.h"

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "pair_moments";

PairMessage check(const Tensor& x, const Tensor& basis, const GraphTensors& graph) {
  check_floating(kOp, "x", x);
  if (x.dim() != 2 && x.dim() != 3)
    refuse(kOp, ": x must be (S, O, C) or (S, C), but has shape ", text(x.sizes()));
  check_graph(kOp, graph, x);
  check_kind(kOp, "basis", basis, x);
  if (basis.dim() != 2 && (basis.dim() != 3 || x.dim() == 2))
    refuse(kOp, ": basis must be ", x.dim() == 2 ? "(E, K) where x is (S, C)" : "(E, O, K) or (E, K)",
           ", but has shape ", text(basis.sizes()));

  const PairMessage size{graph.senders.size(0),
                         graph.sender_offsets.size(0) - 1,
                         graph.receiver_offsets.size(0) - 1,
                         x.dim() == 3 ? x.size(1) : 1,
                         basis.size(basis.dim() - 1),
                         x.size(x.dim() - 1),
                         basis.dim() == 2};
  if (x.size(0) != size.senders)
    refuse(kOp, ": x must have a row for each sender of graph, ", size.senders, ", but has ", x.size(0));
  if (basis.size(0) != size.pairs)
    refuse(kOp, ": basis must have a row for each pair of graph, ", size.pairs, ", but has ", basis.size(0));
  if (!size.shared && basis.size(1) != size.orientations)
    refuse(kOp, ": basis must have the orientations of x, ", size.orientations, ", but has ", basis.size(1));
  return size;
}

// (receiver, orientation, function, channel), or (receiver, function, channel).
template <class Void>
Moments<Void> matrices(Void* data, const Tensor& t) {
  const std::int64_t last = t.dim() - 1;
  return {data, dtype_of(t), t.stride(0), t.dim() == 4 ? t.stride(1) : 0, t.stride(last - 1), t.stride(last)};
}

std::vector<std::int64_t> shape_of_out(const Tensor& x, const PairMessage& size) {
  if (x.dim() == 2) return {size.receivers, size.functions, size.channels};
  return {size.receivers, size.orientations, size.functions, size.channels};
}

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::pair_moments_workspace) moments_scratch = cuda::pair_moments_workspace;
  decltype(&cuda::pair_moments_gradients_workspace) gradients_scratch =
      cuda::pair_moments_gradients_workspace;
  decltype(&cuda::pair_moments) moments = cuda::pair_moments;
  decltype(&cuda::pair_moments_gradients) gradients = cuda::pair_moments_gradients;
};
Kernels kernels() { return {}; }
#else
const cpu::PairMomentsKernels& kernels() { return cpu::pair_moments(); }
#endif

// Nothing is summed: what is not empty itself is zero.
bool is_empty(const PairMessage& size) {
  return size.pairs == 0 || size.orientations == 0 || size.functions == 0 || size.channels == 0;
}

Tensor pair_moments(const Tensor& x, const Tensor& basis, const Tensor& receiver_offsets,
                    const Tensor& senders, const Tensor& receiver_rows, const Tensor& sender_offsets,
                    const Tensor& receivers, const Tensor& sender_rows) {
  const GraphTensors graph{receiver_offsets, senders, receiver_rows, sender_offsets, receivers, sender_rows};
  const PairMessage size = check(x, basis, graph);
  const auto shape = shape_of_out(x, size);
  if (is_empty(size)) return torch::stable::new_zeros(x, shape);
  const Tensor out = torch::stable::new_empty(x, shape);
  launch(x, kernels().moments_scratch, kernels().moments, size,
         PairMoments{graph.by_receiver(), read(x), read(basis), matrices(out.mutable_data_ptr(), out)});
  return out;
}

// Each gradient that is needed, like its argument; in the place of the other a tensor of shape (0,).
std::tuple<Tensor, Tensor> pair_moments_backward(const Tensor& grad_out, const Tensor& x, const Tensor& basis,
                                                 const Tensor& receiver_offsets, const Tensor& senders,
                                                 const Tensor& receiver_rows, const Tensor& sender_offsets,
                                                 const Tensor& receivers, const Tensor& sender_rows,
                                                 bool need_x, bool need_basis) {
  const GraphTensors graph{receiver_offsets, senders, receiver_rows, sender_offsets, receivers, sender_rows};
  const PairMessage size = check(x, basis, graph);
  const auto shape = shape_of_out(x, size);
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
  const Tensor grad_x = gradient(need_x, x), grad_basis = gradient(need_basis, basis);
  if (empty || !(need_x || need_basis)) return {grad_x, grad_basis};

  const OutputRows none;
  launch(x, kernels().gradients_scratch, kernels().gradients, size,
         PairMomentsGradients{graph.by_receiver(), graph.by_sender(),
                              matrices(grad_out.const_data_ptr(), grad_out), read(x), read(basis),
                              need_x ? write(grad_x) : none, need_basis ? write(grad_basis) : none});
  return {grad_x, grad_basis};
}

}  // namespace

#ifndef EQUICONV_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
  m.def(
      "pair_moments(Tensor x, Tensor basis, Tensor receiver_offsets, Tensor senders, Tensor receiver_rows, "
      "Tensor sender_offsets, Tensor receivers, Tensor sender_rows) -> Tensor");
  m.def(
      "pair_moments_backward(Tensor grad_out, Tensor x, Tensor basis, Tensor receiver_offsets, "
      "Tensor senders, Tensor receiver_rows, Tensor sender_offsets, Tensor receivers, Tensor sender_rows, "
      "bool need_x, bool need_basis) -> (Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
  m.impl("pair_moments", TORCH_BOX(&pair_moments));
  m.impl("pair_moments_backward", TORCH_BOX(&pair_moments_backward));
}

}  // namespace equiconv::ops
