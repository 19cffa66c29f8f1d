// What a launcher asks of the device, and the workspace it was given.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace equiconv::cuda {

struct Device {
  std::int64_t shared = 0;  // bytes a block can have
  std::int64_t multiprocessors = 0;

  static cudaError_t current(Device& device) {
    int id = 0, shared = 0, multiprocessors = 0;
    if (const cudaError_t e = cudaGetDevice(&id)) return e;
    if (const cudaError_t e = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, id))
      return e;
    if (const cudaError_t e = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, id))
      return e;
    device = {shared, multiprocessors};
    return cudaSuccess;
  }
};

// The workspace, handed out in pieces; without memory it only counts.
struct Workspace {
  char* memory = nullptr;
  std::int64_t used = 0;

  template <class T>
  T* take(std::int64_t count) {
    T* piece = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
    used += (count * std::int64_t(sizeof(T)) + 255) / 256 * 256;
    return piece;
  }
};

}  // namespace equiconv::cuda
