// The types that tensors are stored in.
#pragma once
#include <cstdint>

namespace equiconv {

enum class DType : std::int8_t { float32, float64, bfloat16, float16 };

}  // namespace equiconv
