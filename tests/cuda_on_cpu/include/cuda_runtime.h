// Stands in for <cuda_runtime.h>: what kernels use, and the typed part of the runtime API.
#pragma once
#include <cuda_on_cpu/kernel.h>

#include <cuda_on_cpu/atomics.h>
#include <cuda_on_cpu/barriers.h>
#include <cuda_on_cpu/intrinsics.h>
#include <cuda_on_cpu/warp.h>
#include <cuda_runtime_api.h>  // NVIDIA's; src/ defines what of it is there

template <class... P, class... A>
inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... a) {
  return cuda_on_cpu::launch_kernel(*config, kernel, std::forward<A>(a)...);
}
template <class T>
inline cudaError_t cudaMalloc(T** p, std::size_t bytes) {
  return ::cudaMalloc(reinterpret_cast<void**>(p), bytes);
}
template <class... P>
inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return ::cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class... P>
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*kernel)(P...),
                                                                 int threads, std::size_t shared) {
  return ::cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, reinterpret_cast<const void*>(kernel),
                                                         threads, shared);
}
template <class T>
inline cudaError_t cudaMemcpyToSymbol(const T& symbol, const void* from, std::size_t bytes,
                                      std::size_t offset = 0, cudaMemcpyKind kind = cudaMemcpyHostToDevice) {
  return ::cudaMemcpyToSymbol(static_cast<const void*>(&symbol), from, bytes, offset, kind);
}
