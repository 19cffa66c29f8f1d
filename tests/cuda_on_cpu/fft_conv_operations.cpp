// The kernels of fft_conv with a number type that counts: how many arithmetic instructions they take, where a
// product that meets a sum is one fused multiply-add, as nvcc contracts it. tests/test_model.py asks.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace {

std::uint64_t operations = 0;

struct Counted;
struct Product {  // not yet an instruction: it may be half of one
  float a, b;
  operator Counted() const;
};

// As wide as a float, so that the launchers take it for one.
struct Counted {
  float value = 0;

  Counted() = default;
  template <class T>
    requires(!std::is_same_v<T, Product> && !std::is_same_v<T, Counted>)
  explicit(!std::is_same_v<T, int>) constexpr Counted(T other) : value(static_cast<float>(other)) {}
  operator float() const { return value; }
  Counted& operator*=(Counted b);
  Counted& operator+=(Counted b);
  Counted& operator-=(Counted b);
  Counted& operator+=(Product b);
};

Counted counted(float value) {
  ++operations;
  return Counted(value);
}
Product::operator Counted() const { return counted(a * b); }
[[maybe_unused]] Product operator*(Counted a, Counted b) { return {a.value, b.value}; }
// Only the factors are made by division, which the model leaves out.
[[maybe_unused]] Counted operator/(Counted a, Counted b) { return Counted(a.value / b.value); }
[[maybe_unused]] Counted operator/(Counted a, int b) { return Counted(a.value / float(b)); }
[[maybe_unused]] Counted operator+(Counted a, Counted b) { return counted(a.value + b.value); }
[[maybe_unused]] Counted operator-(Counted a, Counted b) { return counted(a.value - b.value); }
[[maybe_unused]] Counted operator+(Counted a, Product b) { return counted(a.value + b.a * b.b); }
[[maybe_unused]] Counted operator-(Counted a, Product b) { return counted(a.value - b.a * b.b); }
[[maybe_unused]] Counted operator-(Product a, Counted b) { return counted(a.a * a.b - b.value); }
[[maybe_unused]] Counted operator+(Product a, Product b) { return Counted(a) + b; }
[[maybe_unused]] Counted operator-(Product a, Product b) { return Counted(a) - b; }
[[maybe_unused]] Counted operator-(Counted a) { return Counted(-a.value); }  // an operand's sign is free
Counted& Counted::operator*=(Counted b) { return *this = *this * b; }
Counted& Counted::operator+=(Counted b) { return *this = *this + b; }
Counted& Counted::operator-=(Counted b) { return *this = *this - b; }
Counted& Counted::operator+=(Product b) { return *this = *this + b; }

}  // namespace

#include "../../csrc/cuda/ring_transform.cuh"

namespace {
equiconv::cuda::Complex<Counted> on_circle(Counted half_turns) {
  const auto z = equiconv::cuda::on_circle(half_turns.value);
  return {Counted(z.re), Counted(z.im)};
}
}  // namespace

#include "../../csrc/cuda/fft_conv.cu"

extern "C" {
std::uint64_t fft_conv_operations() { return operations; }
std::int64_t fft_conv_forward_workspace(const equiconv::FftConv* size, const equiconv::FftConvForward* a) {
  return equiconv::cuda::count_workspace<Counted>(*size, *a);
}
std::int64_t fft_conv_backward_workspace(const equiconv::FftConv* size, const equiconv::FftConvBackward* a) {
  return equiconv::cuda::count_workspace<Counted>(*size, *a);
}
int fft_conv_forward(const equiconv::FftConv* size, const equiconv::FftConvForward* a, void* workspace) {
  return equiconv::cuda::launch_all<Counted>(*size, *a, workspace, nullptr);
}
int fft_conv_backward(const equiconv::FftConv* size, const equiconv::FftConvBackward* a, void* workspace) {
  return equiconv::cuda::launch_all<Counted>(*size, *a, workspace, nullptr);
}
}
