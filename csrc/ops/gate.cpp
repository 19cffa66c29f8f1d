// The binding of gate: schema, argument checks, allocation. Compiled once for each device.
#include "../gate.h"

#include <torch/csrc/stable/library.h>

#include <array>
#include <tuple>
#include <vector>

#include "signal.h"

#ifdef EQUICONV_CUDA
#include "../cuda/gate.h"
#include "device_cuda.h"
#else
#include "../cpu/gate.h"
#include "device_cpu.h"
#endif

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "gate";

// The schema has the activation as an int, numbered as the enum is (csrc/ops/fft_conv.cpp says why).
Activation activation_of(std::int64_t activation) {
  if (activation < 0 || activation > 5)
    refuse(
        kOp,
        ": activation must be 0 (identity), 1 (sigmoid), 2 (silu), 3 (gelu), 4 (relu) or 5 (tanh), but is ",
        activation);
  return static_cast<Activation>(activation);
}

// ---- checks ----------------------------------------------------------------------------------------

// The shape of the result, and in it the axis of the channels.
struct Shape {
  std::vector<std::int64_t> sizes;
  int channel;
  bool packed;

  bool is_empty() const {
    for (const std::int64_t size : sizes)
      if (size == 0) return true;
    return false;
  }
};

void check_bias(const char* name, const MaybeTensor& bias, const Tensor& x, std::int64_t channels) {
  if (!bias) return;
  check_kind(kOp, name, *bias, x, true);
  if (bias->dim() != 1 || bias->size(0) != channels)
    refuse(kOp, ": ", name, " must have shape (", channels, ",), one for each channel, but has ",
           text(bias->sizes()));
}

Shape check(const Tensor& x, const MaybeTensor& gate, const MaybeTensor& bias, const MaybeTensor& gate_bias,
            std::int64_t activation, std::int64_t dim, std::int64_t order) {
  activation_of(activation);
  if (order < 0 || order > kGateOrder) refuse(kOp, ": order must be 0 to ", kGateOrder, ", but is ", order);
  check_floating(kOp, "x", x);
  const std::int64_t rank = x.dim();
  if (rank < 1 || rank > kGateAxes)
    refuse(kOp, ": x must have 1 to ", kGateAxes, " dimensions, but has ", rank);
  if (dim < -rank || dim >= rank)
    refuse(kOp, ": dim must be ", -rank, " to ", rank - 1, " where x has shape ", text(x.sizes()),
           ", but is ", dim);
  Shape shape{{x.sizes().begin(), x.sizes().end()}, int(dim < 0 ? dim + rank : dim), !gate};
  std::int64_t& channels = shape.sizes[shape.channel];
  if (gate) {
    check_shape(kOp, "gate", *gate, x);
    check_kind(kOp, "gate", *gate, x);
  } else {
    if (channels % 2)
      refuse(kOp, ": x must have an even size along dim where there is no gate, but has shape ",
             text(x.sizes()));
    channels /= 2;
  }
  check_bias("bias", bias, x, channels);
  check_bias("gate_bias", gate_bias, x, channels);
  return shape;
}

// ---- tensors as strided arrays -----------------------------------------------------------------------

// Arrays of one call, first with all axes of the result, then with as few as say the same.
class Axes {
 public:
  explicit Axes(const Shape& shape, std::int64_t activation, std::int64_t order) : shape_(shape) {
    size_.axes = int(shape.sizes.size()), size_.channel = shape.channel;
    std::copy(shape.sizes.begin(), shape.sizes.end(), size_.size);
    size_.activation = activation_of(activation), size_.order = int(order);
  }

  // `half`: of a packed tensor, 0 the values and 1 the gates.
  GateInput read(const Tensor& t, int half = 0) const { return array(t.const_data_ptr(), t, half); }
  GateOutput write(const Tensor& t, int half = 0) const { return array(t.mutable_data_ptr(), t, half); }

  // Leaves out axes of size 1 and joins neighbours; the channels stay apart if there is a bias.
  template <class... Arrays>
  Gate merge(bool biased, Arrays&... arrays) const {
    Gate merged = size_;
    merged.axes = 0;
    for (int i = 0; i < size_.axes; ++i) {
      const bool channel = biased && i == size_.channel;
      if (size_.size[i] == 1 && !channel) continue;
      const int last = merged.axes - 1;
      const bool joins = last >= 0 && !channel && !(biased && merged.channel == last && i > size_.channel) &&
                         (continues(arrays, last, i, size_.size[i]) && ...);
      if (joins) {
        merged.size[last] *= size_.size[i];
        (set(arrays, last, i), ...);
        continue;
      }
      if (channel) merged.channel = merged.axes;
      merged.size[merged.axes] = size_.size[i];
      (set(arrays, merged.axes, i), ...);
      ++merged.axes;
    }
    if (merged.axes == 0) merged.size[merged.axes++] = 1;
    if (!biased) merged.channel = merged.axes - 1;
    return merged;
  }

