// The binding of fft_conv: schema, argument checks, allocation. Compiled once for each device.
#include "../fft_conv.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "signal.h"

#ifdef EQUICONV_CUDA
#include "../cuda/fft_conv.h"
#include "device_cuda.h"
#else
#include "../cpu/fft_conv.h"
#include "device_cpu.h"
#endif

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "fft_conv";

// The schema has mode and layout as ints, numbered as here (python/equiconv/ops/check.py turns names into
// them): torch's stable ABI copies a `str` to the heap at every call and, up to torch 2.13 at least, never
// frees the copy. Exported programs hold the numbers, so they stay.
constexpr const char* kModes[] = {"causal", "bidirectional", "circular"};

Mode mode_of(std::int64_t mode) {
  if (mode < 0 || mode > 2)
    refuse(kOp, ": mode must be 0 (causal), 1 (bidirectional) or 2 (circular), but is ", mode);
  return static_cast<Mode>(mode);
}

// ---- checks ----------------------------------------------------------------------------------------

void check_filter(const Tensor& filter, const Tensor& x, const FftConv& call) {
  if (filter.dim() != 2 && filter.dim() != 3)
    refuse(kOp, ": filter must be (D, Lf) or (B, D, Lf), but has shape ", text(filter.sizes()));
  check_kind(kOp, "filter", filter, x, true);
  check_rows(kOp, "filter", filter, call.batch, call.channels);
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
  const Axes axes = axes_of(kOp, layout);
  check_x(kOp, x, axes);
  const std::int64_t taps = filter.dim() ? filter.size(filter.dim() - 1) : 0;
  const FftConv call{x.size(0), x.size(axes.channel), x.size(axes.position),
                     taps,      mode_value,           filter.dim() == 2};
  check_filter(filter, x, call);
  check_signal(kOp, "pre_gate", pre_gate, x);
  check_signal(kOp, "post_gate", post_gate, x);
  check_skip(kOp, skip, x, call.channels);
  return call;
}

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
  const Arrays of{axes_of(kOp, layout)};
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
  check_signal(kOp, "grad_out", grad_out, x);
  need_pre_gate &= pre_gate.has_value();
  need_post_gate &= post_gate.has_value();
  need_skip &= skip.has_value();

  const bool empty = is_empty(call);
  const Tensor grad_x = gradient_of(x, need_x, empty, x),
               grad_filter = gradient_of(filter, need_filter, empty, x),
               grad_pre_gate = gradient_of(pre_gate, need_pre_gate, empty, x),
               grad_post_gate = gradient_of(post_gate, need_post_gate, empty, x),
               grad_skip = gradient_of(skip, need_skip, empty, x);

  if (!empty && (need_x || need_filter || need_pre_gate || need_post_gate || need_skip)) {
    const Arrays of{axes_of(kOp, layout)};
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
