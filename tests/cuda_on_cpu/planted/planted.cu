// Kernels with one mistake each, and one without: what test_emulator.py expects to be told about.
#include <cuda_runtime.h>

#include "launch.cuh"

namespace {

// Reverses 64 numbers through shared memory.
enum Mistake {
  none,
  no_barrier,
  shared_out_of_bounds,
  global_out_of_bounds,
  divergent,
  unwritten,
  early_return
};

__global__ void reverse(const float* x, float* y, int mistake) {
  float* s = reinterpret_cast<float*>(equiconv::cuda::dynamic_shared());
  const int t = threadIdx.x;
  if (mistake == early_return && t == 5) return;
  if (mistake != unwritten || t != 3) s[t + (mistake == shared_out_of_bounds && t == 63 ? 4 : 0)] = x[t];
  if (mistake == divergent && t < 32) __syncthreads();
  else if (mistake != no_barrier) __syncthreads();
  y[t + (mistake == global_out_of_bounds && t == 63 ? 4 : 0)] = s[63 - t];
}

// All blocks write the same element; with `atomic` they may.
__global__ void count(int* total, bool atomic) {
  if (atomic) atomicAdd(total, 1);
  else *total += 1;
}

// A column of a 32 x 32 tile: 32 banks hit once with a row of 33, one bank hit 32 times with a row of 32.
__global__ void column(float* y, int row) {
  float* s = reinterpret_cast<float*>(equiconv::cuda::dynamic_shared());
  for (int i = 0; i < 32; ++i) s[i * row + threadIdx.x] = float(i);
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x * row];
}

// 16 bytes a thread, `apart` such pieces from one thread to the next.
__global__ void pieces(const float4* x, float4* y, int apart) {
  auto* s = reinterpret_cast<float4*>(equiconv::cuda::dynamic_shared());
  s[threadIdx.x * apart] = x[threadIdx.x * apart];
  __syncthreads();
  y[threadIdx.x * apart] = s[threadIdx.x * apart];
}

}  // namespace

extern "C" {
int run_reverse(const float* x, float* y, int mistake) {
  return equiconv::cuda::Launch{dim3(1), dim3(64), 64 * sizeof(float)}(reverse, x, y, mistake);
}
int run_count(int* total, bool atomic) {
  return equiconv::cuda::Launch{dim3(3), dim3(1), 0}(count, total, atomic);
}
int run_column(float* y, int row) {
  return equiconv::cuda::Launch{dim3(1), dim3(32), 32 * 33 * sizeof(float)}(column, y, row);
}
int run_pieces(const float4* x, float4* y, int apart) {
  return equiconv::cuda::Launch{dim3(1), dim3(32), 64 * sizeof(float4)}(pieces, x, y, apart);
}
}
