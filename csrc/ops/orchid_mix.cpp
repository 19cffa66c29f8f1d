// The binding of orchid_mix: schema, argument checks, allocation. Compiled once for each device. The CUDA
// kernels take some lengths only, so there they are ops of their own, and Python chooses between them and a
// composition of other ops.
#include "../orchid_mix.h"

#include <torch/csrc/stable/library.h>

#include <array>
#include <string>
#include <tuple>

#include "signal.h"

#ifdef EQUICONV_CUDA
#include "../cuda/orchid_mix.h"
#include "device_cuda.h"
#else
#include "../cpu/orchid_mix.h"
#include "device_cpu.h"
#endif

namespace equiconv::ops {
namespace {

constexpr const char* kOp = "orchid_mix";

// ---- checks ----------------------------------------------------------------------------------------

// A weight: the dtype of z, or float32 beside a half type.
void check_weight(const char* name, const Tensor& weight, const Tensor& z) {
  const ScalarType have = weight.scalar_type(), want = z.scalar_type();
  if (have != want && !(is_half(want) && have == ScalarType::Float))
    refuse(kOp, ": ", name, " must have the dtype of z, ", text(want), is_half(want) ? ", or float32" : "",
           ", but has ", text(have));
  if (!(weight.device() == z.device()))
    refuse(kOp, ": ", name, " must be on the device of z, ", text(z.device()), ", but is on ",
           text(weight.device()));
}

// One row of `least` to `most` taps for each of so many channels; returns how many taps.
std::int64_t check_taps(const char* name, const char* shape, const Tensor& filter, const Tensor& z,
                        std::int64_t channels, std::int64_t least, std::int64_t most) {
  check_rank(kOp, name, filter, 2, shape);
  check_weight(name, filter, z);
  if (filter.size(0) != channels)
    refuse(kOp, ": ", name, " must have ", channels, " channels beside z of shape ", text(z.sizes()),
           ", but has ", filter.size(0));
  if (filter.size(1) < least || filter.size(1) > most)
    refuse(kOp, ": ", name, " must have ", least, " to ", most, " taps beside z of shape ", text(z.sizes()),
           ", but has ", filter.size(1));
  return filter.size(1);
}

void check_channels(const char* name, const MaybeTensor& weight, const Tensor& z, std::int64_t channels) {
  if (!weight) return;
  check_weight(name, *weight, z);
  if (weight->dim() != 1 || weight->size(0) != channels)
    refuse(kOp, ": ", name, " must have shape (", channels, ",) beside z of shape ", text(z.sizes()),
           ", but has ", text(weight->sizes()));
}

// The tensors that gradients are taken of, in the order of the schema.
struct Arguments {
  const Tensor &z, &short_filter;
  const MaybeTensor& short_bias;
  const Tensor& query_filter;
  const MaybeTensor &query_bias, &key_filter, &key_bias;
  const Tensor& frequency_filter;
  const MaybeTensor &frequency_bias, &filter, &skip;
};
constexpr int kArguments = 11;
constexpr int kZ = 0, kShortFilter = 1, kShortBias = 2, kQueryFilter = 3, kQueryBias = 4, kKeyFilter = 5,
              kKeyBias = 6, kFrequencyFilter = 7, kFrequencyBias = 8, kFilter = 9, kSkip = 10;

ConditionedConv check(const Arguments& a, Axes axes) {
  check_floating(kOp, "z", a.z);
  check_rank(kOp, "z", a.z, 3, axes.channel == 1 ? "(B, 3D, L)" : "(B, L, 3D)");
  const std::int64_t channels = a.z.size(axes.channel), length = a.z.size(axes.position);
  if (length > kMaxLength) refuse(kOp, ": z must have at most ", kMaxLength, " positions, but has ", length);
  if (channels % 3) refuse(kOp, ": z must have three times as many channels as y, but has ", channels);
  ConditionedConv call{a.z.size(0), channels / 3, length, 0, 0, a.key_filter.has_value()};
  check_taps("short_filter", "(3D, W)", a.short_filter, a.z, channels, 1, kMaxTaps);
  check_channels("short_bias", a.short_bias, a.z, channels);
  check_taps("query_filter", "(D, W)", a.query_filter, a.z, call.channels, 1, kMaxTaps);
  check_channels("query_bias", a.query_bias, a.z, call.channels);
  if (a.key_filter) check_taps("key_filter", "(D, W)", *a.key_filter, a.z, call.channels, 1, kMaxTaps);
  else if (a.key_bias) refuse(kOp, ": key_bias must be absent where there is no key_filter, but is there");
  check_channels("key_bias", a.key_bias, a.z, call.channels);
  call.width = check_taps("frequency_filter", "(D, W)", a.frequency_filter, a.z, call.channels, 1,
                          ConditionedConv::kMaxWidth);
  check_channels("frequency_bias", a.frequency_bias, a.z, call.channels);
  if (a.filter)
    call.taps = check_taps("filter", "(D, Lf)", *a.filter, a.z, call.channels,
                           std::min<std::int64_t>(length, 1), std::max<std::int64_t>(length, 1));
  check_channels("skip", a.skip, a.z, call.channels);
  return call;
}

void check_gradient(const Tensor& grad, const Tensor& z, const ConditionedConv& call, Axes axes) {
  std::array<std::int64_t, 3> want{call.batch, call.channels, call.channels};
  want[std::size_t(axes.position)] = call.length;
  if (grad.dim() != 3 || grad.size(0) != want[0] || grad.size(1) != want[1] || grad.size(2) != want[2])
    refuse(kOp, ": grad_out must have the shape of y, (", want[0], ", ", want[1], ", ", want[2],
           "), but has ", text(grad.sizes()));
  if (grad.scalar_type() != z.scalar_type())
    refuse(kOp, ": grad_out must have the dtype of z, ", text(z.scalar_type()), ", but has ",
           text(grad.scalar_type()));
  if (!(grad.device() == z.device()))
    refuse(kOp, ": grad_out must be on the device of z, ", text(z.device()), ", but is on ",
           text(grad.device()));
}

// ---- the ops -------------------------------------------------------------------------------------------

#ifdef EQUICONV_CUDA
struct Kernels {
  decltype(&cuda::orchid_mix_forward_workspace) forward_scratch = cuda::orchid_mix_forward_workspace;
  decltype(&cuda::orchid_mix_backward_workspace) backward_scratch = cuda::orchid_mix_backward_workspace;
  decltype(&cuda::orchid_mix_forward) forward = cuda::orchid_mix_forward;
  decltype(&cuda::orchid_mix_backward) backward = cuda::orchid_mix_backward;
};
Kernels kernels() { return {}; }
const std::string kForward = "orchid_mix_fused", kBackward = "orchid_mix_fused_backward";

// Whether there are kernels for rows like those of z, on its device; of no other length they take a call.
bool orchid_mix_fuses(const Tensor& z, std::int64_t layout) {
  const Axes axes = axes_of(kOp, layout);
  check_floating(kOp, "z", z);
  check_rank(kOp, "z", z, 3, axes.channel == 1 ? "(B, 3D, L)" : "(B, L, 3D)");
  const torch::stable::accelerator::DeviceGuard guard(z.get_device_index());
  return cuda::orchid_mix_fuses(z.size(axes.position), dtype_of(z));
}
#else
const cpu::OrchidMixKernels& kernels() { return cpu::orchid_mix(); }
const std::string kForward = "orchid_mix", kBackward = "orchid_mix_backward";
#endif

bool is_empty(const ConditionedConv& call) {
  return call.batch == 0 || call.channels == 0 || call.length == 0;
}

// From the first of a third's channels on, of an array of three times as many.
template <class Void>
Array<Void> third(Array<Void> a, int i, std::int64_t channels) {
  using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;
  if (a)
    a.data = static_cast<Byte*>(a.data) + i * channels * a.channel *
                                              (a.dtype == DType::float64   ? 8
                                               : a.dtype == DType::float32 ? 4
                                                                           : 2);
  return a;
}

OrchidMix mix_of(const Arguments& a, const ConditionedConv& call, const Arrays& of, bool circular) {
  const auto make = [](const Input& filter, const Input& bias, std::int64_t taps, std::int64_t ahead) {
    return MixShort{filter, bias, taps, ahead, {}, {}};
  };
  const auto stream = [&](int i) {
    return make(third(of.read_filter(a.short_filter), i, call.channels),
                third(of.read_skip(a.short_bias), i, call.channels), a.short_filter.size(1), 0);
  };
  const auto condition = [&](const Tensor& filter, const MaybeTensor& bias) {
    return make(of.read_filter(filter), of.read_skip(bias), filter.size(1), filter.size(1) / 2);
  };
  OrchidMix mix{};
  mix.of[OrchidMix::kPostGate] = stream(0);
  mix.of[OrchidMix::kPreGate] = stream(1);
  mix.of[OrchidMix::kX] = stream(2);
  mix.of[OrchidMix::kQuery] = condition(a.query_filter, a.query_bias);
  if (a.key_filter) mix.of[OrchidMix::kKey] = condition(*a.key_filter, a.key_bias);
  mix.circular = circular;
  return mix;
}

Tensor orchid_mix(const Tensor& z, const Tensor& short_filter, const MaybeTensor& short_bias,
                  const Tensor& query_filter, const MaybeTensor& query_bias, const MaybeTensor& key_filter,
                  const MaybeTensor& key_bias, const Tensor& frequency_filter,
                  const MaybeTensor& frequency_bias, const MaybeTensor& filter, const MaybeTensor& skip,
                  bool circular, std::int64_t layout) {
  const Axes axes = axes_of(kOp, layout);
  const Arguments a{z,        short_filter,     short_bias,     query_filter, query_bias, key_filter,
                    key_bias, frequency_filter, frequency_bias, filter,       skip};
  const ConditionedConv call = check(a, axes);
  std::array<std::int64_t, 3> shape{call.batch, call.channels, call.channels};
  shape[std::size_t(axes.position)] = call.length;
  const Tensor y = torch::stable::new_empty(z, {shape.data(), shape.size()});
  if (is_empty(call)) return y;
  const Arrays of{axes};
  const Input in = of.read_signal(z);
  launch(z, kernels().forward_scratch, kernels().forward, call,
         ConditionedConvForward{third(in, 2, call.channels),
                                {},
                                {},
                                of.read_filter(frequency_filter),
                                of.read_skip(frequency_bias),
                                of.read_filter(filter),
                                third(in, 1, call.channels),
                                in,
                                of.read_skip(skip),
                                of.write_signal(y)},
         mix_of(a, call, of, circular));
  return y;
}

// Each gradient that is needed, like its argument; in the place of any other a tensor of shape (0,).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
orchid_mix_backward(const Tensor& grad_out, const Tensor& z, const Tensor& short_filter,
                    const MaybeTensor& short_bias, const Tensor& query_filter, const MaybeTensor& query_bias,
                    const MaybeTensor& key_filter, const MaybeTensor& key_bias,
                    const Tensor& frequency_filter, const MaybeTensor& frequency_bias,
                    const MaybeTensor& filter, const MaybeTensor& skip, bool circular, std::int64_t layout,
                    bool need_z, bool need_short_filter, bool need_short_bias, bool need_query_filter,
                    bool need_query_bias, bool need_key_filter, bool need_key_bias,
                    bool need_frequency_filter, bool need_frequency_bias, bool need_filter, bool need_skip) {
  const Axes axes = axes_of(kOp, layout);
  const Arguments a{z,        short_filter,     short_bias,     query_filter, query_bias, key_filter,
                    key_bias, frequency_filter, frequency_bias, filter,       skip};
  const ConditionedConv call = check(a, axes);
  check_gradient(grad_out, z, call, axes);

  const std::array<MaybeTensor, kArguments> tensors{
      z,        short_filter,     short_bias,     query_filter, query_bias, key_filter,
      key_bias, frequency_filter, frequency_bias, filter,       skip};
  std::array<bool, kArguments> needs{
      need_z,          need_short_filter, need_short_bias,       need_query_filter,   need_query_bias,
      need_key_filter, need_key_bias,     need_frequency_filter, need_frequency_bias, need_filter,
      need_skip};
  const bool empty = is_empty(call);
  bool any = false;
  std::array<MaybeTensor, kArguments> grads;
  for (std::size_t i = 0; i < kArguments; ++i) {
    needs[i] &= tensors[i].has_value();
    any |= needs[i];
    grads[i] = gradient_of(tensors[i], needs[i], empty, z);
  }

  if (!empty && any) {
    const Arrays of{axes};
    const auto write = [&](int i, auto writer) { return needs[i] ? writer(*grads[i]) : Output{}; };
    const auto signal = [&](const Tensor& t) { return of.write_signal(t); };
    const auto taps = [&](const Tensor& t) { return of.write_filter(t); };
    const auto channel = [&](const Tensor& t) { return of.write_skip(t); };
    const Input in = of.read_signal(z);
    const Output out = write(kZ, signal);
    OrchidMix mix = mix_of(a, call, of, circular);
    const auto give = [&](OrchidMix::Signal s, int filter, int bias, int of_three) {
      mix.of[s].grad_filter = third(write(filter, taps), of_three, call.channels);
      mix.of[s].grad_bias = third(write(bias, channel), of_three, call.channels);
    };
    give(OrchidMix::kPostGate, kShortFilter, kShortBias, 0);
    give(OrchidMix::kPreGate, kShortFilter, kShortBias, 1);
    give(OrchidMix::kX, kShortFilter, kShortBias, 2);
    give(OrchidMix::kQuery, kQueryFilter, kQueryBias, 0);
    give(OrchidMix::kKey, kKeyFilter, kKeyBias, 0);
    launch(z, kernels().backward_scratch, kernels().backward, call,
           ConditionedConvBackward{of.read_signal(grad_out),
                                   third(in, 2, call.channels),
                                   {},
                                   {},
                                   of.read_filter(frequency_filter),
                                   of.read_skip(frequency_bias),
                                   of.read_filter(filter),
                                   third(in, 1, call.channels),
                                   in,
                                   of.read_skip(skip),
                                   third(out, 2, call.channels),
                                   {},
                                   {},
                                   write(kFrequencyFilter, taps),
                                   write(kFrequencyBias, channel),
                                   write(kFilter, taps),
                                   third(out, 1, call.channels),
                                   out,
                                   write(kSkip, channel)},
           mix);
  }
  return std::apply([](const auto&... grad) { return std::make_tuple(*grad...); }, grads);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(equiconv, m)
{
#ifdef EQUICONV_CUDA
  m.def("orchid_mix_fuses(Tensor z, int layout) -> bool");
#endif
  m.def((kForward +
         "(Tensor z, Tensor short_filter, Tensor? short_bias, Tensor query_filter, Tensor? query_bias, "
         "Tensor? key_filter, Tensor? key_bias, Tensor frequency_filter, Tensor? frequency_bias, "
         "Tensor? filter, Tensor? skip, bool circular, int layout) -> Tensor")
            .c_str());
  m.def((kBackward +
         "(Tensor grad_out, Tensor z, Tensor short_filter, Tensor? short_bias, Tensor query_filter, "
         "Tensor? query_bias, Tensor? key_filter, Tensor? key_bias, Tensor frequency_filter, "
         "Tensor? frequency_bias, Tensor? filter, Tensor? skip, bool circular, int layout, bool need_z, "
         "bool need_short_filter, bool need_short_bias, bool need_query_filter, bool need_query_bias, "
         "bool need_key_filter, bool need_key_bias, bool need_frequency_filter, bool need_frequency_bias, "
         "bool need_filter, bool need_skip) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "
         "Tensor, Tensor, Tensor, Tensor)")
            .c_str());
}

STABLE_TORCH_LIBRARY_IMPL(equiconv, EQUICONV_DISPATCH_KEY, m)
{
#ifdef EQUICONV_CUDA
  m.impl("orchid_mix_fuses", TORCH_BOX(&orchid_mix_fuses));
#endif
  m.impl(kForward.c_str(), TORCH_BOX(&orchid_mix));
  m.impl(kBackward.c_str(), TORCH_BOX(&orchid_mix_backward));
}

}  // namespace equiconv::ops
