// pair_invariants on a GPU: the result, its gradients, or what both change by, of dual numbers; one launch.
//
// A block takes a few pairs whole, a thread one of their rows, a pair at an orientation. Where there are more
// orientations than threads, a block takes one pair and some orientations at a time. Rows come and go through
// shared memory, so that neighbours in memory belong to neighbouring threads:
//
//   shared memory   a row of features for each thread, and of their gradients; the vectors of the pairs; what
//                   each thread adds to the gradients of its pair, which are added up by orientation
//
// so the order of every sum is that of the sizes: same input, same bits. What bounds the result in float32 is
// memory, its features written; what bounds half types and gradients is shared memory, where features are
// multiplied (bench/model_pair_invariants.py). Not yet run on a GPU.
#include "pair_invariants.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <type_traits>

#include "../pair_attributes.h"
#include "launch.cuh"

namespace equiconv::cuda {
namespace {

constexpr int kThreads = 128, kLeastThreads = 16;
constexpr int kShared = 48 * 1024;  // bytes of a block, if it can have as few
constexpr int kPitch = 3;           // of vectors in shared memory: odd, so that no two lie in one bank

template <class R>
struct Root {
  __host__ __device__ constexpr Length<R> operator()(const R& squared) const {
    if (!(squared > R(0))) return {R(0), R(0)};
    const R length = sqrt(squared);
    return {length, R(1) / length};
  }
  __host__ __device__ constexpr R half() const { return R(0.5); }
};

// A number as it was read, and what is asked for of one: itself, or what it changes by.
template <class R>
__device__ __forceinline__ R number(R value, R, R*) {
  return value;
}
template <class R>
__device__ __forceinline__ Dual<R> number(R value, R change, Dual<R>*) {
  return {value, change};
}
template <class R>
__device__ __forceinline__ R result(const R& v) {
  return v;
}
template <class R>
__device__ __forceinline__ R result(const Dual<R>& v) {
  return v.change;
}

// ---- memory ----------------------------------------------------------------------------------------
template <class R>
__device__ __forceinline__ R load(const InputRows& a, std::int64_t at) {
  if constexpr (std::is_same_v<R, double>) return static_cast<const double*>(a.data)[at];
  else if (a.dtype == DType::float32) return static_cast<const float*>(a.data)[at];
  else if (a.dtype == DType::bfloat16) return float(static_cast<const __nv_bfloat16*>(a.data)[at]);
  else return float(static_cast<const __half*>(a.data)[at]);
}
template <class R>
__device__ __forceinline__ void store(const OutputRows& a, std::int64_t at, R v) {
  if constexpr (std::is_same_v<R, double>) static_cast<double*>(a.data)[at] = v;
  else if (a.dtype == DType::float32) static_cast<float*>(a.data)[at] = v;
  else if (a.dtype == DType::bfloat16) static_cast<__nv_bfloat16*>(a.data)[at] = __nv_bfloat16(v);
  else static_cast<__half*>(a.data)[at] = __half(v);
}

// `count` rows of so many columns, from row `first` on, each `pitch` numbers after the one before.
template <class R, class V>
__device__ void stage(V* to, int pitch, const InputRows& value, const InputRows& change, std::int64_t first,
                      int count, int columns) {
  if (!value.data) return;
  for (int i = threadIdx.x; i < count * columns; i += blockDim.x) {
    const int row = i / columns, column = i - row * columns;
    const std::int64_t at = (first + row) * value.row + column * value.entry;
    const R changed =
        change.data ? load<R>(change, (first + row) * change.row + column * change.entry) : R(0);
    to[row * pitch + column] = number(load<R>(value, at), changed, static_cast<V*>(nullptr));
  }
}

// ---- how a call is cut -------------------------------------------------------------------------------
struct Tile {
  int threads, pairs, slots;  // slots: orientations at a time
  int pitch;                  // of a thread's features, odd
  int sums;                   // numbers that a thread adds to the gradients of its pair
  // From one of these numbers to the next, for all threads. Where each pair has one thread, it is where the
  // eleventh pair is, as banks go: as 3 * 11 = 33, vectors in three dimensions lie in neighbouring banks.
  int summands;

  // Where the thread of a pair and a slot keeps its own. A pair's are an odd number apart.
  __host__ __device__ constexpr int summand(int pair, int slot) const { return pair * (slots | 1) + slot; }
};

// What a block keeps. A null base only measures.
template <class V, class R>
struct Shared {
  V *rel, *receiver, *sender, *extra, *features, *grad;
  R* sums;
  std::size_t bytes = 0;

