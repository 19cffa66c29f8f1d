// The binding of short_conv and its other forms: schemas, argument checks, allocation. Compiled once for each
// device.
#include "../short_conv.h"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "signal.h"

#ifdef EQUICONV_CUDA
#include "../cuda/short_conv.h"
#include "device_cuda.h"
#else
#include "../cpu/short_conv.h"
#include "device_cpu.h"
#endif

namespace equiconv::ops {
namespace {

// ---- checks ----------------------------------------------------------------------------------------

bool is_complex(const Tensor& t) {
  return t.scalar_type() == ScalarType::ComplexFloat || t.scalar_type() == ScalarType::ComplexDouble;
}

// A weight: the dtype of x's real parts, or float32 beside a half type.
void check_weight(const char* op, const char* name, const Tensor& weight, const char* x_name,
                  const Tensor& x) {
  const ScalarType have = weight.scalar_type();
  const ScalarType want = !is_complex(x)                                ? x.scalar_type()
                          : x.scalar_type() == ScalarType::ComplexFloat ? ScalarType::Float
                                                                        : ScalarType::Double;
  if (have != want && !(is_half(want) && have == ScalarType::Float))
    refuse(op, ": ", name, " must have the dtype of ", x_name, is_complex(x) ? "'s real parts, " : ", ",
           text(want), is_half(want) ? ", or float32" : "", ", but has ", text(have));
  if (!(weight.device() == x.device()))
    refuse(op, ": ", name, " must be on the device of ", x_name, ", ", text(x.device()), ", but is on ",
           text(weight.device()));
}

// filter (D, W) and bias (D,) beside x.
void check_weights(const char* op, const Tensor& filter, const MaybeTensor& bias, const char* x_name,
                   const Tensor& x, std::int64_t channels) {
  check_rank(op, "filter", filter, 2, "(D, W)");
  check_weight(op, "filter", filter, x_name, x);
  if (filter.size(0) != channels)
    refuse(op, ": filter must have the channels of ", x_name, ", ", channels, ", but has ", filter.size(0));
  if (filter.size(1) < 1 || filter.size(1) > kMaxTaps)
    refuse(op, ": filter must have 1 to ", kMaxTaps, " taps, but has ", filter.size(1));
  if (!bias) return;
  check_weight(op, "bias", *bias, x_name, x);
  if (bias->dim() != 1 || bias->size(0) != channels)
    refuse(op, ": bias must have shape (", channels, ",), one for each channel of ", x_name, ", but has ",
           text(bias->sizes()));
}

Epilogue activation_of(const char* op, std::int64_t activation) {
  if (activation < 0 || activation > 2)
    refuse(op, ": activation must be 0 (None), 1 (silu) or 2 (gelu), but is ", activation);
  return static_cast<Epilogue>(activation);
}

// The last arguments of every op here: what happens at the edges, and which axis is which.
struct Form {
  bool circular;
  std::int64_t ahead, layout;
};

ShortConv check(const char* op, const char* x_name, const Tensor& x, const Tensor& filter,
                const MaybeTensor& bias, Epilogue epilogue, const Form& form) {
  const Axes axes = axes_of(op, form.layout);
  const bool gated = epilogue == Epilogue::gated;
  if (epilogue == Epilogue::none) {
    if (!is_complex(x) && x.scalar_type() != ScalarType::Float && x.scalar_type() != ScalarType::Double &&
        !is_half(x.scalar_type()))
      refuse(op, ": ", x_name,
             " must be float32, float64, bfloat16, float16, complex64 or complex128, but is ",
             text(x.scalar_type()));
  } else {
    check_floating(op, x_name, x);
  }
  check_rank(op, x_name, x, 3,
             gated ? (axes.channel == 1 ? "(B, 3D, L)" : "(B, L, 3D)")
                   : (axes.channel == 1 ? "(B, D, L)" : "(B, L, D)"));
  const std::int64_t channels = x.size(axes.channel);
  if (gated && channels % 3)
    refuse(op, ": ", x_name, " must have three times as many channels as x0, but has ", channels);
  check_weights(op, filter, bias, x_name, x, channels);
  if (form.ahead < 0 || form.ahead >= filter.size(1))
    refuse(op, ": ahead must be 0 to ", filter.size(1) - 1, ", but is ", form.ahead);
  return {x.size(0),
          gated ? channels / 3 : channels,
          x.size(axes.position),
          static_cast<int>(filter.size(1)),
          static_cast<int>(form.ahead),
          is_complex(x) ? 2 : 1,
          form.circular,
          epilogue};
}

// The shape of x0 and u beside z.
std::vector<std::int64_t> shape_of_result(const Tensor& x, const ShortConv& call, Axes axes) {
  std::vector<std::int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape[std::size_t(axes.channel)] = call.channels;
  return shape;
}

void check_gradient(const char* op, const char* name, const char* of, const Tensor& grad, const char* x_name,
                    const Tensor& x, const std::vector<std::int64_t>& shape) {
  const torch::headeronly::IntHeaderOnlyArrayRef want(shape.data(), shape.size());
  if (!grad.sizes().equals(want))
    refuse(op, ": ", name, " must have the shape of ", of, ", ", text(want), ", but has ",
           text(grad.sizes()));
  if (grad.scalar_type() != x.scalar_type())
    refuse(op, ": ", name, " must have the dtype of ", x_name, ", ", text(x.scalar_type()), ", but has ",
           text(grad.scalar_type()));
  if (!(grad.device() == x.device()))
    refuse(op, ": ", name, " must be on the device of ", x_name, ", ", text(x.device()), ", but is on ",
           text(grad.device()));
}

// ---- tensors as strided arrays -----------------------------------------------------------------------

// Signals: strides of a complex tensor count its real and imaginary parts.
template <class Void>
Array<Void> signal(Void* data, const Tensor& t, Axes axes) {
  Array<Void> a = array(data, t, 0, axes.channel, axes.position);
  const std::int64_t parts = is_complex(t) ? 2 : 1;
  a.batch *= parts, a.channel *= parts, a.position *= parts;
  return a;
}
Input read(const Tensor& t, Axes axes) { return signal(t.const_data_ptr(), t, axes); }
Output write(const Tensor& t, Axes axes) { return signal(t.mutable_data_ptr(), t, axes); }

Input read_filter(const Tensor& t) { return array(t.const_data_ptr(), t, kNone, 0, 1); }
Output write_filter(const Tensor& t) { return array(t.mutable_data_ptr(), t, kNone, 0, 1); }
Input read_bias(const MaybeTensor& t) {
  return t ? array(t->const_data_ptr(), *t, kNone, 0, kNone) : Input{};
}
Output write_bias(const Tensor& t) { return array(t.mutable_data_ptr(), t, kNone, 0, kNone); }

// ---- the ops -------------------------------------------------------------------------------------------

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::short_conv_forward_workspace) forward_scratch = cuda::short_conv_forward_workspace;
  decltype(&cuda::short_conv_backward_workspace) backward_scratch = cuda::short_conv_backward_workspace;
  decltype(&cuda::short_conv_step_workspace) step_scratch = cuda::short_conv_step_workspace;
  decltype(&cuda::short_conv_forward) forward = cuda::short_conv_forward;
  decltype(&cuda::short_conv_backward) backward = cuda::short_conv_backward;
  decltype(&cuda::short_conv_step) step = cuda::short_conv_step;
};
Kernels kernels() { return {}; }
#else
const cpu::ShortConvKernels& kernels() { return cpu::short_conv(); }
#endif

