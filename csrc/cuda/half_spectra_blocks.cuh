// Blocks for rows of L = 2 N numbers, a power of two, whose spectra fit in shared memory (half_spectra.cuh):
// which lengths those are, how many blocks there are, and which rows each of them takes.
//
// A block takes one channel, for one chunk of the batch, row after row. How many chunks there are depends on
// the sizes alone, and so do the bits of what is summed over the batch: by rows in their order, chunk by
// chunk, and then over the chunks.
#pragma once
#include <algorithm>

#include "device.cuh"
#include "half_spectra.cuh"

namespace equiconv::cuda {

constexpr int kLeastLogLength = 6;
constexpr std::int64_t kEnoughBlocks = 1024;

template <class R>
constexpr int kMostLogLength = sizeof(R) == sizeof(float) ? 13 : 12;
template <class R>
constexpr int kMostThreads = (1 << kMostLogLength<R>) / 2 / kGroup;

// What is the same for all blocks of a call, whose `size` has a batch, channels and a length.
template <class Size>
struct RowPlan {
  Size size;
  Ring ring;
  int chunks = 1;     // of the batch
  bool wide = false;  // of all signals, two neighbours at a time
};

// A block's rows.
template <class Plan>
struct BlockRows {
  const Plan& plan;
  std::int64_t channel, begin, end;
  int chunk;

  __device__ explicit BlockRows(const Plan& plan)
      : plan(plan),
        channel(blockIdx.x % plan.size.channels),
        begin(plan.size.batch * (blockIdx.x / plan.size.channels) / plan.chunks),
        end(plan.size.batch * (blockIdx.x / plan.size.channels + 1) / plan.chunks),
        chunk(int(blockIdx.x / plan.size.channels)) {}

  template <class Void>
  __device__ Row<Void> row(const Array<Void>& signal, std::int64_t batch) const {
    return row_at(signal, batch * signal.batch + channel * signal.channel, int(plan.size.length), plan.wide);
  }
  template <class Void>
  __device__ static Row<Void> row_at(const Array<Void>& a, std::int64_t offset, int count, bool wide) {
    using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;
    return {a.data ? static_cast<Byte*>(a.data) + offset * bytes_of(a.dtype) : nullptr, a.position, count,
            a.dtype, wide};
  }
};

// z <- the spectrum of a row, times another if there is one.
template <class R>
__device__ __forceinline__ void transform(const HalfSpectra<R>& spectra, Complex<R>* z,
                                          const Row<const void>& row, const Row<const void>& gate) {
  spectra.forward(z, [&](Group<R>& v, int first, int step) {
#pragma unroll
    for (int k = 0; k < kGroup; ++k) v[k] = {R(1), R(1)};
    Row<const void> factor = row;
#pragma unroll 1
    for (int i = 0; i < (gate.data ? 2 : 1); ++i, factor = gate) multiply_by_row(v, factor, first, step);
  });
}

// Adds what a block's threads have of each of `Count` sums to `total`, in the thread of the sum's number.
template <int Count, class R>
__device__ __forceinline__ void add_to_total(R (&values)[Count], R* of_warps, R& total) {
  const int warps = blockDim.x / 32;
#pragma unroll
  for (int j = 0; j < Count; ++j) {
    R sum = values[j];
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32 * Count + j] = sum;
  }
  __syncthreads();
  if (threadIdx.x < Count)
    for (int warp = 0; warp < warps; ++warp) total += of_warps[warp * Count + threadIdx.x];
}

// ---- for launchers ---------------------------------------------------------------------------------------

// The transform of a row; of log_n 0 where there are no kernels for the length.
template <class R>
Ring ring_of(std::int64_t length) {
  Ring ring;
  ring.log_n = 0;
  for (int log = kLeastLogLength; log <= kMostLogLength<R>; ++log)
    if (length == std::int64_t(1) << log) ring.log_n = log - 1;
  return ring;
}

// `count` spectra, and as many other numbers.
template <class R>
std::int64_t block_shared(const Ring& ring, int count, int numbers) {
  return HalfSpectra<R>::shared_bytes(ring, count) + numbers * std::int64_t(sizeof(R));
}

// Whether the current device has room for that.
template <class R>
bool has_room(const Ring& ring, std::int64_t shared) {
  Device device;
  return ring.log_n && !Device::current(device) && shared <= device.shared;
}

template <class Void>
bool is_wide(const Array<Void>& a, std::int64_t count) {
  const std::int64_t size = a.dtype == DType::float64 ? 8 : a.dtype == DType::float32 ? 4 : 2;
  const std::int64_t bytes = reinterpret_cast<std::intptr_t>(a.data) | (a.batch | a.channel | count) * size;
  return !a || (a.position == 1 && bytes % (2 * size) == 0);
}

template <class R, class Size, class... Signals>
RowPlan<Size> row_plan(const Size& size, const Signals&... signals) {
  const std::int64_t chunks = (kEnoughBlocks + size.channels - 1) / size.channels;
  return {size, ring_of<R>(size.length), int(std::clamp<std::int64_t>(chunks, 1, size.batch)),
          (is_wide(signals, size.length) && ...)};
}

template <class Size>
Launch launch_of(const RowPlan<Size>& plan, std::int64_t shared, cudaStream_t stream) {
  const int threads = std::max(plan.ring.groups(), 32);
  return {dim3(unsigned(plan.size.channels * plan.chunks)), dim3(unsigned(threads)), std::size_t(shared),
          stream};
}

}  // namespace equiconv::cuda
