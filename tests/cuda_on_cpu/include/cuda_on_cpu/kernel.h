// What a kernel meets on the CPU: qualifiers, built-in variables, and the emulator behind barriers,
// collectives and launches.
//
// Kernels include the ordinary CUDA headers, for which the files beside this folder stand in, and never
// name the emulator. What is not here or there does not compile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include <driver_types.h>  // NVIDIA's: cudaError_t, cudaLaunchConfig_t, ...
#include <vector_functions.h>
#include <vector_types.h>

// ---- qualifiers -----------------------------------------------------------------------------------
#undef __shared__
#undef __constant__
#undef __managed__
#undef __launch_bounds__
#undef __grid_constant__
#undef __cluster_dims__
#undef __block_size__
#undef __maxnreg__
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static  // the sanitizer puts red zones around static variables, not thread-local ones
#else
#define __shared__ static thread_local  // the library's thread-local segment is static shared memory
#endif
#define __constant__ static
#define __managed__
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __grid_constant__
#define __cluster_dims__(...) _Pragma("GCC error \"clusters are not emulated\"")
#define __block_size__(...) _Pragma("GCC error \"clusters are not emulated\"")

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace cuda_on_cpu {

// Where in the kernel's source a thread meets others: by name, or as an address in its code.
struct Site {
  const char* file = nullptr;
  int line = 0;
  const void* pc = nullptr;
};
#define CUDA_ON_CPU_SITE const char *site_file = __builtin_FILE(), int site_line = __builtin_LINE()
#define CUDA_ON_CPU_HERE (::cuda_on_cpu::Site{site_file, site_line})

[[noreturn]] void fail(Site, const char* format, ...) __attribute__((format(printf, 2, 3)));

enum class Access : std::uint8_t { read, write, atomic };
void note(Access, const void* p, std::size_t bytes, const void* pc);  // one that the compiler does not note
void spin();  // an atomic: its thread may be waiting for another

void* dynamic_shared_base();
int lane();
std::uint32_t met_lanes();  // that took part in this lane's last collective: others had returned
bool cooperative();

// ---- barriers and collectives -----------------------------------------------------------------------
enum class BarrierOp : std::uint8_t { plain, count, all, any };
int block_barrier(BarrierOp, int predicate, Site);
void grid_barrier(Site);
inline constexpr int kNamedBarriers = 16;  // number 0 is __syncthreads()
// bar.sync, or where it does not wait bar.arrive.
void named_barrier(int number, int threads, bool waits);

inline constexpr std::size_t kSlot = 64;  // bytes that one lane can bring to a collective
struct alignas(16) Slot {
  unsigned char b[kSlot];
};
enum class Op : std::uint8_t { none, syncwarp, shuffle, vote, match, reduce, mma, ldmatrix };
// Called once, by the last lane to arrive. Null: what each lane brought is what all may read.
using Combine = void (*)(std::uint32_t mask, const Slot* in, Slot* out);
// Waits for every lane of `mask`; returns the warp's 32 slots.
const Slot* warp_collective(Op, std::uint32_t mask, const void* in, std::size_t bytes, Combine, Site);

// ---- launches ---------------------------------------------------------------------------------------
using Thunk = void (*)(void* args);
cudaError_t launch(const cudaLaunchConfig_t&, const void* kernel, Thunk, void* args, std::size_t args_bytes);

template <class... P, class... A>
cudaError_t launch_kernel(const cudaLaunchConfig_t& config, void (*kernel)(P...), A&&... a) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<std::decay_t<P>...> args;
  } call{kernel, std::tuple<std::decay_t<P>...>(static_cast<P>(std::forward<A>(a))...)};
  return launch(
      config, reinterpret_cast<const void*>(kernel),
      [](void* p) {
        auto& c = *static_cast<Call*>(p);
        std::apply([&](const auto&... x) { c.kernel(x...); }, c.args);  // by value, per thread
      },
      &call, sizeof call);
}

// ---- the instructions of csrc/cuda/ptx.cuh ------------------------------------------------------------
// Reads the first `read` bytes and writes zeros for the others. What it writes is garbage until this thread
// waits for the copy's group: the weakest that hardware may do.
void cp_async(void* shared, const void* global, std::size_t bytes, std::size_t read);
void cp_async_commit_group();
void cp_async_wait_group(std::size_t pending);
void ldmatrix(std::uint32_t* r, int count, const void* row, const char* modifier);
std::uint32_t cvt_tf32(float x);
// `type` is PTX's name of a's and b's elements.
void mma(const char* type, float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);
void mma(const char* type, float (&d)[4], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1]);
void mma(const char* type, std::uint32_t (&d)[2], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);

}  // namespace cuda_on_cpu
