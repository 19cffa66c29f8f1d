// The binding of pair_invariants: schema, argument checks, allocation. Compiled once for each device.
#include "../pair_invariants.h"

#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "signal.h"

#ifdef EQUICONV_CUDA
#include "../cuda/pair_invariants.h"
#include "device_cuda.h"
#else
#include "../cpu/pair_invariants.h"
#include "device_cpu.h"
#endif
#include "graph.h"

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "pair_invariants";

// The tensors of one call, or what they change by.
struct Given {
  const Tensor& rel;
  const MaybeTensor &grid, &receiver, &sender, &extra;

  const MaybeTensor& vectors() const { return grid ? grid : receiver; }

  PairPoints<const void> points() const {
    PairPoints<const void> p{read(rel), {}, {}, {}};
    if (receiver) p.receiver = read(*receiver), p.sender = read(*sender);
    if (grid) p.receiver = {grid->const_data_ptr(), dtype_of(*grid), 0, grid->stride(0), grid->stride(1)};
    if (extra) p.extra = read(*extra);
    return p;
  }
};

// ---- checks ----------------------------------------------------------------------------------------

void check_like(const char* name, const Tensor& tensor, const Tensor& rel) {
  if (tensor.scalar_type() != rel.scalar_type())
    refuse(kOp, ": ", name, " must have the dtype of rel, ", text(rel.scalar_type()), ", but has ",
           text(tensor.scalar_type()));
  if (!(tensor.device() == rel.device()))
    refuse(kOp, ": ", name, " must be on the device of rel, ", text(rel.device()), ", but is on ",
           text(tensor.device()));
}

void check_sizes(const char* name, const Tensor& tensor, const std::vector<std::int64_t>& want) {
  if (!tensor.sizes().equals(want))
    refuse(kOp, ": ", name, " must have shape ", text(want), ", but has ", text(tensor.sizes()));
}

PairInvariants check(const Given& given, bool complete, bool smooth, std::int64_t degree) {
  const Tensor& rel = given.rel;
  if (degree < 1) refuse(kOp, ": degree must be at least 1, but is ", degree);
  check_floating(kOp, "rel", rel);
  check_rank(kOp, "rel", rel, 2, "(E, n)");
  PairInvariants size;
  size.pairs = rel.size(0), size.dimensions = std::int32_t(std::min<std::int64_t>(rel.size(1), 4));
  const int n = size.dimensions;
  if (n < 1 || n > 3 || (given.vectors() && n == 1))
    refuse(kOp, ": rel must be ",
           given.vectors() ? "(E, 2) or (E, 3) beside orientations" : "(E, 1) to (E, 3)", ", but has shape ",
           text(rel.sizes()));
  if (given.receiver.has_value() != given.sender.has_value())
    refuse(kOp, ": receiver and sender must be given together, but ", given.receiver ? "sender" : "receiver",
           " is absent");
  if (given.grid && given.receiver)
    refuse(kOp, ": grid must be absent where receiver and sender are given, but is there");
  if (given.grid) {
    check_like("grid", *given.grid, rel);
    if (given.grid->dim() != 2 || given.grid->size(1) != n)
      refuse(kOp, ": grid must be (O, ", n, "), but has shape ", text(given.grid->sizes()));
    size.orientations = given.grid->size(0);
  }
  if (given.receiver) {
    check_like("receiver", *given.receiver, rel), check_like("sender", *given.sender, rel);
    check_sizes("receiver", *given.receiver, {size.pairs, n});
    check_sizes("sender", *given.sender, {size.pairs, n});
  }
  size.senders = given.sender.has_value(), size.complete = complete && size.senders, size.smooth = smooth;
  size.space = !given.vectors() ? Space::distance : n == 2 ? Space::planar : Space::spatial;
  size.geometric = 1 + (size.space != Space::distance) + size.senders + size.complete;
  std::int64_t attributes = size.geometric;
  if (given.extra) {
    check_like("extra", *given.extra, rel);
    if (given.extra->dim() != 2 || given.extra->size(0) != size.pairs)
      refuse(kOp, ": extra must have shape (", size.pairs, ", A), but has ", text(given.extra->sizes()));
    attributes += given.extra->size(1);
  }
  size.attributes = std::int32_t(std::min<std::int64_t>(attributes, kPairFeatures + 1));
  if (!size.set_monomials(degree))
    refuse(kOp, ": degree must be such that there are at most ", kPairFeatures, " features, but is ", degree,
           " where there are ", attributes, " attributes");
  return size;
}

