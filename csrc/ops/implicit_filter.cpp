// The binding of implicit_filter: schema, argument checks, allocation. Compiled once for each device.
#include "../implicit_filter.h"

#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "signal.h"

#ifdef EQUICONV_CUDA
#include "../cuda/implicit_filter.h"
#include "device_cuda.h"
#else
#include "../cpu/implicit_filter.h"
#include "device_cpu.h"
#endif

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "implicit_filter";

// The tensors of one call.
struct Given {
  const Tensor &features, &first_weight, &first_bias, &inner_weight, &inner_bias, &output_weight, &rates;
};

// ---- checks ----------------------------------------------------------------------------------------

void check_like(const char* name, const Tensor& tensor, const Tensor& features,
                const std::vector<std::int64_t>& want) {
  if (!tensor.sizes().equals(want))
    refuse(kOp, ": ", name, " must have shape ", text(want), ", but has ", text(tensor.sizes()));
  if (tensor.scalar_type() != features.scalar_type())
    refuse(kOp, ": ", name, " must have the dtype of features, ", text(features.scalar_type()), ", but has ",
           text(tensor.scalar_type()));
  if (!(tensor.device() == features.device()))
    refuse(kOp, ": ", name, " must be on the device of features, ", text(features.device()), ", but is on ",
           text(tensor.device()));
}

ImplicitFilter check(const Given& given) {
  const Tensor& features = given.features;
  check_floating(kOp, "features", features);
  check_rank(kOp, "features", features, 2, "(L, E)");
  check_rank(kOp, "first_weight", given.first_weight, 2, "(H, E)");
  check_rank(kOp, "inner_weight", given.inner_weight, 3, "(M, H, H)");
  check_rank(kOp, "output_weight", given.output_weight, 2, "(D, H)");
  const ImplicitFilter size{features.size(0), features.size(1), given.first_weight.size(0),
                            given.inner_weight.size(0), given.output_weight.size(0)};
  if (size.features < 1)
    refuse(kOp, ": features must be (L, E) with E at least 1, but has shape ", text(features.sizes()));
  check_like("first_weight", given.first_weight, features, {size.order, size.features});
  check_like("first_bias", given.first_bias, features, {size.order});
  check_like("inner_weight", given.inner_weight, features, {size.inner, size.order, size.order});
  check_like("inner_bias", given.inner_bias, features, {size.inner, size.order});
  check_like("output_weight", given.output_weight, features, {size.channels, size.order});
  check_like("rates", given.rates, features, {size.channels});
  return size;
}

// ---- tensors as strided arrays ---------------------------------------------------------------------

Input read(const Tensor& t, int batch, int channel, int position) {
  return array(t.const_data_ptr(), t, batch, channel, position);
}
Output write(const Tensor& t, int batch, int channel, int position) {
  return array(t.mutable_data_ptr(), t, batch, channel, position);
}

// ---- the ops ---------------------------------------------------------------------------------------

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::implicit_filter_workspace) forward_scratch = cuda::implicit_filter_workspace;
  decltype(&cuda::implicit_filter_backward_workspace) backward_scratch =
      cuda::implicit_filter_backward_workspace;
  decltype(&cuda::implicit_filter) forward = cuda::implicit_filter;
  decltype(&cuda::implicit_filter_backward) backward = cuda::implicit_filter_backward;
};
Kernels kernels() { return {}; }
#else
const cpu::ImplicitFilterKernels& kernels() { return cpu::implicit_filter(); }
#endif

// Nothing is summed: what is not empty itself is zero.
bool is_empty(const ImplicitFilter& size) {
  return size.length == 0 || size.order == 0 || size.channels == 0;
}

