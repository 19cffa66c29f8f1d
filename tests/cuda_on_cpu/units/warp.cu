// What threads do together, one kernel for each kind: test_emulator_warp.py has the plain model of each.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "launch.cuh"
#include "ptx.cuh"

namespace cg = cooperative_groups;
using equiconv::cuda::Launch;
namespace ptx = equiconv::cuda::ptx;

namespace {

// out: (4, 32): shfl, shfl_up, shfl_down, shfl_xor
template <class T>
__global__ void shuffles(const T* in, T* out, const int* by, int width) {
  const int l = threadIdx.x;
  const T v = in[l];
  const unsigned all = 0xffffffffu;
  out[l] = __shfl_sync(all, v, by[l], width);
  out[32 + l] = __shfl_up_sync(all, v, unsigned(by[l]), width);
  out[64 + l] = __shfl_down_sync(all, v, unsigned(by[l]), width);
  out[96 + l] = __shfl_xor_sync(all, v, by[0], width);
}

// Packed halves, of which a lane passes on its pair.
template <class Pair>
__global__ void pairs(const Pair* in, Pair* out) {
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 5);
}

// out: (15, 32), only for lanes in the mask
__global__ void votes(const int* in, const int* predicate, unsigned mask, unsigned* out) {
  const int l = threadIdx.x, p = predicate[l];
  if (!(mask >> l & 1u)) return;
  const int v = in[l];
  const unsigned u = unsigned(v);
  int equal = -1;
  const unsigned results[] = {__ballot_sync(mask, p),
                              unsigned(__any_sync(mask, p)),
                              unsigned(__all_sync(mask, p)),
                              unsigned(__uni_sync(mask, p)),
                              __match_any_sync(mask, v),
                              __match_all_sync(mask, v, &equal),
                              unsigned(equal),
                              unsigned(__reduce_add_sync(mask, v)),
                              unsigned(__reduce_min_sync(mask, v)),
                              unsigned(__reduce_max_sync(mask, v)),
                              __reduce_min_sync(mask, u),
                              __reduce_max_sync(mask, u),
                              __reduce_and_sync(mask, u),
                              __reduce_or_sync(mask, u),
                              __reduce_xor_sync(mask, u)};
  for (int i = 0; i < 15; ++i) out[i * 32 + l] = results[i];
}

// out: (3, threads)
__global__ void barriers(const int* predicate, int* out) {
  const int t = threadIdx.x, n = blockDim.x, p = predicate[t];
  out[t] = __syncthreads_count(p);
  out[n + t] = __syncthreads_and(p);
  out[2 * n + t] = __syncthreads_or(p);
}

// Each half of a warp turns its numbers around in shared memory, beside the other half.
__global__ void half_warps(const int* in, int* out, bool too_few) {
  __shared__ int shared[32];
  const int t = int(threadIdx.x), half = t / 16;
  shared[t] = in[t];
  __syncwarp(half ? 0xffff0000u : 0x0000ffffu);
  out[t] = shared[too_few ? 31 - t : 16 * half + 15 - t % 16];
}

// One warp makes what the others take, twice, through one buffer: barrier 1 says full, 2 says empty.
__global__ void producer(const int* in, int* out, bool skips) {
  __shared__ int buffer[32];
  const int t = int(threadIdx.x), n = int(blockDim.x), lane = t % 32;
  for (int round = 0; round < 2; ++round) {
    if (t < 32) {
      if (round) ptx::bar_sync(2, n);
      buffer[lane] = in[32 * round + lane];
      if (!skips || lane != 3) ptx::bar_arrive(1, n);
    } else {
      ptx::bar_sync(1, n);
      out[round * n + t] = buffer[31 - lane];
      if (!round) ptx::bar_arrive(2, n);
    }
  }
}
// Two teams of two warps meet apart from each other. out: (threads)
__global__ void teams(const int* in, int* out, int first, int threads) {
  __shared__ int shared[128];
  const int t = int(threadIdx.x), team = t / 64;
  shared[t] = in[t];
  ptx::bar_sync(first + team, threads);
  out[t] = shared[64 * team + 63 - t % 64];
}

