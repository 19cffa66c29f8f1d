// Shim for <cuda_runtime.h>: device intrinsics and the C++ launch API on the host.
#pragma once
#include <cuda_on_cpu.h>
#include <cuda_runtime_api.h>  // NVIDIA's host declarations; cuda_on_cpu.cpp defines what is used
#include <cmath>
#include <cstdio>

template <class... P, class... A>
inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* cfg, void (*kernel)(P...), A&&... a) {
  return cuda_on_cpu::launch_kernel(*cfg, kernel, std::forward<A>(a)...);
}
template <class T>
inline cudaError_t cudaMalloc(T** p, std::size_t n) {
  return ::cudaMalloc(reinterpret_cast<void**>(p), n);
}
template <class... P>
inline cudaError_t cudaFuncSetAttribute(void (*k)(P...), cudaFuncAttribute a, int v) {
  return ::cudaFuncSetAttribute(reinterpret_cast<const void*>(k), a, v);
}

// ---- scalar intrinsics ----------------------------------------------------------------------
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline T __ldcg(const T* p) {
  return *p;
}
template <class T>
inline void __stcs(T* p, T v) {
  *p = v;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __saturatef(float x) { return x < 0 ? 0.f : x > 1 ? 1.f : x; }
inline void sincospif(float x, float* s, float* c) {
  const double a = 3.14159265358979323846 * std::fmod(double(x), 2.0);
  *s = float(std::sin(a)), *c = float(std::cos(a));
}
inline void sincospi(double x, double* s, double* c) {
  const long double a = 3.14159265358979323846L * std::fmod((long double)x, 2.0L);
  *s = double(std::sin(a)), *c = double(std::cos(a));
}
inline unsigned __float_as_uint(float f) {
  unsigned u;
  std::memcpy(&u, &f, 4);
  return u;
}
inline int __float_as_int(float f) {
  int u;
  std::memcpy(&u, &f, 4);
  return u;
}
inline float __uint_as_float(unsigned u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1u) << (31 - i);
  return r;
}
template <class A, class B>
inline std::common_type_t<A, B> min(A a, B b) {
  using C = std::common_type_t<A, B>;
  return C(b) < C(a) ? C(b) : C(a);
}
template <class A, class B>
inline std::common_type_t<A, B> max(A a, B b) {
  using C = std::common_type_t<A, B>;
  return C(a) < C(b) ? C(b) : C(a);
}
