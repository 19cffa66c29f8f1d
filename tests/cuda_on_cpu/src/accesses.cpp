// Every load and store of a kernel compiled with -fsanitize=thread: the compiler emits a call before each,
// and this file provides those calls in the place of ThreadSanitizer's runtime.
#include "analysis.h"

namespace cuda_on_cpu {
namespace {

void access(Access a, const void* pointer, std::size_t bytes, const void* pc) {
  if (!current || !bytes) return;
  const auto* p = static_cast<const unsigned char*>(pointer);
  const Block& b = *current->block;
  const auto* slots = reinterpret_cast<const unsigned char*>(b.warps.data());
  if (stacks.has(p)) return;
  if (p >= slots && p < slots + b.warps.size() * sizeof(Warp)) return;  // a collective's own exchange
  if (parameters.has(p) && a == Access::read) return;
  const Memory memory = detect_races(a, p, bytes, pc);
  if (a != Access::atomic && memory != Memory::constant) count_access(a, memory, p, bytes, pc);
}

const struct Install {
  Install() {
    hooks.launch = [](std::uint32_t count, std::uint32_t) { detector_launch(count), counts_launch(count); };
    hooks.launch_end = counts_launch_end;
    hooks.block_begin = [](const Block& b) { counts_block(b), detector_block(b); };
    hooks.access = access;
    hooks.block_sync = [](const Block& b) { detector_block_sync(b), counts_block_sync(b); };
    hooks.named_arrive = detector_named_arrive;
    hooks.named_sync = [](const Block& b, int number) {
      detector_named_sync(b, number), counts_named_sync(b, number);
    };
    hooks.warp_sync = [](const Block& b, std::uint32_t w, std::uint32_t mask) {
      detector_warp_sync(b, w, mask), counts_warp_sync(b, w);
    };
    hooks.grid_sync = detector_grid_sync;
    hooks.fence = detector_fence;
    hooks.async_issue = [](const Copy& c) {
      if (c.read) access(Access::read, c.from, c.read, c.pc);
      access(Access::write, c.to, c.bytes, c.pc);  // a race with who still reads the buffer shows here
      detector_copy_issued(c);
    };
    hooks.async_done = detector_copy_done;
    hooks.region_add = detector_region;
    hooks.region_remove = detector_region_gone;
    hooks.host_write = detector_host_write;
  }
} install;

}  // namespace
}  // namespace cuda_on_cpu

using cuda_on_cpu::Access;
using cuda_on_cpu::access;

#define CUDA_ON_CPU_CALLS(n)                                                                            \
  void __tsan_read##n(void* p) { access(Access::read, p, n, __builtin_return_address(0)); }             \
  void __tsan_write##n(void* p) { access(Access::write, p, n, __builtin_return_address(0)); }           \
  void __tsan_unaligned_read##n(void* p) { access(Access::read, p, n, __builtin_return_address(0)); }   \
  void __tsan_unaligned_write##n(void* p) { access(Access::write, p, n, __builtin_return_address(0)); } \
  void __tsan_volatile_read##n(void* p) { access(Access::read, p, n, __builtin_return_address(0)); }    \
  void __tsan_volatile_write##n(void* p) { access(Access::write, p, n, __builtin_return_address(0)); }

extern "C" {
CUDA_ON_CPU_CALLS(1)
CUDA_ON_CPU_CALLS(2)
CUDA_ON_CPU_CALLS(4)
CUDA_ON_CPU_CALLS(8)
CUDA_ON_CPU_CALLS(16)
void __tsan_read_range(void* p, unsigned long n) { access(Access::read, p, n, __builtin_return_address(0)); }
void __tsan_write_range(void* p, unsigned long n) {
  access(Access::write, p, n, __builtin_return_address(0));
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

void cuda_on_cpu_memory_reset() { cuda_on_cpu::counts_reset(), cuda_on_cpu::detector_reset(); }
}
