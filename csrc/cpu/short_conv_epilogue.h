// What short_conv does with its sums, and the gradient of that, on vectors.
#pragma once
#include "../short_conv.h"
#include "activations.h"
#include "simd.h"

namespace {

using equiconv::Epilogue;

// The kinds that kernels are compiled for; which activation it is they ask for each vector.
enum class Kind { plain, activated, gated };

template <Kind K>
constexpr int kStreams = K == Kind::gated ? 3 : 1;
template <Kind K>
constexpr int kResults = K == Kind::gated ? 2 : 1;

// p: a vector of each stream. Leaves the results in its first places.
template <Kind K, class T>
EQUICONV_INLINE void finish(Epilogue epilogue, Vec<T>* p) {
  if constexpr (K == Kind::gated) p[1] *= p[2];
  if constexpr (K == Kind::activated)
    p[0] = epilogue == Epilogue::silu ? Activated<T, Activation::silu>()(p[0]).value
                                      : Activated<T, Activation::gelu>()(p[0]).value;
}

// The gradients of the sums p, in their place; grads: those of the results.
template <Kind K, class T>
EQUICONV_INLINE void pull(Epilogue epilogue, const Vec<T>* grads, Vec<T>* p) {
  if constexpr (K == Kind::plain) p[0] = grads[0];
  if constexpr (K == Kind::activated)
    p[0] = grads[0] * (epilogue == Epilogue::silu ? Activated<T, Activation::silu>()(p[0]).next
                                                  : Activated<T, Activation::gelu>()(p[0]).next);
  if constexpr (K == Kind::gated) {
    const Vec<T> x1 = p[1];
    p[0] = grads[0];
    p[1] = grads[1] * p[2];
    p[2] = grads[1] * x1;
  }
}

}  // namespace
