// The binding of spectral_conv: schema, argument checks, allocation. Compiled once for each device. The CUDA
// kernels take some lengths only, so there they are ops of their own, and Python chooses between them and a
// composition of other ops.
#include "../spectral_conv.h"

#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "signal.h"

#ifdef EQUICONV_CUDA
#include "../cuda/spectral_conv.h"
#include "device_cuda.h"
#else
#include "../cpu/spectral_conv.h"
#include "device_cpu.h"
#endif

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "spectral_conv";

// The schema has layout as an int, as that of fft_conv.

// ---- checks ----------------------------------------------------------------------------------------

void check_spectrum(const Tensor& spectrum, const Tensor& x, const SpectralConv& call) {
  if (spectrum.dim() != 2 && spectrum.dim() != 3)
    refuse(kOp, ": spectrum must be (D, L//2+1) or (B, D, L//2+1), but has shape ", text(spectrum.sizes()));
  const ScalarType dtype = spectrum.scalar_type();
  const bool wide = x.scalar_type() == ScalarType::Double;
  const bool allowed =
      wide ? dtype == ScalarType::ComplexDouble || dtype == ScalarType::Double
           : dtype == ScalarType::ComplexFloat || dtype == ScalarType::Float || is_half(dtype);
  if (!allowed)
    refuse(kOp, ": spectrum must be ",
           wide ? "complex128 or float64" : "complex64, float32, bfloat16 or float16", " beside ",
           text(x.scalar_type()), " x, but is ", text(dtype));
  if (!(spectrum.device() == x.device()))
    refuse(kOp, ": spectrum must be on the device of x, ", text(x.device()), ", but is on ",
           text(spectrum.device()));
  check_rows(kOp, "spectrum", spectrum, call.batch, call.channels);
  if (spectrum.size(spectrum.dim() - 1) != call.frequencies())
    refuse(kOp, ": spectrum must have ", call.frequencies(), " frequencies where the length of x is ",
           call.length, ", but has ", spectrum.size(spectrum.dim() - 1));
}

SpectralConv check(const Tensor& x, const Tensor& spectrum, const MaybeTensor& pre_gate,
                   const MaybeTensor& post_gate, const MaybeTensor& skip, std::int64_t layout) {
  const Axes axes = axes_of(kOp, layout);
  check_x(kOp, x, axes);
  const ScalarType dtype = spectrum.scalar_type();
  const SpectralConv call{x.size(0), x.size(axes.channel), x.size(axes.position), spectrum.dim() == 2,
                          dtype == ScalarType::ComplexFloat || dtype == ScalarType::ComplexDouble};
  check_spectrum(spectrum, x, call);
  check_signal(kOp, "pre_gate", pre_gate, x);
  check_signal(kOp, "post_gate", post_gate, x);
  check_skip(kOp, skip, x, call.channels);
  return call;
}

// ---- the ops -------------------------------------------------------------------------------------------

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::spectral_conv_forward_workspace) forward_scratch = cuda::spectral_conv_forward_workspace;
  decltype(&cuda::spectral_conv_backward_workspace) backward_scratch = cuda::spectral_conv_backward_workspace;
  decltype(&cuda::spectral_conv_forward) forward = cuda::spectral_conv_forward;
  decltype(&cuda::spectral_conv_backward) backward = cuda::spectral_conv_backward;
};
Kernels kernels() { return {}; }
const std::string kForward = "spectral_conv_fused", kBackward = "spectral_conv_fused_backward";

// Whether kernels take rows like those of x, on its device. For lengths that are no power of two there are
// none, and they refuse the call; short rows of neighbouring channels, of which a block reads one number of
// every sector, the cost model has faster by way of a filter in memory.
constexpr std::int64_t kLeastAcrossChannels = 4096;

bool spectral_conv_fuses(const Tensor& x, std::int64_t layout) {
  const Axes axes = axes_of(kOp, layout);
  check_x(kOp, x, axes);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const std::int64_t length = x.size(axes.position);
  if (axes.position == 1 && length < kLeastAcrossChannels) return false;
  return cuda::spectral_conv_fuses(length, dtype_of(x));
}
#else
const cpu::SpectralConvKernels& kernels() { return cpu::spectral_conv(); }
const std::string kForward = "spectral_conv", kBackward = "spectral_conv_backward";
#endif

