// The binding of fft_conv: schema, argument checks, allocation. Compiled once for each device.
#include "../fft_conv.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "check.h"

#ifdef EQUICONV_CUDA
#include "../cuda/fft_conv.h"
#include "device_cuda.h"
#else
#include "../cpu/fft_conv.h"
#include "device_cpu.h"
#endif

namespace equiconv::ops {
namespace {

using MaybeTensor = std::optional<Tensor>;
constexpr const char* kOp = "fft_conv";
#ifdef EQUICONV_CUDA
constexpr std::int64_t kMaxLength = std::int64_t{1} << 22, kMaxRows = std::int64_t{1} << 31;
#else
constexpr std::int64_t kMaxLength = std::int64_t{1} << 30;
#endif

// The schema has mode and layout as ints, numbered as here (python/equiconv/ops/check.py turns names into
// them): torch's stable ABI copies a `str` to the heap at every call and, up to torch 2.13 at least, never
// frees the copy. Exported programs hold the numbers, so they stay.
constexpr const char* kModes[] = {"causal", "bidirectional", "circular"};

Mode mode_of(std::int64_t mode) {
  if (mode < 0 || mode > 2)
    refuse(kOp, ": mode must be 0 (causal), 1 (bidirectional) or 2 (circular), but is ", mode);
  return static_cast<Mode>(mode);
}

// Where a signal keeps its channels and positions.
struct Axes {
  int channel, position;
};

Axes axes_of(std::int64_t layout) {
  if (layout == 0) return {1, 2};
  if (layout == 1) return {2, 1};
  refuse(kOp, ": layout must be 0 (bdl) or 1 (bld), but is ", layout);
}

// ---- checks ----------------------------------------------------------------------------------------

void check_signal(const char* name, const MaybeTensor& signal, const Tensor& x) {
  if (!signal) return;
  check_shape(kOp, name, *signal, x);
  check_kind(kOp, name, *signal, x);
}

void check_filter(const Tensor& filter, const Tensor& x, const FftConv& call) {
  if (filter.dim() != 2 && filter.dim() != 3)
    refuse(kOp, ": filter must be (D, Lf) or (B, D, Lf), but has shape ", text(filter.sizes()));
  check_kind(kOp, "filter", filter, x, true);
  if (!call.shared && filter.size(0) != call.batch)
    refuse(kOp, ": filter must have the batch of x, ", call.batch, ", but has ", filter.size(0));
  if (filter.size(-2 + filter.dim()) != call.channels)
    refuse(kOp, ": filter must have the channels of x, ", call.channels, ", but has ",
           filter.size(-2 + filter.dim()));
  const std::int64_t reach = call.mode == Mode::bidirectional ? 2 * call.length - 1 : call.length;
  const std::int64_t least = std::min<std::int64_t>(call.length, 1), most = std::max<std::int64_t>(reach, 1);
  if (call.taps < least || call.taps > most)
    refuse(kOp, ": filter must have ", least, " to ", most, " taps where mode is ",
           kModes[static_cast<int>(call.mode)], " and the length of x is ", call.length, ", but has ",
           call.taps);
}

FftConv check(const Tensor& x, const Tensor& filter, const MaybeTensor& pre_gate,
              const MaybeTensor& post_gate, const MaybeTensor& skip, std::int64_t mode, std::int64_t layout) {
  const Mode mode_value = mode_of(mode);
  const Axes axes = axes_of(layout);
  check_floating(kOp, "x", x);
  check_rank(kOp, "x", x, 3, axes.channel == 1 ? "(B, D, L)" : "(B, L, D)");
  const std::int64_t taps = filter.dim() ? filter.size(filter.dim() - 1) : 0;
  const FftConv call{x.size(0), x.size(axes.channel), x.size(axes.position),
                     taps,      mode_value,           filter.dim() == 2};
  if (call.length > kMaxLength)
    refuse(kOp, ": x must have at most ", kMaxLength, " positions, but has ", call.length);
#ifdef EQUICONV_CUDA
  if (call.channels > 0 && call.batch > kMaxRows / call.channels)  // their product might overflow
    refuse(kOp, ": x must have at most ", kMaxRows, " rows, one for each channel of each sample, but has ",
           call.batch, " x ", call.channels);
#endif
  check_filter(filter, x, call);
  check_signal("pre_gate", pre_gate, x);
  check_signal("post_gate", post_gate, x);
  if (skip) {
    check_kind(kOp, "skip", *skip, x, true);
    if (skip->dim() != 1 || skip->size(0) != call.channels)
      refuse(kOp, ": skip must have shape (", call.channels, ",), one for each channel of x, but has ",
             text(skip->sizes()));
  }
  return call;
}

// ---- tensors as strided arrays -----------------------------------------------------------------------

constexpr int kNone = -1;  // an axis that the tensor does not have: its stride is 0

template <class Void>
Array<Void> array(Void* data, const Tensor& tensor, int batch, int channel, int position) {
  const auto stride = [&](int axis) { return axis == kNone ? 0 : tensor.stride(axis); };
  return {data, dtype_of(tensor), stride(batch), stride(channel), stride(position)};
}

// The three shapes of fft_conv's tensors, each for reading and for writing.
struct Arrays {
  Axes axes;

