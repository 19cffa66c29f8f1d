// The binding of conditioned_conv: schema, argument checks, allocation. Compiled once for each device. The
// CUDA kernels take some lengths only, so there they are ops of their own, and Python chooses between them
// and a composition of other ops.
#include "../conditioned_conv.h"

#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "signal.h"

#ifdef EQUICONV_CUDA
#include "../cuda/conditioned_conv.h"
#include "device_cuda.h"
#else
#include "../cpu/conditioned_conv.h"
#include "device_cpu.h"
#endif

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "conditioned_conv";

// The schema has layout as an int, as that of fft_conv.

// ---- checks ----------------------------------------------------------------------------------------

// One row of weights for each channel.
void check_taps(const char* name, const char* axis, const Tensor& weight, const Tensor& x,
                const ConditionedConv& call) {
  if (weight.dim() != 2)
    refuse(kOp, ": ", name, " must be (D, ", axis, "), but has shape ", text(weight.sizes()));
  check_kind(kOp, name, weight, x, true);
  check_rows(kOp, name, weight, call.batch, call.channels);
}

void check_channels(const char* name, const MaybeTensor& weight, const Tensor& x,
                    const ConditionedConv& call) {
  if (!weight) return;
  check_kind(kOp, name, *weight, x, true);
  if (weight->dim() != 1 || weight->size(0) != call.channels)
    refuse(kOp, ": ", name, " must have shape (", call.channels, ",), one for each channel of x, but has ",
           text(weight->sizes()));
}

ConditionedConv check(const Tensor& x, const Tensor& query, const MaybeTensor& key,
                      const Tensor& frequency_filter, const MaybeTensor& frequency_bias,
                      const MaybeTensor& filter, const MaybeTensor& pre_gate, const MaybeTensor& post_gate,
                      const MaybeTensor& skip, std::int64_t layout) {
  const Axes axes = axes_of(kOp, layout);
  check_x(kOp, x, axes);
  ConditionedConv call{x.size(0), x.size(axes.channel), x.size(axes.position), 0, 0, key.has_value()};
  check_signal(kOp, "query", query, x);
  check_signal(kOp, "key", key, x);
  check_taps("frequency_filter", "W", frequency_filter, x, call);
  call.width = frequency_filter.size(1);
  if (call.width < 1 || call.width > ConditionedConv::kMaxWidth)
    refuse(kOp, ": frequency_filter must have 1 to ", ConditionedConv::kMaxWidth, " taps, but has ",
           call.width);
  check_channels("frequency_bias", frequency_bias, x, call);
  if (filter) {
    check_taps("filter", "Lf", *filter, x, call);
    call.taps = filter->size(1);
    const std::int64_t least = std::min<std::int64_t>(call.length, 1),
                       most = std::max<std::int64_t>(call.length, 1);
    if (call.taps < least || call.taps > most)
      refuse(kOp, ": filter must have ", least, " to ", most, " taps where the length of x is ", call.length,
             ", but has ", call.taps);
  }
  check_signal(kOp, "pre_gate", pre_gate, x);
  check_signal(kOp, "post_gate", post_gate, x);
  check_channels("skip", skip, x, call);
  return call;
}

// ---- the ops -------------------------------------------------------------------------------------------

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::conditioned_conv_forward_workspace) forward_scratch =
      cuda::conditioned_conv_forward_workspace;
  decltype(&cuda::conditioned_conv_backward_workspace) backward_scratch =
      cuda::conditioned_conv_backward_workspace;
  decltype(&cuda::conditioned_conv_forward) forward = cuda::conditioned_conv_forward;
  decltype(&cuda::conditioned_conv_backward) backward = cuda::conditioned_conv_backward;
};
Kernels kernels() { return {}; }
const std::string kForward = "conditioned_conv_fused", kBackward = "conditioned_conv_fused_backward";

// Whether there are kernels for rows like those of x, on its device. Where there are none, so for lengths
// that are no power of two, they refuse the call.
bool conditioned_conv_fuses(const Tensor& x, std::int64_t layout) {
  const Axes axes = axes_of(kOp, layout);
  check_x(kOp, x, axes);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  return cuda::conditioned_conv_fuses(x.size(axes.position), dtype_of(x));
}
#else
const cpu::ConditionedConvKernels& kernels() { return cpu::conditioned_conv(); }
const std::string kForward = "conditioned_conv", kBackward = "conditioned_conv_backward";
#endif

bool is_empty(const ConditionedConv& call) {
  return call.batch == 0 || call.channels == 0 || call.length == 0;
}

Tensor conditioned_conv(const Tensor& x, const Tensor& query, const MaybeTensor& key,
                        const Tensor& frequency_filter, const MaybeTensor& frequency_bias,
                        const MaybeTensor& filter, const MaybeTensor& pre_gate, const MaybeTensor& post_gate,
                        const MaybeTensor& skip, std::int64_t layout) {
  const ConditionedConv call =
      check(x, query, key, frequency_filter, frequency_bias, filter, pre_gate, post_gate, skip, layout);
  const Tensor y = torch::stable::new_empty(x, x.sizes());
  if (is_empty(call)) return y;
  const Arrays of{axes_of(kOp, layout)};
  launch(x, kernels().forward_scratch, kernels().forward, call,
         ConditionedConvForward{of.read_signal(x), of.read_signal(query), of.read_signal(key),
                                of.read_filter(frequency_filter), of.read_skip(frequency_bias),
                                of.read_filter(filter), of.read_signal(pre_gate), of.read_signal(post_gate),
                                of.read_skip(skip), of.write_signal(y)});
  return y;
}