// out: (16, threads)
template <int Size>
__global__ void tiles(const int* in, int* out) {
  const auto block = cg::this_thread_block();
  const auto tile = cg::tiled_partition<Size>(block);
  const int t = int(block.thread_rank()), n = int(block.size()), v = in[t];
  const int results[] = {int(tile.thread_rank()),
                         int(tile.meta_group_rank()),
                         int(tile.size() + tile.num_threads() + tile.meta_group_size()),
                         tile.shfl(v, 1),
                         tile.shfl_up(v, 1),
                         tile.shfl_down(v, 1),
                         tile.shfl_xor(v, Size / 2),
                         int(tile.ballot(v & 1)),
                         cg::reduce(tile, v, cg::plus<int>()),
                         cg::reduce(tile, v, cg::greater<int>()),
                         cg::reduce(tile, v, cg::less<int>()),
                         cg::reduce(tile, v, cg::bit_and<int>()),
                         cg::reduce(tile, v, cg::bit_or<int>()),
                         cg::reduce(tile, v, cg::bit_xor<int>()),
                         2 * tile.any(v & 1) + tile.all(v & 1),
                         int(tile.match_any(v & 3))};
  cg::sync(tile);
  for (int i = 0; i < 16; ++i) out[i * n + t] = results[i];
}

// One lane adds for all that run beside it, however many these are.
__global__ void coalesced(int* total) {
  if (threadIdx.x % 3) {
    const auto group = cg::coalesced_threads();
    if (group.thread_rank() == 0) atomicAdd(total, int(group.size()));
    if (!(__activemask() >> threadIdx.x % 32 & 1u)) atomicAdd(total, 1000);  // at least itself
    group.sync();
  }
}

// Every block learns what every other has written; static shared memory outlives the wait.
__global__ void grid(int* written, int* sums) {
  __shared__ int mine;
  const auto all = cg::this_grid();
  if (threadIdx.x == 0) mine = 10 * int(blockIdx.x), written[blockIdx.x] = int(blockIdx.x) + 1;
  all.sync();
  int sum = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) sum += written[b];
  sums[all.thread_rank()] = sum + mine;
}

template <class T>
int run_shuffles(const void* in, void* out, const int* by, int width) {
  return Launch{dim3(1), dim3(32), 0}(shuffles<T>, static_cast<const T*>(in), static_cast<T*>(out), by,
                                      width);
}

}  // namespace

extern "C" {
int shuffles_int32(const void* i, void* o, const int* by, int w) { return run_shuffles<int>(i, o, by, w); }
int shuffles_uint32(const void* i, void* o, const int* by, int w) {
  return run_shuffles<unsigned>(i, o, by, w);
}
int shuffles_int64(const void* i, void* o, const int* by, int w) {
  return run_shuffles<long long>(i, o, by, w);
}
int shuffles_uint64(const void* i, void* o, const int* by, int w) {
  return run_shuffles<unsigned long long>(i, o, by, w);
}
int shuffles_float32(const void* i, void* o, const int* by, int w) {
  return run_shuffles<float>(i, o, by, w);
}
int shuffles_float64(const void* i, void* o, const int* by, int w) {
  return run_shuffles<double>(i, o, by, w);
}
int shuffles_float16(const void* i, void* o, const int* by, int w) {
  return run_shuffles<__half>(i, o, by, w);
}
int shuffles_uint16(const void* i, void* o, const int* by, int w) {  // bfloat16's bits
  return run_shuffles<__nv_bfloat16>(i, o, by, w);
}

int run_votes(const int* in, const int* predicate, unsigned mask, unsigned* out) {
  return Launch{dim3(1), dim3(32), 0}(votes, in, predicate, mask, out);
}
int run_pairs(const void* in, void* out, bool bfloat16) {
  const Launch launch{dim3(1), dim3(32), 0};
  if (bfloat16)
    return launch(pairs<__nv_bfloat162>, static_cast<const __nv_bfloat162*>(in),
                  static_cast<__nv_bfloat162*>(out));
  return launch(pairs<__half2>, static_cast<const __half2*>(in), static_cast<__half2*>(out));
}
int run_half_warps(const int* in, int* out, bool too_few) {
  return Launch{dim3(1), dim3(32), 0}(half_warps, in, out, too_few);
}
int run_producer(const int* in, int* out, bool skips) {
  return Launch{dim3(1), dim3(96), 0}(producer, in, out, skips);
}
int run_teams(const int* in, int* out, int first, int threads) {
  return Launch{dim3(1), dim3(128), 0}(teams, in, out, first, threads);
}
int run_barriers(const int* predicate, int threads, int* out) {
  return Launch{dim3(1), dim3(unsigned(threads)), 0}(barriers, predicate, out);
}
int run_tiles(const int* in, int* out, int size) {
  const Launch launch{dim3(1), dim3(64), 0};
  switch (size) {
    case 2: return launch(tiles<2>, in, out);
    case 8: return launch(tiles<8>, in, out);
    default: return launch(tiles<32>, in, out);
  }
}
int run_coalesced(int* total) { return Launch{dim3(1), dim3(96), 0}(coalesced, total); }
int run_grid(int* written, int* sums, bool cooperative) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = cooperative;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(4), config.blockDim = dim3(8);
  config.attrs = &attribute, config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, grid, written, sums);
}
}
