// Instructions of one thread, and those of csrc/cuda/ptx.cuh: test_emulator_instructions.py has the tables.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "launch.cuh"
#include "ptx.cuh"

using namespace equiconv::cuda;

namespace {

// a: (32, A), b: (32, A / 2), d: (32, 4), the registers of each lane
template <class T, int A>
__global__ void products(const std::uint32_t* a, const std::uint32_t* b, float* d) {
  const int l = threadIdx.x;
  std::uint32_t x[A], y[A / 2];
  float z[4];
  for (int i = 0; i < A; ++i) x[i] = a[A * l + i];
  for (int i = 0; i < A / 2; ++i) y[i] = b[A / 2 * l + i];
  for (int i = 0; i < 4; ++i) z[i] = d[4 * l + i];
  ptx::mma<T>(z, x, y);
  for (int i = 0; i < 4; ++i) d[4 * l + i] = z[i];
}
// d: (32, 2)
__global__ void products_in_half(const std::uint32_t* a, const std::uint32_t* b, std::uint32_t* d) {
  const int l = threadIdx.x;
  const std::uint32_t x[4] = {a[4 * l], a[4 * l + 1], a[4 * l + 2], a[4 * l + 3]};
  const std::uint32_t y[2] = {b[2 * l], b[2 * l + 1]};
  std::uint32_t z[2] = {d[2 * l], d[2 * l + 1]};
  ptx::mma<__half>(z, x, y);
  d[2 * l] = z[0], d[2 * l + 1] = z[1];
}

// in: (4, 8, 8) of 16 bits; out: (32, Count)
template <int Count, class Order>
__global__ void matrices(const uint4* in, std::uint32_t* out) {
  __shared__ uint4 rows[32];
  const int l = threadIdx.x;
  rows[l] = in[l];
  __syncthreads();
  std::uint32_t r[Count];
  ptx::ldmatrix<Order>(r, &rows[l % (8 * Count)]);
  for (int i = 0; i < Count; ++i) out[Count * l + i] = r[i];
}

// Three groups of one copy each. out: (6, threads, Bytes / 4), seen as in the comments
template <int Bytes>
__global__ void copies(const std::uint32_t* in, std::uint32_t* out, int valid) {
  constexpr int kWords = Bytes / 4;
  auto* shared = reinterpret_cast<std::uint32_t*>(dynamic_shared());
  const int n = blockDim.x, t = threadIdx.x;
  const auto to = [&](int group) { return shared + (group * n + t) * kWords; };
  const auto show = [&](int row, int group) {
    for (int i = 0; i < kWords; ++i) out[(row * n + t) * kWords + i] = to(group)[i];
  };
  for (int group = 0; group < 3; ++group) {
    ptx::cp_async<Bytes>(to(group), in + (group * n + t) * kWords, group < 2 || t < valid);
    ptx::cp_async_commit_group();
  }
  ptx::cp_async_wait_group<1>();
  show(0, 0), show(1, 1);  // the two oldest are there
  ptx::cp_async_wait_group<0>();
  show(2, 2);  // the third, zeros where not valid
}
// The same by CUDA's own names: of the last 4 bytes of each 16, zeros.
__global__ void pipelined(const uint4* in, uint4* out) {
  __shared__ uint4 shared[32];
  const int t = int(threadIdx.x);
  __pipeline_memcpy_async(&shared[t], &in[t], 16, 4);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
  out[t] = shared[31 - t];
}
// Reads what no wait has made sure of.
__global__ void impatient(const std::uint32_t* in, std::uint32_t* out) {
  __shared__ std::uint32_t shared[32];
  ptx::cp_async<4>(&shared[threadIdx.x], in + threadIdx.x);
  ptx::cp_async_commit_group();
  ptx::cp_async_wait_group<1>();
  out[threadIdx.x] = shared[threadIdx.x];
}

enum Conversion { half_to_float, float_to_half, bfloat16_to_float, float_to_bfloat16, float_to_tf32 };
__global__ void conversions(const void* in, void* out, int which, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  switch (which) {
    case half_to_float: static_cast<float*>(out)[i] = __half2float(static_cast<const __half*>(in)[i]); break;
    case float_to_half:
      static_cast<__half*>(out)[i] = __float2half_rn(static_cast<const float*>(in)[i]);
      break;
    case bfloat16_to_float:
      static_cast<float*>(out)[i] = __bfloat162float(static_cast<const __nv_bfloat16*>(in)[i]);
      break;
    case float_to_bfloat16:
      static_cast<__nv_bfloat16*>(out)[i] = __float2bfloat16_rn(static_cast<const float*>(in)[i]);
      break;
    case float_to_tf32:
      static_cast<std::uint32_t*>(out)[i] = ptx::cvt_tf32(static_cast<const float*>(in)[i]);
      break;
  }
}

// Every thread applies each operation to one place of its own kind.
template <class T>
__global__ void bits_atomics(T* at, const T* in) {
  const T v = in[blockIdx.x * blockDim.x + threadIdx.x];
  atomicAdd(&at[0], v);
  if constexpr (sizeof(T) == 4) atomicSub(&at[1], v);
  atomicMin(&at[2], v);
  atomicMax(&at[3], v);
  atomicAnd(&at[4], v);
  atomicOr(&at[5], v);
  atomicXor_system(&at[6], v);
  for (T seen = 0, assumed = 1; seen != assumed;) {  // a sum by compare and swap
    assumed = seen;
    seen = atomicCAS(&at[7], assumed, T(assumed + v));
  }
  atomicExch(&at[8], v);
}
template <class T>
__global__ void sums(T* at, const T* in) {
  atomicAdd(at, in[blockIdx.x * blockDim.x + threadIdx.x]);
}
__global__ void counters(unsigned* at) {
  atomicInc(&at[0], 10);
  atomicDec(&at[1], 10);
}
// A lock among the threads of a block: waiting ends because the others get their turn.
__global__ void locked(int* lock, int* total) {
  for (bool done = false; !done;)
    if (atomicCAS(lock, 0, 1) == 0) {
      const int seen = *total;
      __threadfence();
      *total = seen + 1;
      __threadfence();
      atomicExch(lock, 0);
      done = true;
    }
}

__constant__ float table[4];
__global__ void constants(float* out) { out[threadIdx.x] = table[threadIdx.x]; }

}  // namespace