 private:
  template <class Void>
  GateArray<Void> array(Void* data, const Tensor& t, int half) const {
    GateArray<Void> a{data, dtype_of(t), {}};
    for (int i = 0; i < size_.axes; ++i) a.stride[i] = t.stride(i);
    using Bytes = std::conditional_t<std::is_const_v<Void>, const char, char>;
    const std::int64_t apart = half * size_.size[size_.channel] * a.stride[size_.channel];
    if (apart) a.data = static_cast<Bytes*>(data) + apart * std::int64_t(t.element_size());
    return a;
  }
  // An absent array goes along with anything.
  template <class Void>
  static bool continues(const GateArray<Void>& a, int last, int i, std::int64_t size) {
    return !a || a.stride[last] == a.stride[i] * size;
  }
  template <class Void>
  static void set(GateArray<Void>& a, int to, int from) {
    a.stride[to] = a.stride[from];
  }

  const Shape& shape_;
  Gate size_;
};

GateBias read_bias(const MaybeTensor& bias) {
  return bias ? GateBias{bias->const_data_ptr(), dtype_of(*bias), bias->stride(0)} : GateBias{};
}
GradGateBias write_bias(const Tensor& grad) { return {grad.mutable_data_ptr(), dtype_of(grad), 1}; }

// ---- the ops -------------------------------------------------------------------------------------------

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::gate_forward_workspace) forward_scratch = cuda::gate_forward_workspace;
  decltype(&cuda::gate_backward_workspace) backward_scratch = cuda::gate_backward_workspace;
  decltype(&cuda::gate_forward) forward = cuda::gate_forward;
  decltype(&cuda::gate_backward) backward = cuda::gate_backward;
};
Kernels kernels() { return {}; }
#else
const cpu::GateKernels& kernels() { return cpu::gate(); }
#endif

Tensor gate(const Tensor& x, const MaybeTensor& gate, const MaybeTensor& bias, const MaybeTensor& gate_bias,
            std::int64_t activation, std::int64_t dim, std::int64_t order) {
  const Shape shape = check(x, gate, bias, gate_bias, activation, dim, order);
  const Tensor y = torch::stable::new_empty(x, shape.sizes);
  if (shape.is_empty()) return y;
  const Axes axes(shape, activation, order);
  GateForward a{axes.read(x), gate ? axes.read(*gate) : axes.read(x, 1), read_bias(bias),
                read_bias(gate_bias), axes.write(y)};
  const Gate size = axes.merge(bias || gate_bias, a.x, a.gate, a.y);
  launch(x, kernels().forward_scratch, kernels().forward, size, a);
  return y;
}

// Each gradient that is needed, like its argument, that of x with the gate's half where they are packed; in
// the place of any other a tensor of shape (0,).
std::tuple<Tensor, Tensor, Tensor, Tensor> gate_backward(const Tensor& grad_out, const Tensor& x,
                                                         const MaybeTensor& gate, const MaybeTensor& bias,
                                                         const MaybeTensor& gate_bias,
                                                         std::int64_t activation, std::int64_t dim,
                                                         std::int64_t order, bool need_x, bool need_gate,
                                                         bool need_bias, bool need_gate_bias) {
  const Shape shape = check(x, gate, bias, gate_bias, activation, dim, order);
  check_kind(kOp, "grad_out", grad_out, x);
  if (!grad_out.sizes().equals(shape.sizes))
    refuse(kOp, ": grad_out must have the shape of the result, ", text(shape.sizes), ", but has ",
           text(grad_out.sizes()));
  need_gate &= gate.has_value();
  need_bias &= bias.has_value();
  need_gate_bias &= gate_bias.has_value();

  const bool empty = shape.is_empty();
  const Tensor grad_x = gradient_of(x, need_x, empty, x), grad_gate = gradient_of(gate, need_gate, empty, x),
               grad_bias = gradient_of(bias, need_bias, empty, x),
               grad_gate_bias = gradient_of(gate_bias, need_gate_bias, empty, x);
  if (!empty && (need_x || need_gate || need_bias || need_gate_bias)) {
    const Axes axes(shape, activation, order);
    GateBackward a{axes.read(grad_out),
                   axes.read(x),
                   gate ? axes.read(*gate) : axes.read(x, 1),
                   read_bias(bias),
                   read_bias(gate_bias),
                   {},
                   {},
                   {},
                   {}};
    if (need_x) a.grad_x = axes.write(grad_x);
    if (need_x && !gate) a.grad_gate = axes.write(grad_x, 1);
    if (need_gate) a.grad_gate = axes.write(grad_gate);
    if (need_bias) a.grad_bias = write_bias(grad_bias);
    if (need_gate_bias) a.grad_gate_bias = write_bias(grad_gate_bias);
    const Gate size = axes.merge(bias || gate_bias, a.grad_out, a.x, a.gate, a.grad_x, a.grad_gate);
    launch(x, kernels().backward_scratch, kernels().backward, size, a);
  }
  return {grad_x, grad_gate, grad_bias, grad_gate_bias};
}

}  // namespace

#ifndef EQUICONV_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
  m.def(
      "gate(Tensor x, Tensor? gate, Tensor? bias, Tensor? gate_bias, int activation, int dim, int order) "
      "-> Tensor");
  m.def(
      "gate_backward(Tensor grad_out, Tensor x, Tensor? gate, Tensor? bias, Tensor? gate_bias, "
      "int activation, int dim, int order, bool need_x, bool need_gate, bool need_bias, "
      "bool need_gate_bias) -> (Tensor, Tensor, Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
  m.impl("gate", TORCH_BOX(&gate));
  m.impl("gate_backward", TORCH_BOX(&gate_backward));
}

}  // namespace equiconv::ops