bool is_empty(const ShortConv& n) { return n.batch == 0 || n.channels == 0 || n.length == 0; }

Tensor forward(const char* op, const Tensor& x, const Tensor& filter, const MaybeTensor& bias,
               Epilogue epilogue, const Form& form) {
  const ShortConv call = check(op, "x", x, filter, bias, epilogue, form);
  const Tensor y = torch::stable::new_empty(x, x.sizes());
  if (is_empty(call)) return y;
  const Axes axes = axes_of(op, form.layout);
  launch(x, kernels().forward_scratch, kernels().forward, call,
         ShortConvForward{read(x, axes), read_filter(filter), read_bias(bias), write(y, axes), {}});
  return y;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor>;

// Each gradient that is needed, like its argument; in the place of any other a tensor of shape (0,).
Gradients backward(const ShortConv& call, const Tensor& grad_out, const MaybeTensor& grad_product,
                   const Tensor& x, const Tensor& filter, const MaybeTensor& bias, Axes axes, bool need_x,
                   bool need_filter, bool need_bias) {
  need_bias &= bias.has_value();
  const bool empty = is_empty(call);
  const Tensor grad_x = gradient_of(x, need_x, empty, x),
               grad_filter = gradient_of(filter, need_filter, empty, x),
               grad_bias = gradient_of(bias, need_bias, empty, x);
  if (!empty && (need_x || need_filter || need_bias)) {
    const Output none;
    launch(x, kernels().backward_scratch, kernels().backward, call,
           ShortConvBackward{
               read(grad_out, axes), grad_product ? read(*grad_product, axes) : Input{}, read(x, axes),
               read_filter(filter), read_bias(bias), need_x ? write(grad_x, axes) : none,
               need_filter ? write_filter(grad_filter) : none, need_bias ? write_bias(grad_bias) : none});
  }
  return {grad_x, grad_filter, grad_bias};
}

constexpr const char *kOp = "short_conv", *kGated = "short_conv_gated", *kStep = "short_conv_step";

Tensor short_conv(const Tensor& x, const Tensor& filter, const MaybeTensor& bias, bool circular,
                  std::int64_t ahead, std::int64_t layout) {
  return forward(kOp, x, filter, bias, Epilogue::none, {circular, ahead, layout});
}

Gradients short_conv_backward(const Tensor& grad_out, const Tensor& x, const Tensor& filter,
                              const MaybeTensor& bias, bool circular, std::int64_t ahead, std::int64_t layout,
                              bool need_x, bool need_filter, bool need_bias) {
  const ShortConv call = check(kOp, "x", x, filter, bias, Epilogue::none, {circular, ahead, layout});
  const Axes axes = axes_of(kOp, layout);
  check_gradient(kOp, "grad_out", "x", grad_out, "x", x, shape_of_result(x, call, axes));
  return backward(call, grad_out, {}, x, filter, bias, axes, need_x, need_filter, need_bias);
}

Tensor short_conv_activated(const Tensor& x, const Tensor& filter, const MaybeTensor& bias,
                            std::int64_t activation, bool circular, std::int64_t ahead, std::int64_t layout) {
  return forward(kOp, x, filter, bias, activation_of(kOp, activation), {circular, ahead, layout});
}

Gradients short_conv_activated_backward(const Tensor& grad_out, const Tensor& x, const Tensor& filter,
                                        const MaybeTensor& bias, std::int64_t activation, bool circular,
                                        std::int64_t ahead, std::int64_t layout, bool need_x,
                                        bool need_filter, bool need_bias) {
  const ShortConv call =
      check(kOp, "x", x, filter, bias, activation_of(kOp, activation), {circular, ahead, layout});
  const Axes axes = axes_of(kOp, layout);
  check_gradient(kOp, "grad_out", "x", grad_out, "x", x, shape_of_result(x, call, axes));
  return backward(call, grad_out, {}, x, filter, bias, axes, need_x, need_filter, need_bias);
}

std::tuple<Tensor, Tensor> short_conv_gated(const Tensor& z, const Tensor& filter, const MaybeTensor& bias,
                                            bool circular, std::int64_t ahead, std::int64_t layout) {
  const ShortConv call = check(kGated, "z", z, filter, bias, Epilogue::gated, {circular, ahead, layout});
  const Axes axes = axes_of(kGated, layout);
  const auto shape = shape_of_result(z, call, axes);
  const Tensor x0 = torch::stable::new_empty(z, {shape.data(), shape.size()}),
               u = torch::stable::new_empty(z, {shape.data(), shape.size()});
  if (!is_empty(call))
    launch(z, kernels().forward_scratch, kernels().forward, call,
           ShortConvForward{read(z, axes), read_filter(filter), read_bias(bias), write(x0, axes),
                            write(u, axes)});
  return {x0, u};
}

Gradients short_conv_gated_backward(const Tensor& grad_x0, const Tensor& grad_u, const Tensor& z,
                                    const Tensor& filter, const MaybeTensor& bias, bool circular,
                                    std::int64_t ahead, std::int64_t layout, bool need_z, bool need_filter,
                                    bool need_bias) {
  const ShortConv call = check(kGated, "z", z, filter, bias, Epilogue::gated, {circular, ahead, layout});
  const Axes axes = axes_of(kGated, layout);
  const auto shape = shape_of_result(z, call, axes);
  check_gradient(kGated, "grad_x0", "x0", grad_x0, "z", z, shape);
  check_gradient(kGated, "grad_u", "u", grad_u, "z", z, shape);
  return backward(call, grad_x0, grad_u, z, filter, bias, axes, need_z, need_filter, need_bias);
}

std::tuple<Tensor, Tensor> short_conv_step(const Tensor& x, const Tensor& state, const Tensor& filter,
                                           const MaybeTensor& bias, std::int64_t activation) {
  const Epilogue epilogue = activation_of(kStep, activation);
  check_floating(kStep, "x", x);
  check_rank(kStep, "x", x, 2, "(B, D)");
  const std::int64_t batch = x.size(0), channels = x.size(1);
  check_weights(kStep, filter, bias, "x", x, channels);
  const std::int64_t taps = filter.size(1), shape[] = {batch, channels, taps - 1};
  const torch::headeronly::IntHeaderOnlyArrayRef want(shape, 3);
  if (!state.sizes().equals(want))
    refuse(kStep, ": state must have shape ", text(want), ", (B, D, W-1), but has ", text(state.sizes()));
  check_kind(kStep, "state", state, x);
  const Tensor y = torch::stable::new_empty(x, x.sizes()), next = torch::stable::new_empty(state, want);
  if (batch == 0 || channels == 0) return {y, next};
  launch(
      x, kernels().step_scratch, kernels().step,
      ShortConv{batch, channels, 1, static_cast<int>(taps), 0, 1, false, epilogue},
      ShortConvStep{array(x.const_data_ptr(), x, 0, 1, kNone), array(state.const_data_ptr(), state, 0, 1, 2),
                    read_filter(filter), read_bias(bias), array(y.mutable_data_ptr(), y, 0, 1, kNone),
                    array(next.mutable_data_ptr(), next, 0, 1, 2)});
  return {y, next};
}

}  // namespace