extern "C" {
int run_products(const char* type, int registers, const std::uint32_t* a, const std::uint32_t* b, float* d) {
  const Launch launch{dim3(1), dim3(32), 0};
  const bool wide = registers == 4;
  switch (type[0]) {
    case 'b':
      return wide ? launch(products<__nv_bfloat16, 4>, a, b, d) : launch(products<__nv_bfloat16, 2>, a, b, d);
    case 'f': return wide ? launch(products<__half, 4>, a, b, d) : launch(products<__half, 2>, a, b, d);
    default: return wide ? launch(products<ptx::tf32, 4>, a, b, d) : launch(products<ptx::tf32, 2>, a, b, d);
  }
}
int run_products_in_half(const std::uint32_t* a, const std::uint32_t* b, std::uint32_t* d) {
  return Launch{dim3(1), dim3(32), 0}(products_in_half, a, b, d);
}
int run_matrices(const uint4* in, std::uint32_t* out, int count, bool transposed) {
  const Launch launch{dim3(1), dim3(32), 0};
  switch (count) {
    case 1:
      return transposed ? launch(matrices<1, ptx::trans>, in, out)
                        : launch(matrices<1, ptx::as_stored>, in, out);
    case 2:
      return transposed ? launch(matrices<2, ptx::trans>, in, out)
                        : launch(matrices<2, ptx::as_stored>, in, out);
    default:
      return transposed ? launch(matrices<4, ptx::trans>, in, out)
                        : launch(matrices<4, ptx::as_stored>, in, out);
  }
}
int run_copies(int bytes, const std::uint32_t* in, std::uint32_t* out, int valid) {
  const Launch launch{dim3(1), dim3(32), std::size_t(3 * 32 * bytes)};
  return bytes == 4   ? launch(copies<4>, in, out, valid)
         : bytes == 8 ? launch(copies<8>, in, out, valid)
                      : launch(copies<16>, in, out, valid);
}
int run_pipelined(const uint4* in, uint4* out) { return Launch{dim3(1), dim3(32), 0}(pipelined, in, out); }
int run_impatient(const std::uint32_t* in, std::uint32_t* out) {
  return Launch{dim3(1), dim3(32), 0}(impatient, in, out);
}
int run_conversions(const void* in, void* out, int which, int n) {
  return Launch{dim3(unsigned(n + 255) / 256), dim3(256), 0}(conversions, in, out, which, n);
}
int run_bits_atomics(void* at, const void* in, int type) {
  const Launch launch{dim3(3), dim3(64), 0};
  switch (type) {
    case 0: return launch(bits_atomics<int>, static_cast<int*>(at), static_cast<const int*>(in));
    case 1:
      return launch(bits_atomics<unsigned>, static_cast<unsigned*>(at), static_cast<const unsigned*>(in));
    default:
      return launch(bits_atomics<unsigned long long>, static_cast<unsigned long long*>(at),
                    static_cast<const unsigned long long*>(in));
  }
}
int run_sums(void* at, const void* in, int type) {
  const Launch launch{dim3(3), dim3(64), 0};
  switch (type) {
    case 0: return launch(sums<float>, static_cast<float*>(at), static_cast<const float*>(in));
    case 1: return launch(sums<double>, static_cast<double*>(at), static_cast<const double*>(in));
    case 2:
      return launch(sums<__nv_bfloat16>, static_cast<__nv_bfloat16*>(at),
                    static_cast<const __nv_bfloat16*>(in));
    case 3: return launch(sums<__half>, static_cast<__half*>(at), static_cast<const __half*>(in));
    default: return launch(sums<__half2>, static_cast<__half2*>(at), static_cast<const __half2*>(in));
  }
}
int run_counters(unsigned* at) { return Launch{dim3(2), dim3(32), 0}(counters, at); }
int run_locked(int* lock, int* total) { return Launch{dim3(1), dim3(64), 0}(locked, lock, total); }
int run_constants(const float* values, float* out) {
  if (const cudaError_t e = cudaMemcpyToSymbol(table, values, sizeof table)) return e;
  return Launch{dim3(1), dim3(4), 0}(constants, out);
}
}
