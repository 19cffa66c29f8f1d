// gate: what a kernel is given, on any device. No torch in here.
//
//   y = (x + bias) * act⁽ᵒʳᵈᵉʳ⁾(gate + gate_bias)        act⁽ⁿ⁾ is the n-th derivative of the activation
#pragma once
#include <cstdint>

#include "dtype.h"

namespace equiconv {

enum class Activation : std::int8_t { identity, sigmoid, silu, gelu, relu, tanh };

constexpr int kGateAxes = 16;   // dimensions a tensor may have
constexpr int kGateOrder = 16;  // of the highest derivative that can be asked for

// The sizes of one call, from the outermost axis of the result to the innermost; neighbours that every tensor
// holds as one are one. Biases lie along the axis `channel`, which where there are none is the last one.
struct Gate {
  std::int32_t axes = 0, channel = 0;
  std::int64_t size[kGateAxes] = {};
  Activation activation = Activation::identity;
  std::int32_t order = 0;
};

// A strided array with these axes; strides count elements. Null data: absent.
template <class Void>
struct GateArray {
  Void* data = nullptr;
  DType dtype = DType::float32;
  std::int64_t stride[kGateAxes] = {};
  explicit operator bool() const { return data != nullptr; }
};
using GateInput = GateArray<const void>;
using GateOutput = GateArray<void>;

// One along `channel`.
template <class Void>
struct GateVector {
  Void* data = nullptr;
  DType dtype = DType::float32;
  std::int64_t stride = 0;
  explicit operator bool() const { return data != nullptr; }
};
using GateBias = GateVector<const void>;
using GradGateBias = GateVector<void>;

// x, gate and y have one dtype. A bias has that dtype too, or float32 beside a half type.
struct GateForward {
  GateInput x, gate;
  GateBias bias, gate_bias;
  GateOutput y;
};

// Gradients are written where their data is not null, each in the dtype of what it is a gradient of.
struct GateBackward {
  GateInput grad_out, x, gate;
  GateBias bias, gate_bias;
  GateOutput grad_x, grad_gate;
  GradGateBias grad_bias, grad_gate_bias;
};

// The derivatives of the logistic function s are polynomials in s: (sⁿ)' = n (sⁿ - sⁿ⁺¹). Here those of
// orders n - 1, n and n + 1; coefficient k belongs to sᵏ.
struct LogisticDerivatives {
  static constexpr int kTerms = kGateOrder + 3;
  double coefficient[3][kTerms] = {};

  static LogisticDerivatives around(int n) {
    LogisticDerivatives result;
    double p[kTerms + 1] = {0, 1};
    for (int order = 0; order <= n + 1; ++order) {
      if (order >= n - 1)
        for (int k = 0; k < kTerms; ++k) result.coefficient[order - (n - 1)][k] = p[k];
      for (int k = kTerms - 1; k > 0; --k) {
        p[k + 1] -= k * p[k];
        p[k] *= k;
      }
    }
    return result;
  }
};

}  // namespace equiconv
