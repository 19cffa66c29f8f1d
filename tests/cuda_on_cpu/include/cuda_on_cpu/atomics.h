// Atomics, of every scope: real ones, because blocks may run in two processes.
#pragma once
#include <cuda_on_cpu/kernel.h>
#include <cuda_on_cpu/warp.h>

namespace cuda_on_cpu {

// *p = f(*p); what was there before.
template <class T, class F>
__attribute__((noinline, no_sanitize("thread"))) T update(T* p, F f) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 2, std::uint16_t,
                                  std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;
  const void* const pc = __builtin_return_address(0);
  if (reinterpret_cast<std::uintptr_t>(p) % sizeof(T))
    fail({nullptr, 0, pc}, "atomic on %p, which is no multiple of %zu", static_cast<const void*>(p),
         sizeof(T));
  spin();
  note(Access::atomic, p, sizeof(T), pc);
  auto* at = reinterpret_cast<Bits __attribute__((may_alias))*>(p);
  Bits old_bits = __atomic_load_n(at, __ATOMIC_SEQ_CST), new_bits;
  T old;
  do {
    std::memcpy(static_cast<void*>(&old), &old_bits, sizeof old);
    const T v = f(old);
    std::memcpy(&new_bits, &v, sizeof v);
  } while (!__atomic_compare_exchange_n(at, &old_bits, new_bits, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  return old;
}

// The types of atomicAdd; cuda_fp16.h and cuda_bf16.h add theirs.
template <class T>
inline constexpr bool is_added = is_one_of<T, int, unsigned, unsigned long long, float, double>;
template <class T>
inline constexpr bool is_subtracted = is_one_of<T, int, unsigned>;
template <class T>
inline constexpr bool is_bits = is_one_of<T, int, unsigned, unsigned long long>;
template <class T>
inline constexpr bool is_ordered = is_bits<T> || is_one_of<T, long long>;
template <class T>
inline constexpr bool is_exchanged = is_bits<T> || is_one_of<T, float>;
template <class T>
inline constexpr bool is_compared = is_bits<T> || is_one_of<T, unsigned short>;

template <class T>
using Value = std::type_identity_t<T>;  // converts to what the pointer points to

}  // namespace cuda_on_cpu

// name and its block and system scopes, for the types that have it
#define CUDA_ON_CPU_ATOMIC(name, allowed, result)                      \
  template <class T>                                                   \
    requires allowed<T>                                                \
  inline T name(T* p, cuda_on_cpu::Value<T> v) {                       \
    return cuda_on_cpu::update(p, [v](T old) -> T { return result; }); \
  }                                                                    \
  template <class T>                                                   \
    requires allowed<T>                                                \
  inline T name##_block(T* p, cuda_on_cpu::Value<T> v) {               \
    return name(p, v);                                                 \
  }                                                                    \
  template <class T>                                                   \
    requires allowed<T>                                                \
  inline T name##_system(T* p, cuda_on_cpu::Value<T> v) {              \
    return name(p, v);                                                 \
  }
CUDA_ON_CPU_ATOMIC(atomicAdd, cuda_on_cpu::is_added, T(old + v))
CUDA_ON_CPU_ATOMIC(atomicSub, cuda_on_cpu::is_subtracted, T(old - v))
CUDA_ON_CPU_ATOMIC(atomicMin, cuda_on_cpu::is_ordered, v < old ? v : old)
CUDA_ON_CPU_ATOMIC(atomicMax, cuda_on_cpu::is_ordered, old < v ? v : old)
CUDA_ON_CPU_ATOMIC(atomicAnd, cuda_on_cpu::is_bits, T(old& v))
CUDA_ON_CPU_ATOMIC(atomicOr, cuda_on_cpu::is_bits, T(old | v))
CUDA_ON_CPU_ATOMIC(atomicXor, cuda_on_cpu::is_bits, T(old ^ v))
CUDA_ON_CPU_ATOMIC(atomicExch, cuda_on_cpu::is_exchanged, (void(old), v))
#undef CUDA_ON_CPU_ATOMIC

template <class T>
  requires cuda_on_cpu::is_compared<T>
inline T atomicCAS(T* p, cuda_on_cpu::Value<T> expected, cuda_on_cpu::Value<T> v) {
  return cuda_on_cpu::update(p, [=](T old) { return old == expected ? v : old; });
}
inline unsigned atomicInc(unsigned* p, unsigned last) {
  return cuda_on_cpu::update(p, [last](unsigned old) { return old >= last ? 0 : old + 1; });
}
inline unsigned atomicDec(unsigned* p, unsigned last) {
  return cuda_on_cpu::update(p, [last](unsigned old) { return old == 0 || old > last ? last : old - 1; });
}
