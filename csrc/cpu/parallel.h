// How the CPU kernels are given threads.
#pragma once
#include <cstdint>

namespace equiconv::cpu {

// Calls body(context, i) for i in [0, n), in any order, on the threads of the caller's pool.
using Parallel = void (*)(std::int64_t n, void (*body)(void* context, std::int64_t i), void* context);

}  // namespace equiconv::cpu
