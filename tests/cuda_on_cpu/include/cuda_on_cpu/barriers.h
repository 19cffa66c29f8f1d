// Barriers of a block and of a warp, and fences.
#pragma once
#include <cuda_on_cpu/kernel.h>

inline void __syncthreads(CUDA_ON_CPU_SITE) {
  cuda_on_cpu::block_barrier(cuda_on_cpu::BarrierOp::plain, 0, CUDA_ON_CPU_HERE);
}
inline int __syncthreads_count(int predicate, CUDA_ON_CPU_SITE) {
  return cuda_on_cpu::block_barrier(cuda_on_cpu::BarrierOp::count, predicate, CUDA_ON_CPU_HERE);
}
inline int __syncthreads_and(int predicate, CUDA_ON_CPU_SITE) {
  return cuda_on_cpu::block_barrier(cuda_on_cpu::BarrierOp::all, predicate, CUDA_ON_CPU_HERE);
}
inline int __syncthreads_or(int predicate, CUDA_ON_CPU_SITE) {
  return cuda_on_cpu::block_barrier(cuda_on_cpu::BarrierOp::any, predicate, CUDA_ON_CPU_HERE);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_ON_CPU_SITE) {
  cuda_on_cpu::warp_collective(cuda_on_cpu::Op::syncwarp, mask, nullptr, 0, nullptr, CUDA_ON_CPU_HERE);
}

void __threadfence();
inline void __threadfence_block() {}
inline void __threadfence_system() { __threadfence(); }
inline void __nanosleep(unsigned) { cuda_on_cpu::spin(); }
