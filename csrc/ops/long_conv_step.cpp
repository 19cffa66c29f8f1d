// The binding of long_conv_step: schemas, argument checks, allocation. Compiled once for each device.
#include "../long_conv_step.h"

#include <torch/csrc/stable/library.h>

#include "signal.h"

#ifdef EQUICONV_CUDA
#include "../cuda/long_conv_step.h"
#include "device_cuda.h"
#else
#include "../cpu/long_conv_step.h"
#include "device_cpu.h"
#endif

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "long_conv_step";

int lanes_of_line(const Tensor& t) {
  return kLineBytes / (t.scalar_type() == ScalarType::Double ? int(sizeof(double)) : int(sizeof(float)));
}

void check_widest(std::int64_t widest) {
  if (widest && (widest < kBlock || widest > kMaxLength || (widest & (widest - 1))))
    refuse(kOp, ": widest must be 0 or a power of two from ", kBlock, " to ", kMaxLength, ", but is ",
           widest);
}

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::long_conv_step_workspace) step_scratch = cuda::long_conv_step_workspace;
  decltype(&cuda::long_conv_step) step = cuda::long_conv_step;
  decltype(&cuda::long_conv_step_filter_workspace) filter_scratch = cuda::long_conv_step_filter_workspace;
  decltype(&cuda::long_conv_step_filter) filter = cuda::long_conv_step_filter;
};
Kernels kernels() { return {}; }
std::int64_t values_of(const StepFilter& size, int lanes) { return size.values_on_cuda(lanes); }
#else
const cpu::LongConvStepKernels& kernels() { return cpu::long_conv_step(); }
std::int64_t values_of(const StepFilter& size, int lanes) { return size.values(lanes); }
#endif

// ---- checks ----------------------------------------------------------------------------------------

// What the steps keep: float32 or float64, contiguous.
void check_kept(const char* name, const Tensor& t) {
  if (t.scalar_type() != ScalarType::Float && t.scalar_type() != ScalarType::Double)
    refuse(kOp, ": ", name, " must be float32 or float64, but is ", text(t.scalar_type()));
  if (!t.is_contiguous()) refuse(kOp, ": ", name, " must be contiguous, but has strides ", text(t.strides()));
}

// Sizes of buffer and filter, for samples of so many channels that have `samples` filters side by side.
LongConvStep check_state(const Tensor& buffer, const Tensor& filter, std::int64_t widest,
                         std::int64_t position, std::int64_t tokens, std::int64_t channels) {
  check_kept("buffer", buffer);
  check_kept("filter", filter);
  if (filter.scalar_type() != buffer.scalar_type())
    refuse(kOp, ": filter must have the dtype of buffer, ", text(buffer.scalar_type()), ", but has ",
           text(filter.scalar_type()));
  if (!(filter.device() == buffer.device()))
    refuse(kOp, ": filter must be on the device of buffer, ", text(buffer.device()), ", but is on ",
           text(filter.device()));
  check_rank(kOp, "buffer", buffer, 3, "(B, rows, channels)");
  check_widest(widest);
  LongConvStep n{};
  n.filter = {channels, widest};
  n.batch = buffer.size(0), n.rows = buffer.size(1);
  n.samples = 1, n.channels = channels, n.tokens = tokens, n.position = position;
  if (n.rows % kBlock) refuse(kOp, ": buffer must have a multiple of ", kBlock, " rows, but has ", n.rows);
  if (n.rows > kBlock && !widest)
    refuse(kOp, ": widest must be at least ", kBlock, " where buffer has ", n.rows, " rows, but is 0");
  if (const std::int64_t pitch = n.filter.pitch(lanes_of_line(buffer)); buffer.size(2) != pitch)
    refuse(kOp, ": buffer must have ", pitch, " channels, an odd number of whole lines, but has ",
           buffer.size(2));
  if (const std::int64_t values = values_of(n.filter, lanes_of_line(buffer));
      filter.dim() != 1 || filter.size(0) != values)
    refuse(kOp, ": filter must be what long_conv_step_filter returns for ", channels, " channels, of shape (",
           values, ",), but has shape ", text(filter.sizes()));
  if (position < 0 || position > n.rows - tokens)
    refuse(kOp, ": position must be 0 to ", n.rows - tokens, ", so that the tokens have rows, but is ",
           position);
  return n;
}

