// What a binding needs of CUDA: a workspace from torch's allocator, the device of x, its current stream.
#pragma once
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#define EQUICONV_DISPATCH_KEY CUDA

// Weak, because only a torch with CUDA has them: any other can still load this library and inspect it.
extern "C" {
__attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);
__attribute__((weak)) AOTITorchError torch_c10_cuda_check_msg(int32_t, const char*, const char*, uint32_t,
                                                              bool, char**);
__attribute__((weak)) void torch_c10_cuda_free_error_msg(char*);
}

namespace equiconv::ops {

// kernel(arguments…, workspace, stream) with workspace_bytes(arguments…) bytes of workspace; null for none,
// as an allocation takes as long as the smallest calls. The workspace returns to the allocator while the
// kernel may still run: what reuses it is ordered after it on the stream.
template <class WorkspaceBytes, class Kernel, class... Arguments>
void launch(const torch::stable::Tensor& x, WorkspaceBytes workspace_bytes, Kernel kernel,
            const Arguments&... arguments) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  const auto call = [&](void* workspace) {
    STD_CUDA_CHECK(kernel(arguments..., workspace, static_cast<cudaStream_t>(stream)));
  };
  const std::int64_t bytes = workspace_bytes(arguments...);
  if (bytes == 0) return call(nullptr);
  const auto workspace = torch::stable::new_empty(x, {&bytes, 1}, torch::headeronly::ScalarType::Byte);
  call(workspace.mutable_data_ptr());
}

}  // namespace equiconv::ops
