// Refusals: one sentence, before any work. Python sees a ValueError.
#pragma once
#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

#include "../dtype.h"

namespace equiconv::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw std::invalid_argument(sentence.str());
}

// As Python writes it, so that a sentence reads the same whoever says it.
inline std::string text(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::ComplexHalf: return "complex32";
    case ScalarType::ComplexFloat: return "complex64";
    case ScalarType::ComplexDouble: return "complex128";
    case ScalarType::Bool: return "bool";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    default: return torch::headeronly::toString(dtype);
  }
}

inline std::string text(const torch::stable::Device& device) {
  if (device.is_cpu()) return "cpu";
  if (device.is_cuda()) return "cuda:" + std::to_string(device.index());
  return "another device";
}

inline std::string text(torch::headeronly::IntHeaderOnlyArrayRef shape) {
  std::ostringstream out;
  out << '(';
  for (std::size_t i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
  out << (shape.size() == 1 ? ",)" : ")");
  return out.str();
}

inline DType dtype_of(const Tensor& tensor) {  // of the real parts
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
    case ScalarType::ComplexDouble: return DType::float64;
    case ScalarType::BFloat16: return DType::bfloat16;
    case ScalarType::Half: return DType::float16;
    default: return DType::float32;
  }
}

inline bool is_half(ScalarType dtype) { return dtype == ScalarType::BFloat16 || dtype == ScalarType::Half; }

inline void check_floating(const char* op, const char* name, const Tensor& tensor) {
  const ScalarType dtype = tensor.scalar_type();
  if (dtype != ScalarType::Float && dtype != ScalarType::Double && !is_half(dtype))
    refuse(op, ": ", name, " must be float32, float64, bfloat16 or float16, but is ", text(dtype));
}

inline void check_rank(const char* op, const char* name, const Tensor& tensor, int64_t rank,
                       const char* shape) {
  if (tensor.dim() != rank)
    refuse(op, ": ", name, " must be ", shape, ", but has shape ", text(tensor.sizes()));
}

inline void check_shape(const char* op, const char* name, const Tensor& tensor, const Tensor& x) {
  if (!tensor.sizes().equals(x.sizes()))
    refuse(op, ": ", name, " must have the shape of x, ", text(x.sizes()), ", but has ",
           text(tensor.sizes()));
}

// The device of x and its dtype; a weight (`or_float32`) may be float32 beside a half type.
inline void check_kind(const char* op, const char* name, const Tensor& tensor, const Tensor& x,
                       bool or_float32 = false) {
  const ScalarType want = x.scalar_type(), have = tensor.scalar_type();
  const bool weight = or_float32 && is_half(want);
  if (have != want && !(weight && have == ScalarType::Float))
    refuse(op, ": ", name, " must have the dtype of x, ", text(want), weight ? ", or float32" : "",
           ", but has ", text(have));
  if (!(tensor.device() == x.device()))
    refuse(op, ": ", name, " must be on the device of x, ", text(x.device()), ", but is on ",
           text(tensor.device()));
}

}  // namespace equiconv::ops