// ---- the ops -------------------------------------------------------------------------------------------

Tensor long_conv_step(const Tensor& x, const MaybeTensor& pre_gate, const MaybeTensor& post_gate,
                      const Tensor& buffer, const Tensor& filter, std::int64_t widest,
                      std::int64_t position) {
  const Arrays arrays{axes_of(kOp, 1)};
  check_x(kOp, x, arrays.axes);
  check_signal(kOp, "pre_gate", pre_gate, x);
  check_signal(kOp, "post_gate", post_gate, x);
  const std::int64_t batch = x.size(0), channels = x.size(2);
  check_rank(kOp, "buffer", buffer, 3, "(B, rows, channels)");
  const ScalarType kept = is_half(x.scalar_type()) ? ScalarType::Float : x.scalar_type();
  if (buffer.scalar_type() != kept)
    refuse(kOp, ": buffer must have the dtype that x is computed in, ", text(kept), ", but has ",
           text(buffer.scalar_type()));
  if (!(buffer.device() == x.device()))
    refuse(kOp, ": buffer must be on the device of x, ", text(x.device()), ", but is on ",
           text(buffer.device()));
  if (buffer.size(0) != batch && buffer.size(0) != 1)
    refuse(kOp, ": buffer must have the batch of x, ", batch, ", or 1, for a filter each, but has ",
           buffer.size(0));
  const bool together = buffer.size(0) == batch;
  LongConvStep n =
      check_state(buffer, filter, widest, position, x.size(1), together ? channels : batch * channels);
  n.samples = together ? 1 : batch, n.channels = channels;
  const Tensor y = torch::stable::new_empty(x, x.sizes());
  if (batch == 0 || channels == 0 || n.tokens == 0) return y;
  launch(x, kernels().step_scratch, kernels().step, n,
         LongConvStepTensors{arrays.read_signal(x), arrays.read_signal(pre_gate),
                             arrays.read_signal(post_gate), arrays.write_signal(y), dtype_of(buffer),
                             buffer.mutable_data_ptr(), filter.const_data_ptr()});
  return y;
}

void long_conv_step_square(const Tensor& buffer, const Tensor& filter, std::int64_t channels,
                           std::int64_t widest, std::int64_t position) {
  const LongConvStep n = check_state(buffer, filter, widest, position, 0, channels);
  if (n.batch == 0 || channels == 0) return;
  launch(buffer, kernels().step_scratch, kernels().step, n,
         LongConvStepTensors{
             {}, {}, {}, {}, dtype_of(buffer), buffer.mutable_data_ptr(), filter.const_data_ptr()});
}

Tensor long_conv_step_filter(const Tensor& taps, std::int64_t widest) {
  check_rank(kOp, "taps", taps, 2, "(D, Lf)");
  check_kept("taps", taps);
  check_widest(widest);
  const StepFilter size{taps.size(0), widest};
  const std::int64_t values = values_of(size, lanes_of_line(taps));
  const Tensor prepared = torch::stable::new_zeros(taps, {&values, 1});
  if (taps.size(0) == 0 || taps.size(1) == 0) return prepared;
  launch(
      taps, kernels().filter_scratch, kernels().filter, size,
      StepTaps{array(taps.const_data_ptr(), taps, kNone, 0, 1), taps.size(1), prepared.mutable_data_ptr()});
  return prepared;
}

}  // namespace

#ifndef EQUICONV_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
  m.def(
      "long_conv_step(Tensor x, Tensor? pre_gate, Tensor? post_gate, Tensor(a!) buffer, Tensor filter, "
      "int widest, int position) -> Tensor");
  m.def(
      "long_conv_step_square(Tensor(a!) buffer, Tensor filter, int channels, int widest, int position) -> "
      "()");
  m.def("long_conv_step_filter(Tensor taps, int widest) -> Tensor");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
  m.impl("long_conv_step", TORCH_BOX(&long_conv_step));
  m.impl("long_conv_step_square", TORCH_BOX(&long_conv_step_square));
  m.impl("long_conv_step_filter", TORCH_BOX(&long_conv_step_filter));
}

}  // namespace equiconv::ops
