// Functions of one thread: loads and stores with hints, arithmetic, bits.
#pragma once
#include <cuda_on_cpu/kernel.h>
#include <cmath>
#include <cstdio>

// ---- loads and stores: the hints are about caches
// ----------------------------------------------------------
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
inline T __ldca(const T* p) {
  return *p;
}
template <class T>
inline T __ldlu(const T* p) {
  return *p;
}
template <class T>
inline T __ldcv(const T* p) {
  return *p;
}
template <class T>
inline void __stcs(T* p, std::type_identity_t<T> v) {
  *p = v;
}
template <class T>
inline void __stcg(T* p, std::type_identity_t<T> v) {
  *p = v;
}
template <class T>
inline void __stwb(T* p, std::type_identity_t<T> v) {
  *p = v;
}
template <class T>
inline void __stwt(T* p, std::type_identity_t<T> v) {
  *p = v;
}

// ---- arithmetic: the fast forms are as exact as the host's ------------------------------------------------
inline float rsqrtf(float x) { return float(1.0 / std::sqrt(double(x))); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __log10f(float x) { return std::log10(x); }
inline float __exp10f(float x) { return float(std::pow(10.0, double(x))); }
inline float __tanhf(float x) { return std::tanh(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline void __sincosf(float x, float* s, float* c) { *s = std::sin(x), *c = std::cos(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __saturatef(float x) { return x > 1 ? 1.f : x > 0 ? x : 0.f; }  // NaN becomes 0
inline void sincospif(float x, float* s, float* c) {
  const double a = 3.14159265358979323846 * std::fmod(double(x), 2.0);
  *s = float(std::sin(a)), *c = float(std::cos(a));
}
inline void sincospi(double x, double* s, double* c) {
  const long double a = 3.14159265358979323846L * std::fmod(static_cast<long double>(x), 2.0L);
  *s = double(std::sin(a)), *c = double(std::cos(a));
}
inline float sinpif(float x) {
  float s, c;
  sincospif(x, &s, &c);
  return s;
}
inline float cospif(float x) {
  float s, c;
  sincospif(x, &s, &c);
  return c;
}
inline double sinpi(double x) {
  double s, c;
  sincospi(x, &s, &c);
  return s;
}
inline double cospi(double x) {
  double s, c;
  sincospi(x, &s, &c);
  return c;
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

// ---- conversions: out of range saturates, NaN becomes 0 -------------------------------------------------
namespace cuda_on_cpu {
template <class To, class From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
template <class To>
To saturated(double x) {
  constexpr double least = double(std::is_signed_v<To> ? -0x1p31 : 0),
                   most = std::is_signed_v<To> ? 0x1p31 - 1 : 0x1p32 - 1;
  return std::isnan(x) ? To(0) : To(x < least ? least : x > most ? most : x);
}
}  // namespace cuda_on_cpu
inline int __float2int_rn(float x) { return cuda_on_cpu::saturated<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return cuda_on_cpu::saturated<int>(std::trunc(x)); }
inline int __float2int_rd(float x) { return cuda_on_cpu::saturated<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return cuda_on_cpu::saturated<int>(std::ceil(x)); }
inline unsigned __float2uint_rn(float x) { return cuda_on_cpu::saturated<unsigned>(std::nearbyint(x)); }
inline unsigned __float2uint_rz(float x) { return cuda_on_cpu::saturated<unsigned>(std::trunc(x)); }
inline int __double2int_rn(double x) { return cuda_on_cpu::saturated<int>(std::nearbyint(x)); }
inline int __double2int_rz(double x) { return cuda_on_cpu::saturated<int>(std::trunc(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }
inline unsigned __float_as_uint(float x) { return cuda_on_cpu::bits<unsigned>(x); }
inline int __float_as_int(float x) { return cuda_on_cpu::bits<int>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_cpu::bits<float>(x); }
inline float __int_as_float(int x) { return cuda_on_cpu::bits<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_on_cpu::bits<long long>(x); }
inline double __int2double_rn(int x) { return x; }
inline double __longlong_as_double(long long x) { return cuda_on_cpu::bits<double>(x); }

// ---- integers and bits ------------------------------------------------------------------------------------
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1u) << (31 - i);
  return r;
}
inline unsigned long long __brevll(unsigned long long x) {
  return static_cast<unsigned long long>(__brev(unsigned(x))) << 32 | __brev(unsigned(x >> 32));
}
inline int __mulhi(int a, int b) { return int((static_cast<long long>(a) * b) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return unsigned((static_cast<unsigned long long>(a) * b) >> 32);
}
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned shift) {
  return unsigned(((static_cast<unsigned long long>(hi) << 32 | lo) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned shift) {
  return unsigned((static_cast<unsigned long long>(hi) << 32 | lo) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const unsigned long long both = static_cast<unsigned long long>(y) << 32 | x;
  unsigned r = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned s = selector >> 4 * i & 15u, byte = unsigned(both >> 8 * (s & 7u)) & 255u;
    r |= (s & 8u ? (byte & 128u ? 255u : 0u) : byte) << 8 * i;
  }
  return r;
}

// ---- the rest ---------------------------------------------------------------------------------------------
inline long long clock64() { return static_cast<long long>(__builtin_ia32_rdtsc()); }
[[noreturn]] inline void __trap() { __builtin_trap(); }