std::vector<std::int64_t> shape_of_out(const Given& given, const PairInvariants& size) {
  if (given.grid) return {size.pairs, size.orientations, size.features};
  return {size.pairs, size.features};
}

void check_grad_out(const Tensor& grad_out, const Given& given, const PairInvariants& size) {
  check_like("grad_out", grad_out, given.rel);
  const auto shape = shape_of_out(given, size);
  if (!grad_out.sizes().equals(shape))
    refuse(kOp, ": grad_out must have the shape of the result, ", text(shape), ", but has ",
           text(grad_out.sizes()));
}

// ---- the ops -------------------------------------------------------------------------------------------

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::pair_invariants_workspace) forward_scratch = cuda::pair_invariants_workspace;
  decltype(&cuda::pair_invariants_backward_workspace) backward_scratch =
      cuda::pair_invariants_backward_workspace;
  decltype(&cuda::pair_invariants) forward = cuda::pair_invariants;
  decltype(&cuda::pair_invariants_backward) backward = cuda::pair_invariants_backward;
};
Kernels kernels() { return {}; }
#else
const cpu::PairInvariantsKernels& kernels() { return cpu::pair_invariants(); }
#endif

bool is_empty(const PairInvariants& size) { return size.pairs == 0 || size.orientations == 0; }

// Gradients of all arguments but the grid, or what they change by.
struct Grads {
  Tensor rel, receiver, sender, extra;

  Grads(const Given& given, const PairInvariants& size, bool need_rel, bool need_receiver, bool need_sender,
        bool need_extra)
      : rel(gradient_of(given.rel, need_rel, is_empty(size), given.rel)),
        receiver(gradient_of(given.receiver, need_receiver &= given.receiver.has_value(), is_empty(size),
                             given.rel)),
        sender(gradient_of(given.sender, need_sender &= given.sender.has_value(), is_empty(size), given.rel)),
        extra(gradient_of(given.extra, need_extra &= given.extra.has_value(), is_empty(size), given.rel)) {
    const auto place = [](OutputRows& rows, bool need, const Tensor& grad) {
      if (need && grad.numel()) rows = write(grad);
    };
    place(points.rel, need_rel, rel), place(points.receiver, need_receiver, receiver);
    place(points.sender, need_sender, sender), place(points.extra, need_extra, extra);
  }

  bool any() const { return bool(points); }

  PairPoints<void> points;
};

Tensor pair_invariants(const Tensor& rel, const MaybeTensor& grid, const MaybeTensor& receiver,
                       const MaybeTensor& sender, const MaybeTensor& extra, bool complete, bool smooth,
                       std::int64_t degree) {
  const Given given{rel, grid, receiver, sender, extra};
  const PairInvariants size = check(given, complete, smooth, degree);
  const Tensor out = torch::stable::new_empty(rel, shape_of_out(given, size));
  if (is_empty(size)) return out;
  launch(rel, kernels().forward_scratch, kernels().forward, size,
         PairInvariantsForward{given.points(), write(out)});
  return out;
}

// Each gradient that is needed, like its argument; in the place of any other a tensor of shape (0,).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> pair_invariants_backward(
    const Tensor& grad_out, const Tensor& rel, const MaybeTensor& grid, const MaybeTensor& receiver,
    const MaybeTensor& sender, const MaybeTensor& extra, bool complete, bool smooth, std::int64_t degree,
    bool need_rel, bool need_grid, bool need_receiver, bool need_sender, bool need_extra) {
  const Given given{rel, grid, receiver, sender, extra};
  const PairInvariants size = check(given, complete, smooth, degree);
  check_grad_out(grad_out, given, size);
  if (need_grid) refuse(kOp, ": need_grid must be False, as there is no kernel for it, but is True");
  const Grads grads(given, size, need_rel, need_receiver, need_sender, need_extra);
  if (!is_empty(size) && grads.any())
    launch(rel, kernels().backward_scratch, kernels().backward, size,
           PairInvariantsBackward{read(grad_out), given.points(), {}, {}, grads.points});
  return {grads.rel, gradient_of(grid, false, true, rel), grads.receiver, grads.sender, grads.extra};
}