  template <class Void>
  Array<Void> signal(Void* data, const Tensor& t) const {
    return array(data, t, 0, axes.channel, axes.position);
  }
  template <class Void>
  Array<Void> filter(Void* data, const Tensor& t) const {
    return t.dim() == 2 ? array(data, t, kNone, 0, 1) : array(data, t, 0, 1, 2);
  }
  template <class Void>
  Array<Void> skip(Void* data, const Tensor& t) const {
    return array(data, t, kNone, 0, kNone);
  }

  Input read_signal(const Tensor& t) const { return signal(t.const_data_ptr(), t); }
  Input read_signal(const MaybeTensor& t) const { return t ? read_signal(*t) : Input{}; }
  Input read_filter(const Tensor& t) const { return filter(t.const_data_ptr(), t); }
  Input read_skip(const MaybeTensor& t) const { return t ? skip(t->const_data_ptr(), *t) : Input{}; }
  Output write_signal(const Tensor& t) const { return signal(t.mutable_data_ptr(), t); }
  Output write_filter(const Tensor& t) const { return filter(t.mutable_data_ptr(), t); }
  Output write_skip(const Tensor& t) const { return skip(t.mutable_data_ptr(), t); }
};

// ---- the ops -------------------------------------------------------------------------------------------

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::fft_conv_forward_workspace) forward_scratch = cuda::fft_conv_forward_workspace;
  decltype(&cuda::fft_conv_backward_workspace) backward_scratch = cuda::fft_conv_backward_workspace;
  decltype(&cuda::fft_conv_forward) forward = cuda::fft_conv_forward;
  decltype(&cuda::fft_conv_backward) backward = cuda::fft_conv_backward;
};
Kernels kernels() { return {}; }
#else
const cpu::FftConvKernels& kernels() { return cpu::fft_conv(); }
#endif

bool is_empty(const FftConv& call) { return call.batch == 0 || call.channels == 0 || call.length == 0; }

Tensor fft_conv(const Tensor& x, const Tensor& filter, const MaybeTensor& pre_gate,
                const MaybeTensor& post_gate, const MaybeTensor& skip, std::int64_t mode,
                std::int64_t layout) {
  const FftConv call = check(x, filter, pre_gate, post_gate, skip, mode, layout);
  const Tensor y = torch::stable::new_empty(x, x.sizes());
  if (is_empty(call)) return y;
  const Arrays of{axes_of(layout)};
  launch(x, kernels().forward_scratch, kernels().forward, call,
         FftConvForward{of.read_signal(x), of.read_filter(filter), of.read_signal(pre_gate),
                        of.read_signal(post_gate), of.read_skip(skip), of.write_signal(y)});
  return y;
}

// Each gradient that is needed, like its argument; in the place of any other a tensor of shape (0,).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> fft_conv_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& filter, const MaybeTensor& pre_gate,
    const MaybeTensor& post_gate, const MaybeTensor& skip, std::int64_t mode, std::int64_t layout,
    bool need_x, bool need_filter, bool need_pre_gate, bool need_post_gate, bool need_skip) {
  const FftConv call = check(x, filter, pre_gate, post_gate, skip, mode, layout);
  check_signal("grad_out", grad_out, x);
  need_pre_gate &= pre_gate.has_value();
  need_post_gate &= post_gate.has_value();
  need_skip &= skip.has_value();

  const bool empty = is_empty(call);
  const auto gradient = [&](bool need, const MaybeTensor& argument) {
    const std::int64_t none = 0;
    if (!need) return torch::stable::new_empty(x, {&none, 1});
    return empty ? torch::stable::new_zeros(*argument, argument->sizes())
                 : torch::stable::new_empty(*argument, argument->sizes());
  };
  const Tensor grad_x = gradient(need_x, x), grad_filter = gradient(need_filter, filter),
               grad_pre_gate = gradient(need_pre_gate, pre_gate),
               grad_post_gate = gradient(need_post_gate, post_gate), grad_skip = gradient(need_skip, skip);

  if (!empty && (need_x || need_filter || need_pre_gate || need_post_gate || need_skip)) {
    const Arrays of{axes_of(layout)};
    const Output none;
    const FftConvBackward arrays{of.read_signal(grad_out),
                                 of.read_signal(x),
                                 of.read_filter(filter),
                                 of.read_signal(pre_gate),
                                 of.read_signal(post_gate),
                                 of.read_skip(skip),
                                 need_x ? of.write_signal(grad_x) : none,
                                 need_filter ? of.write_filter(grad_filter) : none,
                                 need_pre_gate ? of.write_signal(grad_pre_gate) : none,
                                 need_post_gate ? of.write_signal(grad_post_gate) : none,
                                 need_skip ? of.write_skip(grad_skip) : none};
    launch(x, kernels().backward_scratch, kernels().backward, call, arrays);
  }
  return {grad_x, grad_filter, grad_pre_gate, grad_post_gate, grad_skip};
}

}  // namespace

#ifndef EQUICONV_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
  m.def(
      "fft_conv(Tensor x, Tensor filter, Tensor? pre_gate, Tensor? post_gate, Tensor? skip, int mode, "
      "int layout) -> Tensor");
  m.def(
      "fft_conv_backward(Tensor grad_out, Tensor x, Tensor filter, Tensor? pre_gate, Tensor? post_gate, "
      "Tensor? skip, int mode, int layout, bool need_x, bool need_filter, bool need_pre_gate, "
      "bool need_post_gate, bool need_skip) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
  m.impl("fft_conv", TORCH_BOX(&fft_conv));
  m.impl("fft_conv_backward", TORCH_BOX(&fft_conv_backward));
}

}  // namespace equiconv::ops
