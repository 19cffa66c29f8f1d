// What a binding needs of the CPU: scratch from torch's allocator, and the threads of its pool.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#define EQUICONV_DISPATCH_KEY CPU

namespace equiconv::ops {

// For kernels that are handed a `cpu::Parallel`.
inline void parallel(std::int64_t n, void (*body)(void* context, std::int64_t i), void* context) {
  torch::stable::parallel_for(0, n, 1, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) body(context, i);
  });
}

// kernel(arguments…, scratch, threads, parallel) with scratch_bytes(arguments…, threads) bytes of scratch;
// null for none, as an allocation takes as long as the smallest calls.
template <class ScratchBytes, class Kernel, class... Arguments>
void launch(const torch::stable::Tensor& x, ScratchBytes scratch_bytes, Kernel kernel,
            const Arguments&... arguments) {
  const int threads = static_cast<int>(torch::stable::get_num_threads());
  const std::int64_t bytes = scratch_bytes(arguments..., threads);
  if (bytes == 0) return kernel(arguments..., nullptr, threads, parallel);
  const auto scratch = torch::stable::new_empty(x, {&bytes, 1}, torch::headeronly::ScalarType::Byte);
  kernel(arguments..., scratch.mutable_data_ptr(), threads, parallel);
}

}  // namespace equiconv::ops