  __host__ __device__ Shared(unsigned char* base, const PairInvariants& size, const Tile& tile,
                             bool gradients) {
    const auto take = [&](auto*& to, int count) {
      to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(base + bytes);
      bytes += (count * sizeof(*to) + 15) / 16 * 16;
    };
    take(rel, tile.pairs * kPitch), take(sender, tile.pairs * kPitch);
    take(receiver, tile.threads * kPitch), take(extra, tile.pairs * size.extra());
    take(features, tile.threads * tile.pitch);
    take(grad, gradients ? tile.threads * tile.pitch : 0);
    take(sums, gradients ? tile.summands * tile.sums : 0);
  }
};

// Rows and features of neighbours in memory, `blockDim.x` apart, without a division for each.
struct Walk {
  int feature, row, features, next_feature, next_row;

  __device__ explicit Walk(int features)
      : feature(threadIdx.x % features),
        row(threadIdx.x / features),
        features(features),
        next_feature(blockDim.x % features),
        next_row(blockDim.x / features) {}
  __device__ void operator++() {
    feature += next_feature, row += next_row;
    if (feature >= features) feature -= features, ++row;
  }
};

// ---- the kernel --------------------------------------------------------------------------------------

// Spaces as types, so that a kernel's name has no number in it.
struct Distance {
  static constexpr Space space = Space::distance;
};
struct Planar {
  static constexpr Space space = Space::planar;
};
struct Spatial {
  static constexpr Space space = Space::spatial;
};

template <class V, class R, class Kind>
__global__ void __launch_bounds__(kThreads, 1)
    pair_pass(const PairInvariants size, const PairInvariantsBackward a, const Tile tile) {
  constexpr Space space = Kind::space;
  constexpr int n = kDimensions<space>;
  const PairAttributes<space> attributes{size.senders, size.complete, size.smooth};
  const Shared<V, R> shared(dynamic_shared(), size, tile, a.grad_out.data != nullptr);
  const std::int64_t first = std::int64_t(blockIdx.x) * tile.pairs;
  const int pairs = int(size.pairs - first < tile.pairs ? size.pairs - first : tile.pairs);
  const int thread = threadIdx.x, pair = thread / tile.slots;
  const bool of_grid = a.at.receiver.data && a.at.receiver.row == 0 && !size.senders;

  stage<R>(shared.rel, kPitch, a.at.rel, a.change.rel, first, pairs, size.dimensions);
  stage<R>(shared.sender, kPitch, a.at.sender, a.change.sender, first, pairs, size.dimensions);
  stage<R>(shared.extra, size.extra(), a.at.extra, a.change.extra, first, pairs, size.extra());
  if (!of_grid)
    stage<R>(shared.receiver, kPitch, a.at.receiver, a.change.receiver, first, pairs, size.dimensions);

  PairVectors<V, n> sums;
  V* const features = shared.features + thread * tile.pitch;
  V* const grad = shared.grad + thread * tile.pitch;
  const bool summing = a.grad_out.data && thread < pairs * tile.slots;
  R* const sum = shared.sums + tile.summand(pair, thread - pair * tile.slots);
  if (summing)
    for (int i = 0; i < size.extra(); ++i) sum[(3 * n + i) * tile.summands] = R(0);

  for (std::int64_t begin = 0; begin < size.orientations; begin += tile.slots) {
    const int slots = int(size.orientations - begin < tile.slots ? size.orientations - begin : tile.slots);
    const int rows = pairs * slots;  // neighbours in memory: the pairs are whole, or there is one
    const std::int64_t first_row = first * size.orientations + begin;
    if (begin) __syncthreads();  // readers of what comes now
    if (of_grid) {
      const InputRows grid{a.at.receiver.data, a.at.receiver.dtype, a.at.receiver.orientation, 0,
                           a.at.receiver.entry};
      stage<R>(shared.receiver, kPitch, grid, InputRows{}, begin, slots, size.dimensions);
    }
    if (a.grad_out.data) {
      for (Walk at(size.features); at.row < rows; ++at) {
        const std::int64_t row = at.row / slots, orientation = begin + (at.row - row * slots);
        const std::int64_t offset = (first + row) * a.grad_out.row + orientation * a.grad_out.orientation +
                                    at.feature * a.grad_out.entry;
        shared.grad[at.row * tile.pitch + at.feature] =
            number(load<R>(a.grad_out, offset), R(0), static_cast<V*>(nullptr));
      }
    }
    __syncthreads();

    if (thread < rows) {
      PairVectors<V, n> at;
#pragma unroll
      for (int i = 0; i < n; ++i) {
        if (i < size.dimensions) at.rel[i] = shared.rel[pair * kPitch + i];
        if constexpr (space != Space::distance)
          at.receiver[i] = shared.receiver[(of_grid ? thread - pair * slots : pair) * kPitch + i];
        if (size.senders) at.sender[i] = shared.sender[pair * kPitch + i];
      }
      attributes.values(at, Root<R>(), features);
      for (int i = 0; i < size.extra(); ++i)
        features[size.geometric + i] = shared.extra[pair * size.extra() + i];
      multiply_out(size, features);
      if (a.grad_out.data) {
        multiply_back(size, features, grad);
        attributes.gradients(at, Root<R>(), grad, sums);
        for (int i = 0; i < size.extra(); ++i)
          sum[(3 * n + i) * tile.summands] += result(grad[size.geometric + i]);
      }
    }
    if (!a.out.data) continue;
    __syncthreads();
    for (Walk at(size.features); at.row < rows; ++at)
      store(a.out, (first_row + at.row) * size.features + at.feature,
            result(shared.features[at.row * tile.pitch + at.feature]));
  }
  if (!a.grad_out.data) return;

  const auto keep = [&](const OutputRows& to, int from, const V(&v)[n]) {
    if (!summing || !to.data) return;
#pragma unroll
    for (int i = 0; i < n; ++i) sum[(from + i) * tile.summands] = result(v[i]);
  };
  keep(a.grad.rel, 0, sums.rel), keep(a.grad.receiver, n, sums.receiver);
  keep(a.grad.sender, 2 * n, sums.sender);
  __syncthreads();
  const auto add_up = [&](const OutputRows& to, int from, int columns) {
    if (!to.data) return;
    for (int i = thread; i < pairs * columns; i += tile.threads) {
      const int row = i / columns, column = i - row * columns;
      const R* const terms = shared.sums + (from + column) * tile.summands + tile.summand(row, 0);
      R total = terms[0];
      for (int slot = 1; slot < tile.slots; ++slot) total += terms[slot];
      store(to, (first + row) * to.row + column * to.entry, total);
    }
  };
  add_up(a.grad.rel, 0, size.dimensions);
  add_up(a.grad.receiver, n, size.dimensions);
  add_up(a.grad.sender, 2 * n, size.dimensions);
  add_up(a.grad.extra, 3 * n, size.extra());
}

// ---- launchers -----------------------------------------------------------------------------------------
template <class V, class R, class Kind>
cudaError_t run(const PairInvariants& size, const PairInvariantsBackward& a, cudaStream_t stream) {
  Tile tile{};
  std::size_t bytes = 0;
  for (tile.threads = kThreads;; tile.threads /= 2) {
    tile.slots = int(std::min<std::int64_t>(size.orientations, tile.threads));
    tile.pairs = tile.threads / tile.slots;
    tile.pitch = size.features | 1;
    tile.sums = 3 * kDimensions<Kind::space> + size.extra();
    tile.summands = tile.slots == 1 ? tile.pairs + 11 : tile.pairs * (tile.slots | 1);
    bytes = Shared<V, R>(nullptr, size, tile, a.grad_out.data != nullptr).bytes;
    if (bytes <= kShared || tile.threads == kLeastThreads) break;
  }
  const std::int64_t blocks = (size.pairs + tile.pairs - 1) / tile.pairs;
  if (blocks >= std::int64_t(1) << 31) return cudaErrorInvalidValue;
  const Launch launch{dim3(unsigned(blocks)), dim3(unsigned(tile.threads)), bytes, stream};
  return launch(pair_pass<V, R, Kind>, size, a, tile);
}

template <class V, class R>
cudaError_t run(const PairInvariants& size, const PairInvariantsBackward& a, cudaStream_t stream) {
  switch (size.space) {
    case Space::planar: return run<V, R, Planar>(size, a, stream);
    case Space::spatial: return run<V, R, Spatial>(size, a, stream);
    default: return run<V, R, Distance>(size, a, stream);
  }
}

template <class R>
cudaError_t run(const PairInvariants& size, const PairInvariantsBackward& a, cudaStream_t stream) {
  return a.change ? run<Dual<R>, R>(size, a, stream) : run<R, R>(size, a, stream);
}

}  // namespace

std::int64_t pair_invariants_workspace(const PairInvariants&, const PairInvariantsForward&) { return 0; }
std::int64_t pair_invariants_backward_workspace(const PairInvariants&, const PairInvariantsBackward&) {
  return 0;
}

// The result is a pass without gradients.
cudaError_t pair_invariants(const PairInvariants& size, const PairInvariantsForward& a, void* workspace,
                            cudaStream_t stream) {
  return pair_invariants_backward(size, {{}, a.at, {}, a.out, {}}, workspace, stream);
}
cudaError_t pair_invariants_backward(const PairInvariants& size, const PairInvariantsBackward& a, void*,
                                     cudaStream_t stream) {
  return a.at.rel.dtype == DType::float64 ? run<double>(size, a, stream) : run<float>(size, a, stream);
}

}  // namespace equiconv::cuda
