// Threads as fibers: their stacks, and the switch from one to another.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// x86-64 System V: another architecture would use <ucontext.h>.
extern "C" void cuda_on_cpu_switch(void** save, void* load);
asm(R"(
.text
.type cuda_on_cpu_switch,@function
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_switch,.-cuda_on_cpu_switch
)");

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_on_cpu {

Fiber* current = nullptr;
Range stacks;

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStack = 256 << 10;
#else
constexpr std::size_t kStack = 64 << 10;
#endif
std::vector<std::unique_ptr<Fiber>>& pool = *new std::vector<std::unique_ptr<Fiber>>;

void transfer(void** save_sp, [[maybe_unused]] void** save_fake, void* to_sp,
              [[maybe_unused]] const void* bottom, [[maybe_unused]] std::size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(save_fake, bottom, size);
  cuda_on_cpu_switch(save_sp, to_sp);
  // Back here: our own fake stack is what we saved above.
  __sanitizer_finish_switch_fiber(*save_fake, nullptr, nullptr);
#else
  cuda_on_cpu_switch(save_sp, to_sp);
#endif
}

void enter(Fiber& f) {
  if (machine().cooperative) make_resident(*f.block);
  current = &f;
  threadIdx = f.idx;
  blockIdx = f.block->idx;
}

extern "C" void cuda_on_cpu_fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  std::size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (!machine().main_bottom) machine().main_bottom = bottom, machine().main_size = size;
#endif
  for (;;) {
    machine().thunk(machine().args);
    end_of_thread();
  }
}

void reset(Fiber& f) {
  auto* top = reinterpret_cast<void**>(f.stack + kStack);
  *--top = nullptr;  // a null return address ends backtraces; rsp is 8 mod 16 on entry
  *--top = reinterpret_cast<void*>(&cuda_on_cpu_fiber_main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  f.sp = top;
  f.fake_stack = nullptr;
  f.copies.clear(), f.groups.clear(), f.open_group = 0;
}

}  // namespace

std::size_t stack_bytes() { return kStack; }
Fiber& fiber(std::size_t i) { return *pool[i]; }

void make_fibers(std::size_t n) {
  if (n <= pool.size()) return;
  const std::size_t page = 4096, stride = kStack + page, count = std::max<std::size_t>(n, 1024);
  auto* base = static_cast<char*>(mmap(nullptr, count * stride, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (base == MAP_FAILED) {
    std::perror("cuda_on_cpu: mmap");
    std::abort();
  }
  if (stacks.lo) munmap(const_cast<unsigned char*>(stacks.lo), stacks.size());
  stacks.lo = reinterpret_cast<unsigned char*>(base), stacks.hi = stacks.lo + count * stride;
  pool.clear();
  for (std::size_t i = 0; i < count; ++i) {
    if (count <= 16384) mprotect(base + i * stride, page, PROT_NONE);
    auto f = std::make_unique<Fiber>();
    f->stack = base + i * stride + page;
    reset(*f);
    pool.push_back(std::move(f));
  }
}

void forget_fibers() {
  for (auto& f : pool) reset(*f);
}

void run_from_main(Fiber& f) {
  Machine& m = machine();
  enter(f);
  transfer(&m.main_sp, &m.main_fake, f.sp, f.stack, kStack);
}
void to_main() {
  Machine& m = machine();
  Fiber& f = *current;
  current = nullptr;
  transfer(&f.sp, &f.fake_stack, m.main_sp, m.main_bottom, m.main_size);
}
void switch_to(Fiber& from, Fiber& to) {
  if (&from == &to) return;
  enter(to);
  transfer(&from.sp, &from.fake_stack, to.sp, to.stack, kStack);
}

}  // namespace cuda_on_cpu
