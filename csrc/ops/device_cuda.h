// What a binding needs of CUDA: a workspace from torch's allocator, the device of x, its current stream.
#pragma once
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
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

// kernel(arguments…, workspace, stream) with workspace_bytes(arguments…) bytes of workspace. The workspace
// returns to the allocator while the kernel may still run: what reuses it is ordered after it on the stream.
template <class WorkspaceBytes, class Kernel, class... Arguments>
void launch(const torch::stable::Tensor& x, WorkspaceBytes workspace_bytes, Kernel kernel,
            const Arguments&... arguments) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  const std::int64_t bytes = std::max<std::int64_t>(workspace_bytes(arguments...), 1);
  const auto workspace = torch::stable::new_empty(x, {&bytes, 1}, torch::headeronly::ScalarType::Byte);
  STD_CUDA_CHECK(kernel(arguments..., workspace.mutable_data_ptr(), static_cast<cudaStream_t>(stream)));
}

}  // namespace equiconv::ops