// Each gradient that is needed, like its argument; in the place of any other a tensor of shape (0,).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> conditioned_conv_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& query, const MaybeTensor& key,
    const Tensor& frequency_filter, const MaybeTensor& frequency_bias, const MaybeTensor& filter,
    const MaybeTensor& pre_gate, const MaybeTensor& post_gate, const MaybeTensor& skip, std::int64_t layout,
    bool need_x, bool need_query, bool need_key, bool need_frequency_filter, bool need_frequency_bias,
    bool need_filter, bool need_pre_gate, bool need_post_gate, bool need_skip) {
  const ConditionedConv call =
      check(x, query, key, frequency_filter, frequency_bias, filter, pre_gate, post_gate, skip, layout);
  check_signal(kOp, "grad_out", grad_out, x);
  need_key &= key.has_value();
  need_frequency_bias &= frequency_bias.has_value();
  need_filter &= filter.has_value();
  need_pre_gate &= pre_gate.has_value();
  need_post_gate &= post_gate.has_value();
  need_skip &= skip.has_value();

  const bool empty = is_empty(call);
  const Tensor grad_x = gradient_of(x, need_x, empty, x),
               grad_query = gradient_of(query, need_query, empty, x),
               grad_key = gradient_of(key, need_key, empty, x),
               grad_frequency_filter = gradient_of(frequency_filter, need_frequency_filter, empty, x),
               grad_frequency_bias = gradient_of(frequency_bias, need_frequency_bias, empty, x),
               grad_filter = gradient_of(filter, need_filter, empty, x),
               grad_pre_gate = gradient_of(pre_gate, need_pre_gate, empty, x),
               grad_post_gate = gradient_of(post_gate, need_post_gate, empty, x),
               grad_skip = gradient_of(skip, need_skip, empty, x);

  if (!empty && (need_x || need_query || need_key || need_frequency_filter || need_frequency_bias ||
                 need_filter || need_pre_gate || need_post_gate || need_skip)) {
    const Arrays of{axes_of(kOp, layout)};
    const Output none;
    const ConditionedConvBackward arrays{
        of.read_signal(grad_out),
        of.read_signal(x),
        of.read_signal(query),
        of.read_signal(key),
        of.read_filter(frequency_filter),
        of.read_skip(frequency_bias),
        of.read_filter(filter),
        of.read_signal(pre_gate),
        of.read_signal(post_gate),
        of.read_skip(skip),
        need_x ? of.write_signal(grad_x) : none,
        need_query ? of.write_signal(grad_query) : none,
        need_key ? of.write_signal(grad_key) : none,
        need_frequency_filter ? of.write_filter(grad_frequency_filter) : none,
        need_frequency_bias ? of.write_skip(grad_frequency_bias) : none,
        need_filter ? of.write_filter(grad_filter) : none,
        need_pre_gate ? of.write_signal(grad_pre_gate) : none,
        need_post_gate ? of.write_signal(grad_post_gate) : none,
        need_skip ? of.write_skip(grad_skip) : none};
    launch(x, kernels().backward_scratch, kernels().backward, call, arrays);
  }
  return {grad_x,        grad_query,     grad_key, grad_frequency_filter, grad_frequency_bias, grad_filter,
          grad_pre_gate, grad_post_gate, grad_skip};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
#ifdef EQUICONV_CUDA
  m.def("conditioned_conv_fuses(Tensor x, int layout) -> bool");
#endif
  m.def((kForward +
         "(Tensor x, Tensor query, Tensor? key, Tensor frequency_filter, Tensor? frequency_bias, "
         "Tensor? filter, Tensor? pre_gate, Tensor? post_gate, Tensor? skip, int layout) -> Tensor")
            .c_str());
  m.def((kBackward +
         "(Tensor grad_out, Tensor x, Tensor query, Tensor? key, Tensor frequency_filter, "
         "Tensor? frequency_bias, Tensor? filter, Tensor? pre_gate, Tensor? post_gate, Tensor? skip, "
         "int layout, bool need_x, bool need_query, bool need_key, bool need_frequency_filter, "
         "bool need_frequency_bias, bool need_filter, bool need_pre_gate, bool need_post_gate, "
         "bool need_skip) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)")
            .c_str());
}

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
#ifdef EQUICONV_CUDA
  m.impl("conditioned_conv_fuses", TORCH_BOX(&conditioned_conv_fuses));
#endif
  m.impl(kForward.c_str(), TORCH_BOX(&conditioned_conv));
  m.impl(kBackward.c_str(), TORCH_BOX(&conditioned_conv_backward));
}

}  // namespace equiconv::ops
