// What the bindings of ops on signals (B, D, L) and (B, L, D) share: their checks, and tensors as strided
// arrays.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <optional>

#include "../fft_conv.h"
#include "check.h"

namespace equiconv::ops {

using MaybeTensor = std::optional<Tensor>;

#ifdef EQUICONV_CUDA
constexpr std::int64_t kMaxLength = std::int64_t{1} << 22, kMaxRows = std::int64_t{1} << 31;
#else
constexpr std::int64_t kMaxLength = std::int64_t{1} << 30;
#endif

// Where a signal keeps its channels and positions.
struct Axes {
  int channel, position;
};

inline Axes axes_of(const char* op, std::int64_t layout) {
  if (layout == 0) return {1, 2};
  if (layout == 1) return {2, 1};
  refuse(op, ": layout must be 0 (bdl) or 1 (bld), but is ", layout);
}

// ---- checks ----------------------------------------------------------------------------------------

inline void check_x(const char* op, const Tensor& x, Axes axes) {
  check_floating(op, "x", x);
  check_rank(op, "x", x, 3, axes.channel == 1 ? "(B, D, L)" : "(B, L, D)");
  if (x.size(axes.position) > kMaxLength)
    refuse(op, ": x must have at most ", kMaxLength, " positions, but has ", x.size(axes.position));
#ifdef EQUICONV_CUDA
  const std::int64_t batch = x.size(0), channels = x.size(axes.channel);
  if (channels > 0 && batch > kMaxRows / channels)  // their product might overflow
    refuse(op, ": x must have at most ", kMaxRows, " rows, one for each channel of each sample, but has ",
           batch, " x ", channels);
#endif
}

inline void check_signal(const char* op, const char* name, const MaybeTensor& signal, const Tensor& x) {
  if (!signal) return;
  check_shape(op, name, *signal, x);
  check_kind(op, name, *signal, x);
}

// (D, …) or (B, D, …), of a weight known to have one of these ranks.
inline void check_rows(const char* op, const char* name, const Tensor& weight, std::int64_t batch,
                       std::int64_t channels) {
  if (weight.dim() == 3 && weight.size(0) != batch)
    refuse(op, ": ", name, " must have the batch of x, ", batch, ", but has ", weight.size(0));
  if (weight.size(weight.dim() - 2) != channels)
    refuse(op, ": ", name, " must have the channels of x, ", channels, ", but has ",
           weight.size(weight.dim() - 2));
}

inline void check_skip(const char* op, const MaybeTensor& skip, const Tensor& x, std::int64_t channels) {
  if (!skip) return;
  check_kind(op, "skip", *skip, x, true);
  if (skip->dim() != 1 || skip->size(0) != channels)
    refuse(op, ": skip must have shape (", channels, ",), one for each channel of x, but has ",
           text(skip->sizes()));
}

// ---- tensors as strided arrays -----------------------------------------------------------------------

constexpr int kNone = -1;  // an axis that the tensor does not have: its stride is 0

template <class Void>
Array<Void> array(Void* data, const Tensor& tensor, int batch, int channel, int position) {
  const auto stride = [&](int axis) { return axis == kNone ? 0 : tensor.stride(axis); };
  return {data, dtype_of(tensor), stride(batch), stride(channel), stride(position)};
}

// The three shapes there are, each for reading and for writing: signals; filters and spectra, (D, …) or
// (B, D, …); skip, (D,).
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
  Input read_filter(const MaybeTensor& t) const { return t ? read_filter(*t) : Input{}; }
  Input read_skip(const MaybeTensor& t) const { return t ? skip(t->const_data_ptr(), *t) : Input{}; }
  Output write_signal(const Tensor& t) const { return signal(t.mutable_data_ptr(), t); }
  Output write_filter(const Tensor& t) const { return filter(t.mutable_data_ptr(), t); }
  Output write_skip(const Tensor& t) const { return skip(t.mutable_data_ptr(), t); }
};

// What a backward op returns for an argument: like it, zeros where the call is empty; of shape (0,) where it
// is not needed.
inline Tensor gradient_of(const MaybeTensor& argument, bool need, bool empty, const Tensor& x) {
  const std::int64_t none = 0;
  if (!need) return torch::stable::new_empty(x, {&none, 1});
  return empty ? torch::stable::new_zeros(*argument, argument->sizes())
               : torch::stable::new_empty(*argument, argument->sizes());
}

}  // namespace equiconv::ops
