// From the number of a dtype to the type itself.
#pragma once
#include "../dtype.h"
#include "simd.h"

namespace {

using equiconv::DType;

// Calls f with a null pointer of the storage type.
template <class F>
inline void with_storage(DType dtype, F f) {
  switch (dtype) {
    case DType::float32: return f(static_cast<float*>(nullptr));
    case DType::float64: return f(static_cast<double*>(nullptr));
    case DType::bfloat16: return f(static_cast<bfloat16*>(nullptr));
    case DType::float16: return f(static_cast<float16*>(nullptr));
  }
}

// The same for the types that are computed in T only.
template <class T, class F>
inline void with_arithmetic_storage(DType dtype, F f) {
  with_storage(dtype, [&](auto* storage) {
    if constexpr (std::is_same_v<typename Arithmetic<std::remove_pointer_t<decltype(storage)>>::type, T>)
      f(storage);
  });
}

inline std::int64_t bytes_of(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

// Calls f with a zero of the type that a dtype is computed in.
template <class F>
inline auto with_arithmetic(DType dtype, F f) {
  return dtype == DType::float64 ? f(double()) : f(float());
}

}  // namespace
