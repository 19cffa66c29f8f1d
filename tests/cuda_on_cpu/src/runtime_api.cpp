// The part of the runtime API that launchers use, and the emulator's own interface to Python.
#include <cuda_runtime_api.h>

#include <cstring>
#include <unordered_map>

#include "internal.h"

namespace cuda_on_cpu {
namespace {

int architecture = 90;
auto& dynamic_limits = *new std::unordered_map<const void*, int>;

int shared_per_block() { return (architecture >= 90 ? 227 : architecture == 80 ? 163 : 99) * 1024; }

}  // namespace

std::size_t dynamic_shared_limit(const void* kernel) {
  const auto at = dynamic_limits.find(kernel);
  return at == dynamic_limits.end() ? 48u * 1024u : std::size_t(at->second);
}

}  // namespace cuda_on_cpu

void __threadfence() {
  if (cuda_on_cpu::hooks.fence) cuda_on_cpu::hooks.fence();
}

using namespace cuda_on_cpu;
extern "C" {

// ---- for Python -------------------------------------------------------------------------------------
void cuda_on_cpu_architecture(int sm) { architecture = sm; }
void cuda_on_cpu_forget_attributes() { dynamic_limits.clear(); }  // of kernels
void cuda_on_cpu_schedule(const char* s) { set_schedule(s); }
void cuda_on_cpu_seconds(int n) { machine().seconds = n; }
void cuda_on_cpu_processes(int n) { machine().processes = n; }
const char* cuda_on_cpu_report() { return machine().reports.c_str(); }
void cuda_on_cpu_clear() { machine().reports.clear(), machine().error = cudaSuccess; }

// ---- memory -----------------------------------------------------------------------------------------
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (bytes) std::memcpy(to, from, bytes);
  if (hooks.host_write) hooks.host_write(to, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t offset,
                               cudaMemcpyKind kind) {
  return cudaMemcpy(static_cast<char*>(const_cast<void*>(symbol)) + offset, from, bytes, kind);
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  if (bytes) std::memset(to, value, bytes);
  if (hooks.host_write) hooks.host_write(to, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(to, value, bytes);
}

// ---- errors: every launch is over when it returns ------------------------------------------------------
cudaError_t cudaDeviceSynchronize() { return machine().error; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return machine().error; }
cudaError_t cudaPeekAtLastError() { return machine().error; }
cudaError_t cudaGetLastError() {
  const cudaError_t e = machine().error;
  machine().error = cudaSuccess;
  return e;
}
const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess              ? "no error"
         : e == cudaErrorLaunchFailure ? "kernel failed; see report"
                                       : "CUDA error";
}

// ---- the device -----------------------------------------------------------------------------------------
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return set_error(cudaErrorNotSupported);
  if (value < 0 || value > shared_per_block()) return set_error(cudaErrorInvalidValue);
  dynamic_limits[kernel] = value;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 8; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = shared_per_block(); break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrComputeCapabilityMajor: *value = architecture / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = architecture % 10; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrCooperativeLaunch: *value = 1; break;
    default: return set_error(cudaErrorNotSupported);
  }
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}
}