Tensor implicit_filter(const Tensor& features, const Tensor& first_weight, const Tensor& first_bias,
                       const Tensor& inner_weight, const Tensor& inner_bias, const Tensor& output_weight,
                       const Tensor& rates) {
  const ImplicitFilter size =
      check({features, first_weight, first_bias, inner_weight, inner_bias, output_weight, rates});
  const std::int64_t shape[] = {size.channels, size.length};
  if (is_empty(size)) return torch::stable::new_zeros(features, {shape, 2});
  const Tensor filter = torch::stable::new_empty(features, {shape, 2});
  launch(features, kernels().forward_scratch, kernels().forward, size,
         ImplicitFilterForward{read(features, kNone, 1, 0), read(first_weight, kNone, 0, 1),
                               read(first_bias, kNone, 0, kNone), read(inner_weight, 0, 1, 2),
                               read(inner_bias, 0, 1, kNone), read(output_weight, kNone, 0, 1),
                               read(rates, kNone, 0, kNone), write(filter, kNone, 0, 1)});
  return filter;
}

// The gradients of weights and biases, all of them made if one is needed; in the place of others, of features
// and rates always, a tensor of shape (0,).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> implicit_filter_backward(
    const Tensor& grad_out, const Tensor& features, const Tensor& first_weight, const Tensor& first_bias,
    const Tensor& inner_weight, const Tensor& inner_bias, const Tensor& output_weight, const Tensor& rates,
    bool need_features, bool need_first_weight, bool need_first_bias, bool need_inner_weight,
    bool need_inner_bias, bool need_output_weight, bool need_rates) {
  const ImplicitFilter size =
      check({features, first_weight, first_bias, inner_weight, inner_bias, output_weight, rates});
  check_like("grad_out", grad_out, features, {size.channels, size.length});
  if (need_features || need_rates)
    refuse(kOp, ": need_", need_features ? "features" : "rates", " must be False, but is True");
  const bool empty = is_empty(size);
  const auto none = [&] { return gradient_of(features, false, empty, features); };
  const auto gradient = [&](const Tensor& t) { return gradient_of(t, true, empty, features); };
  const Tensor grad_first_weight = gradient(first_weight), grad_first_bias = gradient(first_bias),
               grad_inner_weight = gradient(inner_weight), grad_inner_bias = gradient(inner_bias),
               grad_output_weight = gradient(output_weight);
  if (!empty &&
      (need_first_weight || need_first_bias || need_inner_weight || need_inner_bias || need_output_weight))
    launch(features, kernels().backward_scratch, kernels().backward, size,
           ImplicitFilterBackward{
               read(grad_out, kNone, 0, 1), read(features, kNone, 1, 0), read(first_weight, kNone, 0, 1),
               read(first_bias, kNone, 0, kNone), read(inner_weight, 0, 1, 2), read(inner_bias, 0, 1, kNone),
               read(output_weight, kNone, 0, 1), read(rates, kNone, 0, kNone),
               write(grad_first_weight, kNone, 0, 1), write(grad_first_bias, kNone, 0, kNone),
               write(grad_inner_weight, 0, 1, 2), write(grad_inner_bias, 0, 1, kNone),
               write(grad_output_weight, kNone, 0, 1)});
  const auto needed = [&](bool need, const Tensor& made) { return need ? made : none(); };
  return {none(),
          needed(need_first_weight, grad_first_weight),
          needed(need_first_bias, grad_first_bias),
          needed(need_inner_weight, grad_inner_weight),
          needed(need_inner_bias, grad_inner_bias),
          needed(need_output_weight, grad_output_weight),
          none()};
}

}  // namespace

#ifndef EQUICONV_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
  m.def(
      "implicit_filter(Tensor features, Tensor first_weight, Tensor first_bias, Tensor inner_weight, "
      "Tensor inner_bias, Tensor output_weight, Tensor rates) -> Tensor");
  m.def(
      "implicit_filter_backward(Tensor grad_out, Tensor features, Tensor first_weight, Tensor first_bias, "
      "Tensor inner_weight, Tensor inner_bias, Tensor output_weight, Tensor rates, bool need_features, "
      "bool need_first_weight, bool need_first_bias, bool need_inner_weight, bool need_inner_bias, "
      "bool need_output_weight, bool need_rates) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
  m.impl("implicit_filter", TORCH_BOX(&implicit_filter));
  m.impl("implicit_filter_backward", TORCH_BOX(&implicit_filter_backward));
}

}  // namespace equiconv::ops