bool is_empty(const SpectralConv& call) { return call.batch == 0 || call.channels == 0 || call.length == 0; }

Tensor spectral_conv(const Tensor& x, const Tensor& spectrum, const MaybeTensor& pre_gate,
                     const MaybeTensor& post_gate, const MaybeTensor& skip, std::int64_t layout) {
  const SpectralConv call = check(x, spectrum, pre_gate, post_gate, skip, layout);
  const Tensor y = torch::stable::new_empty(x, x.sizes());
  if (is_empty(call)) return y;
  const Arrays of{axes_of(kOp, layout)};
  launch(x, kernels().forward_scratch, kernels().forward, call,
         SpectralConvForward{of.read_signal(x), of.read_filter(spectrum), of.read_signal(pre_gate),
                             of.read_signal(post_gate), of.read_skip(skip), of.write_signal(y)});
  return y;
}

// Each gradient that is needed, like its argument; in the place of any other a tensor of shape (0,).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> spectral_conv_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& spectrum, const MaybeTensor& pre_gate,
    const MaybeTensor& post_gate, const MaybeTensor& skip, std::int64_t layout, bool need_x,
    bool need_spectrum, bool need_pre_gate, bool need_post_gate, bool need_skip) {
  const SpectralConv call = check(x, spectrum, pre_gate, post_gate, skip, layout);
  check_signal(kOp, "grad_out", grad_out, x);
  need_pre_gate &= pre_gate.has_value();
  need_post_gate &= post_gate.has_value();
  need_skip &= skip.has_value();

  const bool empty = is_empty(call);
  const Tensor grad_x = gradient_of(x, need_x, empty, x),
               grad_spectrum = gradient_of(spectrum, need_spectrum, empty, x),
               grad_pre_gate = gradient_of(pre_gate, need_pre_gate, empty, x),
               grad_post_gate = gradient_of(post_gate, need_post_gate, empty, x),
               grad_skip = gradient_of(skip, need_skip, empty, x);

  if (!empty && (need_x || need_spectrum || need_pre_gate || need_post_gate || need_skip)) {
    const Arrays of{axes_of(kOp, layout)};
    const Output none;
    const SpectralConvBackward arrays{of.read_signal(grad_out),
                                      of.read_signal(x),
                                      of.read_filter(spectrum),
                                      of.read_signal(pre_gate),
                                      of.read_signal(post_gate),
                                      of.read_skip(skip),
                                      need_x ? of.write_signal(grad_x) : none,
                                      need_spectrum ? of.write_filter(grad_spectrum) : none,
                                      need_pre_gate ? of.write_signal(grad_pre_gate) : none,
                                      need_post_gate ? of.write_signal(grad_post_gate) : none,
                                      need_skip ? of.write_skip(grad_skip) : none};
    launch(x, kernels().backward_scratch, kernels().backward, call, arrays);
  }
  return {grad_x, grad_spectrum, grad_pre_gate, grad_post_gate, grad_skip};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
#ifdef EQUICONV_CUDA
  m.def("spectral_conv_fuses(Tensor x, int layout) -> bool");
#endif
  m.def((kForward +
         "(Tensor x, Tensor spectrum, Tensor? pre_gate, Tensor? post_gate, Tensor? skip, int layout) "
         "-> Tensor")
            .c_str());
  m.def((kBackward +
         "(Tensor grad_out, Tensor x, Tensor spectrum, Tensor? pre_gate, Tensor? post_gate, Tensor? skip, "
         "int layout, bool need_x, bool need_spectrum, bool need_pre_gate, bool need_post_gate, "
         "bool need_skip) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")
            .c_str());
}

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
#ifdef EQUICONV_CUDA
  m.impl("spectral_conv_fuses", TORCH_BOX(&spectral_conv_fuses));
#endif
  m.impl(kForward.c_str(), TORCH_BOX(&spectral_conv));
  m.impl(kBackward.c_str(), TORCH_BOX(&spectral_conv_backward));
}

}  // namespace equiconv::ops
