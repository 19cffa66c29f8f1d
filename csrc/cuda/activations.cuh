// Activations and their derivatives, of one number. The formulas are those of csrc/cpu/activations.h.
#pragma once
#include <cuda_runtime.h>

#include <cmath>

#include "../gate.h"

namespace equiconv::cuda {

// s(u) and s(-u) = 1 - s(u), from e^-|u|, which cannot overflow.
template <class R>
struct Logistic {
  R s, rest;
  __device__ __forceinline__ explicit Logistic(R u) {
    const R e = exp(-fabs(u)), large = R(1) / (R(1) + e), small = e * large;
    s = u < R(0) ? small : large;
    rest = u < R(0) ? large : small;
  }
};

// Density and P(X <= u) of the normal distribution.
template <class R>
struct Normal {
  R density, below;
  __device__ __forceinline__ explicit Normal(R u) {
    density = R(0.398942280401432678) * exp(R(-0.5) * u * u);
    below = R(0.5) * erfc(R(-0.707106781186547524) * u);
  }
};

template <class R>
struct Values {
  R value, next;
};

// An activation, or its derivative of order n, and the derivative after it.
template <class R>
struct Activated {
  Activation activation;
  int order;
  LogisticDerivatives table;  // around `order`

  Activated(const Gate& size) : activation(size.activation), order(size.order) {
    if (order) table = LogisticDerivatives::around(order);
  }

  __device__ __forceinline__ Values<R> operator()(R u) const { return order ? derivatives(u) : itself(u); }

  // Of order 0, which is short enough to be had for 16 bytes of elements at once.
  __device__ __forceinline__ Values<R> itself(R u) const {
    switch (activation) {
      case Activation::identity: return {u, R(1)};
      case Activation::relu: return {u <= R(0) ? R(0) : u, u <= R(0) ? R(0) : R(1)};  // NaN stays NaN
      case Activation::sigmoid: {
        const Logistic<R> at(u);
        return {at.s, at.s * at.rest};
      }
      case Activation::silu: {
        const Logistic<R> at(u);
        return {u * at.s, at.s * (R(1) + u * at.rest)};
      }
      case Activation::gelu: {
        const Normal<R> at(u);
        return {u * at.below, at.below + u * at.density};
      }
      default: {
        const Logistic<R> at(R(2) * u);
        return {R(tanh(u)), R(4) * at.s * at.rest};
      }
    }
  }

 private:
  __device__ __forceinline__ Values<R> derivatives(R u) const {
    switch (activation) {
      case Activation::identity: return {R(order == 1), R(0)};
      case Activation::relu: return {order == 1 && !(u <= R(0)) ? R(1) : R(0), R(0)};
      case Activation::sigmoid: return {logistic(0, u), logistic(1, u)};
      case Activation::silu:
        return {u * logistic(0, u) + R(order) * logistic(-1, u),
                u * logistic(1, u) + R(order + 1) * logistic(0, u)};
      case Activation::gelu: return normal(u);
      default: {
        const R scale = R(2ll << order);
        return {scale * logistic(0, R(2) * u), R(2) * scale * logistic(1, R(2) * u)};
      }
    }
  }
  __device__ R logistic(int i, R u) const {
    const Logistic<R> at(u);
    if (order + i == 0) return at.s;
    const R s = u < R(0) ? at.s : at.rest;
    R sum = 0;
    for (int k = order + i + 1; k >= 0; --k) sum = sum * s + R(table.coefficient[i + 1][k]);
    return (order + i) % 2 || u < R(0) ? sum : -sum;
  }
  __device__ Values<R> normal(R u) const {
    const Normal<R> at(u);
    R before = 0, hermite = 1, value = at.below + u * at.density, next;
    for (int k = 0;; ++k) {
      const R after = u * hermite - R(k) * before;
      next = (R(k + 2) * hermite - u * after) * at.density;
      if (k % 2) next = -next;
      if (k + 1 == order) return {value, next};
      value = next, before = hermite, hermite = after;
    }
  }
};

}  // namespace equiconv::cuda
