#include "capability.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

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
    return {detected, start + " must be baseline, avx2 or avx512, but is " + value};
  const auto wanted = static_cast<Capability>(found - capability_names.begin());
  if (wanted > detected)
    return {detected, start + " is " + value + ", but this machine has only " + name(detected)};
  return {wanted, ""};
}

// When loaded, so that a later change of the environment cannot part the kernels from what build_info() says.
const Choice choice = choose();

}  // namespace

Capability detected_capability() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")))
    return Capability::baseline;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return Capability::avx512;
  return Capability::avx2;
#else
  return Capability::baseline;
#endif
}

Capability cpu_capability() {
  if (!choice.problem.empty()) throw std::runtime_error(choice.problem);
  return choice.capability;
}

}  // namespace equiconv::cpu
