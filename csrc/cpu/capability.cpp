#include "capability.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace equiconv::cpu {
namespace {

constexpr const char* variable = "EQUICONV_CPU_CAPABILITY";

std::string name(Capability capability) {
  return std::string(capability_names[static_cast<std::size_t>(capability)]);
}

struct Choice {
  Capability capability = Capability::baseline;
  std::string problem;
};

Choice choose() {
  const Capability detected = detected_capability();
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == '\0') return {detected, ""};
  const std::string start = std::string("equiconv: ") + variable;
  const auto found = std::find(capability_names.begin(), capability_names.end(), value);
  if (found == capability_names.end())
    return {detected, start + " must be baseline, avx2, avx512, avx512_bf16 or amx, but is " + value};
  const auto wanted = static_cast<Capability>(found - capability_names.begin());
  if (wanted > detected)
    return {detected, start + " is " + value + ", but this machine has only " + name(detected)};
  return {wanted, ""};
}

#if defined(__x86_64__)
// The matrix unit's state is large, so a process has to ask for it: for all its threads, and as often as it
// likes.
bool has_amx() {
#if defined(__linux__)
  constexpr unsigned tile = 1u << 24, bf16 = 1u << 22, avx512_bf16 = 1u << 5;
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & (tile | bf16)) != (tile | bf16))
    return false;
  if (!__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) || !(eax & avx512_bf16)) return false;
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

// AMD's dot products of bfloat16 are as fast as fused multiply-adds (measured on a Zen 5). On a Sapphire
// Rapids, which has them too, one takes as long as four.
bool has_fast_dot_products() { return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512bf16"); }
#endif

// When loaded, so that a later change of the environment cannot part the kernels from what build_info() says.
const Choice choice = choose();

}  // namespace

Capability detected_capability() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")))
    return Capability::baseline;
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")))
    return Capability::avx2;
  if (has_amx()) return Capability::amx;
  return has_fast_dot_products() ? Capability::avx512_bf16 : Capability::avx512;
#else
  return Capability::baseline;
#endif
}

Capability cpu_capability() {
  if (!choice.problem.empty()) throw std::runtime_error(choice.problem);
  return choice.capability;
}

}  // namespace equiconv::cpu
