// What the processor can do, and so which of the compiled kernels run.
#pragma once
#include <array>
#include <string_view>

namespace equiconv::cpu {

enum class Capability { baseline, avx2, avx512, avx512_bf16, amx };  // each includes those before it
inline constexpr std::array<std::string_view, 5> capability_names{"baseline", "avx2", "avx512", "avx512_bf16",
                                                                  "amx"};

// The best capability of this machine.
Capability detected_capability();

// The capability in use: the detected one, or what the environment variable EQUICONV_CPU_CAPABILITY names.
// Fixed when the library is loaded. Throws std::runtime_error if the variable names no capability, or one
// that this machine lacks.
Capability cpu_capability();

}  // namespace equiconv::cpu