#ifndef EQUICONV_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
  m.def("short_conv(Tensor x, Tensor filter, Tensor? bias, bool circular, int ahead, int layout) -> Tensor");
  m.def(
      "short_conv_backward(Tensor grad_out, Tensor x, Tensor filter, Tensor? bias, bool circular, int ahead, "
      "int layout, bool need_x, bool need_filter, bool need_bias) -> (Tensor, Tensor, Tensor)");
  m.def(
      "short_conv_activated(Tensor x, Tensor filter, Tensor? bias, int activation, bool circular, int ahead, "
      "int layout) -> Tensor");
  m.def(
      "short_conv_activated_backward(Tensor grad_out, Tensor x, Tensor filter, Tensor? bias, int activation, "
      "bool circular, int ahead, int layout, bool need_x, bool need_filter, bool need_bias) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "short_conv_gated(Tensor z, Tensor filter, Tensor? bias, bool circular, int ahead, int layout) "
      "-> (Tensor, Tensor)");
  m.def(
      "short_conv_gated_backward(Tensor grad_x0, Tensor grad_u, Tensor z, Tensor filter, Tensor? bias, "
      "bool circular, int ahead, int layout, bool need_z, bool need_filter, bool need_bias) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "short_conv_step(Tensor x, Tensor state, Tensor filter, Tensor? bias, int activation) "
      "-> (Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
  m.impl("short_conv", TORCH_BOX(&short_conv));
  m.impl("short_conv_backward", TORCH_BOX(&short_conv_backward));
  m.impl("short_conv_activated", TORCH_BOX(&short_conv_activated));
  m.impl("short_conv_activated_backward", TORCH_BOX(&short_conv_activated_backward));
  m.impl("short_conv_gated", TORCH_BOX(&short_conv_gated));
  m.impl("short_conv_gated_backward", TORCH_BOX(&short_conv_gated_backward));
  m.impl("short_conv_step", TORCH_BOX(&short_conv_step));
}

}  // namespace equiconv::ops
