// Functions of one thread: test_emulator_intrinsics.py has the plain model of each, in the same order.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "launch.cuh"

using equiconv::cuda::Launch;

namespace {

// out: (functions, n), one row a function
template <class T, int N>
__device__ void show(T* out, int i, int n, const T (&results)[N]) {
  for (int k = 0; k < N; ++k) out[k * n + i] = results[k];
}

__global__ void floats(const float* x, const float* y, float* out, int n) {
  const int i = int(threadIdx.x);
  if (i >= n) return;
  const float a = x[i], b = y[i], positive = fabsf(a);
  float sine, cosine, sine_pi, cosine_pi;
  __sincosf(a, &sine, &cosine);
  sincospif(a, &sine_pi, &cosine_pi);
  const float results[] = {rsqrtf(positive),
                           __frsqrt_rn(positive),
                           __fsqrt_rn(positive),
                           __frcp_rn(a),
                           __expf(a),
                           __exp10f(a),
                           __logf(positive),
                           __log2f(positive),
                           __log10f(positive),
                           __powf(positive, b),
                           __tanhf(a),
                           __sinf(a),
                           __cosf(a),
                           sine,
                           cosine,
                           sine_pi,
                           cosine_pi,
                           sinpif(a),
                           cospif(a),
                           __saturatef(a),
                           __fdividef(a, b),
                           __fadd_rn(a, b),
                           __fsub_rn(a, b),
                           __fmul_rn(a, b),
                           __fdiv_rn(a, b),
                           __fmaf_rn(a, b, 0.1f),
                           fmaf(a, b, 0.1f),
                           fminf(a, b),
                           fmaxf(a, b),
                           min(a, b),
                           max(a, b),
                           tanhf(a),
                           erff(a),
                           expf(a)};
  show(out, i, n, results);
}

__global__ void doubles(const double* x, const double* y, double* out, int n) {
  const int i = int(threadIdx.x);
  if (i >= n) return;
  const double a = x[i], b = y[i], positive = fabs(a);
  double sine_pi, cosine_pi;
  sincospi(a, &sine_pi, &cosine_pi);
  const double results[] = {rsqrt(positive),
                            sine_pi,
                            cosine_pi,
                            sinpi(a),
                            cospi(a),
                            __dadd_rn(a, b),
                            __dsub_rn(a, b),
                            __dmul_rn(a, b),
                            __ddiv_rn(a, b),
                            __dsqrt_rn(positive),
                            __fma_rn(a, b, 0.1),
                            min(a, b),
                            max(a, b),
                            double(__double2float_rn(a)),
                            __longlong_as_double(__double_as_longlong(a))};
  show(out, i, n, results);
}

// Out of range they saturate, of NaN they make 0.
__global__ void to_integers(const float* x, int* out, int n) {
  const int i = int(threadIdx.x);
  if (i >= n) return;
  const float a = x[i];
  const int results[] = {__float2int_rn(a),          __float2int_rz(a),          __float2int_rd(a),
                         __float2int_ru(a),          int(__float2uint_rn(a)),    int(__float2uint_rz(a)),
                         __double2int_rn(double(a)), __double2int_rz(double(a)), __float_as_int(a),
                         int(__float_as_uint(a))};
  show(out, i, n, results);
}

__global__ void from_integers(const unsigned* x, double* out, int n) {
  const int i = int(threadIdx.x);
  if (i >= n) return;
  const unsigned a = x[i];
  const double results[] = {double(__int2float_rn(int(a))), double(__uint2float_rn(a)),
                            __int2double_rn(int(a)), double(__int_as_float(int(a))),
                            double(__uint_as_float(a))};
  show(out, i, n, results);
}

__global__ void bits(const unsigned* x, const unsigned* y, std::uint64_t* out, int n) {
  const int i = int(threadIdx.x);
  if (i >= n) return;
  const unsigned a = x[i], b = y[i];
  const std::uint64_t wide = std::uint64_t(a) << 32 | b;
  const std::uint64_t results[] = {std::uint64_t(__popc(a)),
                                   std::uint64_t(__popcll(wide)),
                                   std::uint64_t(__clz(int(a))),
                                   std::uint64_t(__clzll(static_cast<long long>(wide))),
                                   std::uint64_t(__ffs(int(a))),
                                   std::uint64_t(__ffsll(static_cast<long long>(wide))),
                                   __brev(a),
                                   __brevll(wide),
                                   std::uint64_t(unsigned(__mulhi(int(a), int(b)))),
                                   __umulhi(a, b),
                                   __funnelshift_l(a, b, b & 63u),
                                   __funnelshift_r(a, b, b & 63u),
                                   __byte_perm(a, b, b & 0xffffu),
                                   min(a, b),
                                   max(a, b)};
  show(out, i, n, results);
}

// Packed pairs of 16 bits; in: (n, 2) floats, results as bits. A kernel reads and writes them by words.
template <class Pair, class F>
__device__ std::uint32_t word(F f) {
  const Pair pair = f();
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__global__ void packed_bfloat16(const float2* x, const float2* y, std::uint32_t* out, int n) {
  const int i = int(threadIdx.x);
  if (i >= n) return;
  using Pair = __nv_bfloat162;
  const float2 a = x[i], b = y[i];
  const Pair p = __floats2bfloat162_rn(a.x, a.y), q = __float22bfloat162_rn(b);
  const float2 back = __bfloat1622float2(p);
  const std::uint32_t results[] = {
      word<Pair>([&] { return p; }),
      word<Pair>([&] { return q; }),
      word<Pair>([&] { return __float2bfloat162_rn(a.x); }),
      word<Pair>([&] { return __halves2bfloat162(q.x, p.y); }),
      word<Pair>([&] { return make_bfloat162(q.y, p.x); }),
      word<Pair>([&] { return __bfloat162bfloat162(p.y); }),
      word<Pair>([&] { return __lows2bfloat162(p, q); }),
      word<Pair>([&] { return __highs2bfloat162(p, q); }),
      word<Pair>([&] { return __hadd2(p, q); }),
      word<Pair>([&] { return __hmul2(p, q); }),
      word<Pair>([&] { return __hfma2(p, q, p); }),
      word<Pair>([&] { return __hmax2(p, q); }),
      __float_as_uint(back.x),
      __float_as_uint(back.y),
      __float_as_uint(__low2float(p)),
      __float_as_uint(__high2float(p)),
      __float_as_uint(float(__low2bfloat16(q))),
      __float_as_uint(float(__high2bfloat16(q))),
      __float_as_uint(__bfloat162float(__hfma(p.x, q.x, q.y))),
      std::uint32_t(__bfloat16_as_ushort(p.x)),
      __float_as_uint(__bfloat162float(__ushort_as_bfloat16(__bfloat16_as_ushort(p.y))))};
  show(out, i, n, results);
}
__global__ void packed_float16(const float2* x, const float2* y, std::uint32_t* out, int n) {
  const int i = int(threadIdx.x);
  if (i >= n) return;
  using Pair = __half2;
  const float2 a = x[i], b = y[i];
  const Pair p = __floats2half2_rn(a.x, a.y), q = __float22half2_rn(b);
  const float2 back = __half22float2(p);
  const std::uint32_t results[] = {word<Pair>([&] { return p; }),
                                   word<Pair>([&] { return q; }),
                                   word<Pair>([&] { return __float2half2_rn(a.x); }),
                                   word<Pair>([&] { return __halves2half2(q.x, p.y); }),
                                   word<Pair>([&] { return make_half2(q.y, p.x); }),
                                   word<Pair>([&] { return __half2half2(p.y); }),
                                   word<Pair>([&] { return __lows2half2(p, q); }),
                                   word<Pair>([&] { return __highs2half2(p, q); }),
                                   word<Pair>([&] { return __hadd2(p, q); }),
                                   word<Pair>([&] { return __hmul2(p, q); }),
                                   word<Pair>([&] { return __hfma2(p, q, p); }),
                                   word<Pair>([&] { return __hmax2(p, q); }),
                                   __float_as_uint(back.x),
                                   __float_as_uint(back.y),
                                   __float_as_uint(__low2float(p)),
                                   __float_as_uint(__high2float(p)),
                                   __float_as_uint(float(__low2half(q))),
                                   __float_as_uint(float(__high2half(q))),
                                   __float_as_uint(__half2float(__hfma(p.x, q.x, q.y))),
                                   std::uint32_t(__half_as_ushort(p.x)),
                                   __float_as_uint(__half2float(__ushort_as_half(__half_as_ushort(p.y))))};
  show(out, i, n, results);
}

// 16 bytes through every load and store with a hint; a table of a thread's own; out: (8, n)
__global__ void __launch_bounds__(64, 2) hints(const float4* __restrict__ in, float4* __restrict__ out) {
  const int i = int(threadIdx.x), n = int(blockDim.x);
  float4 mine[8];
#pragma unroll
  for (auto& v : mine) v = make_float4(0, 0, 0, 0);
  mine[0] = __ldg(&in[i]), mine[1] = __ldca(&in[i]), mine[2] = __ldcg(&in[i]), mine[3] = __ldcs(&in[i]);
  mine[4] = __ldlu(&in[i]), mine[5] = __ldcv(&in[i]);
  const float2 half = __ldg(reinterpret_cast<const float2*>(in) + 2 * i);
  mine[6] = make_float4(half.x, half.y, __ldg(&in[i].z), in[i].w);
  mine[7] = in[i];
  out[i] = mine[0], out[5 * n + i] = mine[5], out[6 * n + i] = mine[6], out[7 * n + i] = mine[7];
  __stcg(&out[n + i], mine[1]), __stcs(&out[2 * n + i], mine[2]);
  __stwb(&out[3 * n + i], mine[3]), __stwt(&out[4 * n + i], mine[4]);
}

// What a block may have of shared memory. out: (threads)
__global__ void large(float* out, int floats) {
  auto* s = reinterpret_cast<float4*>(equiconv::cuda::dynamic_shared());
  const int t = int(threadIdx.x), n = int(blockDim.x);
  for (int i = t; i < floats / 4; i += n) s[i] = make_float4(float(i), 1, 2, 3);
  __syncthreads();
  out[t] = s[floats / 4 - 1 - t].x;
}

__global__ void clocks(long long* out) {
  const long long start = clock64();
  __nanosleep(100);
  __threadfence_block(), __threadfence_system();
  out[threadIdx.x] = clock64() - start;
}

}  // namespace

extern "C" {
int run_floats(const float* x, const float* y, float* out, int n) {
  return Launch{dim3(1), dim3(256), 0}(floats, x, y, out, n);
}
int run_doubles(const double* x, const double* y, double* out, int n) {
  return Launch{dim3(1), dim3(256), 0}(doubles, x, y, out, n);
}
int run_to_integers(const float* x, int* out, int n) {
  return Launch{dim3(1), dim3(256), 0}(to_integers, x, out, n);
}
int run_from_integers(const unsigned* x, double* out, int n) {
  return Launch{dim3(1), dim3(256), 0}(from_integers, x, out, n);
}
int run_bits(const unsigned* x, const unsigned* y, std::uint64_t* out, int n) {
  return Launch{dim3(1), dim3(256), 0}(bits, x, y, out, n);
}
int run_packed_bfloat16(const float2* x, const float2* y, std::uint32_t* out, int n) {
  return Launch{dim3(1), dim3(256), 0}(packed_bfloat16, x, y, out, n);
}
int run_packed_float16(const float2* x, const float2* y, std::uint32_t* out, int n) {
  return Launch{dim3(1), dim3(256), 0}(packed_float16, x, y, out, n);
}
int run_hints(const float4* in, float4* out) { return Launch{dim3(1), dim3(64), 0}(hints, in, out); }
int run_large(float* out, int floats, bool asks) {
  if (asks) return Launch{dim3(2), dim3(128), std::size_t(4 * floats)}(large, out, floats);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(2), config.blockDim = dim3(128), config.dynamicSmemBytes = std::size_t(4 * floats);
  return cudaLaunchKernelEx(&config, large, out, floats);
}
int run_clocks(long long* out) { return Launch{dim3(1), dim3(32), 0}(clocks, out); }
}
