// Launching and dynamic shared memory, spelled so that any C++17 compiler can parse them.
#pragma once
#include <cuda_runtime.h>

#include <utility>

namespace equiconv::cuda {

// The block's dynamic shared memory, 16-byte aligned.
__device__ __forceinline__ unsigned char* dynamic_shared() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[];
  return dynamic_shared_bytes;
#else
  return static_cast<unsigned char*>(cuda_on_cpu::dynamic_shared_base());
#endif
}

// A launch configuration. Call it with a kernel and the kernel's arguments.
struct Launch {
  dim3 grid, block;
  std::size_t shared = 0;
  cudaStream_t stream = nullptr;

  // cudaLaunchKernelEx is the runtime's own typed launch: it needs no <<<...>>> syntax.
  template <class... Parameter, class... Argument>
  cudaError_t operator()(void (*kernel)(Parameter...), Argument&&... arguments) const {
    if (shared > 48 * 1024)  // more than every device grants unasked
      if (const cudaError_t error =
              cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)))
        return error;
    cudaLaunchConfig_t config{};
    config.gridDim = grid, config.blockDim = block;
    config.dynamicSmemBytes = shared, config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, std::forward<Argument>(arguments)...);
  }
};

}  // namespace equiconv::cuda