// What the result and the gradients change by where the arguments do so, grad_out staying as it is; absent
// changes are zero. Without grad_out, the result alone.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> pair_invariants_tangent(
    const MaybeTensor& grad_out, const Tensor& rel, const MaybeTensor& grid, const MaybeTensor& receiver,
    const MaybeTensor& sender, const MaybeTensor& extra, const MaybeTensor& change_rel,
    const MaybeTensor& change_receiver, const MaybeTensor& change_sender, const MaybeTensor& change_extra,
    bool complete, bool smooth, std::int64_t degree, bool need_out, bool need_rel, bool need_receiver,
    bool need_sender, bool need_extra) {
  const Given given{rel, grid, receiver, sender, extra};
  const PairInvariants size = check(given, complete, smooth, degree);
  if (grad_out) check_grad_out(*grad_out, given, size);
  else if (need_rel || need_receiver || need_sender || need_extra)
    refuse(kOp, ": grad_out must be given where gradients are needed, but is absent");
  PairPoints<const void> change;
  const auto set = [&](InputRows& rows, const char* name, const MaybeTensor& tensor,
                       const MaybeTensor& like) {
    if (!tensor) return;
    if (!like) refuse(kOp, ": ", name, " must be absent where its argument is, but is there");
    check_like(name, *tensor, rel);
    check_sizes(name, *tensor, {like->sizes().begin(), like->sizes().end()});
    rows = read(*tensor);
  };
  set(change.rel, "change_rel", change_rel, rel);
  set(change.receiver, "change_receiver", change_receiver, receiver);
  set(change.sender, "change_sender", change_sender, sender);
  set(change.extra, "change_extra", change_extra, extra);
  if (!change && !is_empty(size))
    refuse(kOp, ": change_rel must be given where no argument else changes, but is absent");

  const Grads grads(given, size, need_rel, need_receiver, need_sender, need_extra);
  const auto shape = shape_of_out(given, size);
  const std::int64_t nothing = 0;
  const Tensor out =
      need_out ? torch::stable::new_empty(rel, shape) : torch::stable::new_empty(rel, {&nothing, 1});
  if (!is_empty(size) && (need_out || grads.any()))
    launch(rel, kernels().backward_scratch, kernels().backward, size,
           PairInvariantsBackward{grads.any() ? read(*grad_out) : InputRows{}, given.points(), change,
                                  need_out ? write(out) : OutputRows{}, grads.points});
  return {out, grads.rel, grads.receiver, grads.sender, grads.extra};
}

}  // namespace

#ifndef EQUICONV_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
  m.def(
      "pair_invariants(Tensor rel, Tensor? grid, Tensor? receiver, Tensor? sender, Tensor? extra, "
      "bool complete, bool smooth, int degree) -> Tensor");
  m.def(
      "pair_invariants_backward(Tensor grad_out, Tensor rel, Tensor? grid, Tensor? receiver, "
      "Tensor? sender, Tensor? extra, bool complete, bool smooth, int degree, bool need_rel, "
      "bool need_grid, bool need_receiver, bool need_sender, bool need_extra) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "pair_invariants_tangent(Tensor? grad_out, Tensor rel, Tensor? grid, Tensor? receiver, "
      "Tensor? sender, Tensor? extra, Tensor? change_rel, Tensor? change_receiver, Tensor? change_sender, "
      "Tensor? change_extra, bool complete, bool smooth, int degree, bool need_out, bool need_rel, "
      "bool need_receiver, bool need_sender, bool need_extra) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
  m.impl("pair_invariants", TORCH_BOX(&pair_invariants));
  m.impl("pair_invariants_backward", TORCH_BOX(&pair_invariants_backward));
  m.impl("pair_invariants_tangent", TORCH_BOX(&pair_invariants_tangent));
}

}  // namespace equiconv::ops
