// pair_moments on a GPU.
//
//   out[r, o, k, c]     = sum over pairs e with receiver r of basis[e, o, k] x[s(e), o, c]
//   grad basis[e, o, k] = sum_c x[s(e), o, c] G[k, c],   G = grad_out[r(e), o]
//   grad x[s, o, c]     = sum over pairs e with sender s of the message sum_k basis[e, o, k] G[k, c]
//
// All are products of small matrices that a receiver and an orientation have, and a warp makes a tile of one
// as sums of outer products (pair_moments_tile.cuh):
//
//   moments        functions by channels, a term for each pair of the receiver
//   pair_products  16 pairs by 64 functions, a term for each channel: the gradient of the basis; or by 64
//                  channels, a term for each function: messages, which are kept
//   sum_messages   of each sender, a piece of a row a thread
//
// So G is read once for all pairs of a receiver (up to 16). By sender each pair would read its receiver's G
// anew, K C numbers for a row of C. Messages take a row for each pair, of some orientations at a time.
//
// Every sum has the order of its group, nothing is atomic: same input, same bits. However many pairs a group
// has, one warp goes through them.
//
// What bounds moments is memory, written once: at K = C = 128 and 16 pairs a receiver, 64 KB an orientation
// take 15 ns of an H200, their multiply-adds in float32 9 ns without tensor cores. Predicted, not yet run on
// a GPU.
#include "pair_moments.h"

#include <algorithm>

#include "device.cuh"
#include "launch.cuh"
#include "pair_moments_tile.cuh"

namespace equiconv::cuda {
namespace {

constexpr int kWarps = 4;

// The units of a warp's work: tiles of matrices of orientations of groups, the tiles of one side by side, so
// that the warps of a block read the same rows.
struct Units {
  std::int64_t groups, orientations, tiles;
  struct Unit {
    std::int64_t group, orientation, tile;
  };
  __host__ __device__ std::int64_t count() const { return groups * orientations * tiles; }
  __device__ __forceinline__ static std::int64_t first() {
    return std::int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  }
  __device__ __forceinline__ static std::int64_t stride() { return std::int64_t(gridDim.x) * kWarps; }
  __device__ __forceinline__ Unit operator[](std::int64_t i) const {
    const std::int64_t matrix = i / tiles;
    return {matrix / orientations, matrix % orientations, i % tiles};
  }
};

// ---- the moments -----------------------------------------------------------------------------------

template <class T>
struct MomentsJob {
  Groups groups;
  Units units;
  Shape shape;
  std::int64_t functions, channels, across;  // tiles side by side
  Table<const T> basis, x;
  Moments<void> out;
  bool wide;  // out
};

template <class T>
__global__ void __launch_bounds__(32 * kWarps, sizeof(T) == 8 ? 1 : 5) moments(const MomentsJob<T> job) {
  using R = RealOf<T>;
  alignas(16) __shared__ R shared[kWarps][kStaged];
  const Shape shape = job.shape;
  R* const own = shared[threadIdx.x / 32];
  const Staged<R> left(own, shape.rows()), right(own + kStep * left.pitch, shape.columns());

#pragma unroll 1
  for (std::int64_t i = Units::first(); i < job.units.count(); i += Units::stride()) {
    const auto unit = job.units[i];
    const std::int64_t function = unit.tile / job.across * shape.rows(),
                       channel = unit.tile % job.across * shape.columns();
    const int functions = int(min(job.functions - function, std::int64_t(shape.rows()))),
              channels = int(min(job.channels - channel, std::int64_t(shape.columns())));
    const std::int64_t end = job.groups.offset[unit.group + 1];
    Sums<R> sums;
#pragma unroll 1
    for (std::int64_t pair = job.groups.offset[unit.group]; pair < end; pair += kStep) {
      const int count = int(min(end - pair, std::int64_t(kStep)));
      const std::int64_t mine = pair + min(lane(), count - 1);
      const std::int64_t row = job.groups.row[mine], sender = job.groups.neighbour[mine];
      stage<Lines::terms, T>(left, {kStep, shape.rows(), count, functions}, job.basis.entry, job.basis.wide,
                             [&](int p) {
                               return job.basis.at(__shfl_sync(kAllLanes, row, p), unit.orientation) +
                                      function * job.basis.entry;
                             });
      stage<Lines::terms, T>(
          right, {kStep, shape.columns(), count, channels}, job.x.entry, job.x.wide, [&](int p) {
            return job.x.at(__shfl_sync(kAllLanes, sender, p), unit.orientation) + channel * job.x.entry;
          });
      __syncwarp();  // the receiver's terms are there
      sums.add(left, right, shape, count);
      __syncwarp();  // the receiver's terms are read
    }
    T* const out = static_cast<T*>(job.out.data) + unit.group * job.out.row +
                   unit.orientation * job.out.orientation + function * job.out.function +
                   channel * job.out.channel;
    sums.template store<T>(shape, functions, channels, job.out.channel, job.wide,
                           [&](int k) { return out + k * job.out.function; });
  }
}

// ---- products of pairs' rows with their receiver's matrix -------------------------------------------

// For `together` orientations one row, the sum of theirs.
template <class T, class Stored>
struct ProductsJob {
  static constexpr Shape kShape{4, 8};
  Groups groups;
  Units units;  // of orientations: spans of `together`
  std::int64_t together, terms, entries;
  bool of_senders;  // what rows are multiplied: those of senders, or of pairs
  Table<const T> rows;
  // (receiver, orientation, term, entry). Wide: pieces are contiguous and aligned, along entries if these
  // are contiguous, else along terms.
  const T* matrix;
  std::int64_t receiver, orientation, term, entry;
  bool wide;
  Table<Stored> to;  // (pair, span, entry)
};

template <class T, class Stored>
__global__ void __launch_bounds__(32 * kWarps) pair_products(const ProductsJob<T, Stored> job) {
  using R = RealOf<T>;
  alignas(16) __shared__ R shared[kWarps][kStaged];
  constexpr Shape kShape = ProductsJob<T, Stored>::kShape;
  constexpr int kPairs = kShape.rows(), kEntries = kShape.columns();
  R* const own = shared[threadIdx.x / 32];
  const Staged<R> left(own, kPairs), right(own + kStep * left.pitch, kEntries);

#pragma unroll 1
  for (std::int64_t i = Units::first(); i < job.units.count(); i += Units::stride()) {
    const auto unit = job.units[i];
    const std::int64_t first = unit.tile * kEntries, end = job.groups.offset[unit.group + 1];
    const int entries = int(min(job.entries - first, std::int64_t(kEntries)));
#pragma unroll 1
    for (std::int64_t pair = job.groups.offset[unit.group]; pair < end; pair += kPairs) {
      const int count = int(min(end - pair, std::int64_t(kPairs)));
      const std::int64_t mine = pair + min(lane(), count - 1);
      const std::int64_t to = job.groups.row[mine], from = job.of_senders ? job.groups.neighbour[mine] : to;
      Sums<R> sums;
#pragma unroll 1
      for (std::int64_t o = unit.orientation * job.together; o < (unit.orientation + 1) * job.together; ++o)
#pragma unroll 1
        for (std::int64_t term = 0; term < job.terms; term += kStep) {
          const int terms = int(min(job.terms - term, std::int64_t(kStep)));
          stage<Lines::places, T>(
              left, {kPairs, kStep, count, terms}, job.rows.entry, job.rows.wide,
              [&](int p) { return job.rows.at(__shfl_sync(kAllLanes, from, p), o) + term * job.rows.entry; });
          const T* matrix = job.matrix + unit.group * job.receiver + o * job.orientation + term * job.term +
                            first * job.entry;
          if (job.entry == 1)
            stage<Lines::terms, T>(right, {kStep, kEntries, terms, entries}, 1, job.wide,
                                   [&](int t) { return matrix + t * job.term; });
          else
            stage<Lines::places, T>(right, {kEntries, kStep, entries, terms}, job.term, job.wide,
                                    [&](int e) { return matrix + e * job.entry; });
          __syncwarp();  // the matrix's terms are there
          sums.add(left, right, kShape, terms);
          __syncwarp();  // the matrix's terms are read
        }
      sums.template store<Stored>(kShape, count, entries, job.to.entry, job.to.wide, [&](int p) {
        return job.to.at(__shfl_sync(kAllLanes, to, p), unit.orientation) + first * job.to.entry;
      });
    }
  }
}

// ---- sums of messages ------------------------------------------------------------------------------

template <class T>
struct SumJob {
  Groups groups;
  std::int64_t orientations, pieces, channels;
  Table<const RealOf<T>> messages;  // (pair, orientation, channel), wide
  Table<T> to;
};

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) sum_messages(const SumJob<T> job) {
  constexpr int W = kPiece<T>;
  const std::int64_t all = job.groups.count * job.orientations * job.pieces;
  for (std::int64_t i = blockIdx.x * std::int64_t(kThreads) + threadIdx.x; i < all;
       i += gridDim.x * std::int64_t(kThreads)) {
    const std::int64_t row = i / job.pieces, group = row / job.orientations, o = row % job.orientations;
    const int channel = int(i % job.pieces) * W;
    Piece<RealOf<T>> sum = {};
    const std::int64_t end = job.groups.offset[group + 1];
#pragma unroll 4
    for (std::int64_t pair = job.groups.offset[group]; pair < end; ++pair) {
      const auto* message = job.messages.at(job.groups.row[pair], o) + channel;
      const auto piece = *reinterpret_cast<const Piece<RealOf<T>>*>(message);
#pragma unroll
      for (int k = 0; k < W; ++k) sum.value[k] += piece.value[k];
    }
    Piece<T> stored;
#pragma unroll
    for (int k = 0; k < W; ++k) stored.value[k] = T(sum.value[k]);
    T* to = job.to.at(group, o) + channel * job.to.entry;
    if (job.to.wide) {
      *reinterpret_cast<Piece<T>*>(to) = stored;
    } else {
#pragma unroll
      for (int k = 0; k < W; ++k)
        if (channel + k < job.channels) to[k * job.to.entry] = stored.value[k];
    }
  }
}

// ---- launchers -------------------------------------------------------------------------------------

std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

Launch blocks_of(std::int64_t blocks, int threads, cudaStream_t stream) {
  return {dim3(unsigned(std::min<std::int64_t>(blocks, 1 << 20))), dim3(unsigned(threads)), 0, stream};
}

// Whether pieces are aligned, given what they are offset by.
template <class T>
bool is_aligned(const void* data, std::int64_t offsets) {
  constexpr std::int64_t bytes = sizeof(Piece<T>);
  return (reinterpret_cast<std::intptr_t>(data) | offsets * std::int64_t(sizeof(T))) % bytes == 0;
}

template <class T, class Void>
Table<T> table(const Rows<Void>& a, std::int64_t entries) {
  const bool wide =
      a.entry == 1 && is_aligned<std::remove_const_t<T>>(a.data, a.row | a.orientation | entries);
  return {static_cast<T*>(a.data), a.row, a.orientation, a.entry, wide};
}

// The fewest tiles, and of these the squarest.
Shape shape_of(std::int64_t functions, std::int64_t channels) {
  Shape best{8, 4};
  const auto tiles = [&](const Shape& s) {
    return quotient_up(functions, s.rows()) * quotient_up(channels, s.columns());
  };
  for (const Shape shape : {Shape{4, 8}, Shape{16, 2}})
    if (tiles(shape) < tiles(best)) best = shape;
  return best;
}

// Calls f with a number of the type.
template <class F>
cudaError_t with_stored(DType stored, F f) {
  switch (stored) {
    case DType::float64: return f(double());
    case DType::bfloat16: return f(__nv_bfloat16());
    case DType::float16: return f(__half());
    default: return f(float());
  }
}

template <class T>
cudaError_t sum(const PairMessage& size, const PairMoments& a, cudaStream_t stream) {
  MomentsJob<T> job;
  job.groups = Groups::of(a.pairs, size.receivers, size.pairs);
  job.shape = shape_of(size.functions, size.channels);
  job.functions = size.functions, job.channels = size.channels;
  job.across = quotient_up(size.channels, job.shape.columns());
  job.units = {size.receivers, size.orientations, quotient_up(size.functions, job.shape.rows()) * job.across};
  job.basis = table<const T>(a.basis, size.functions), job.x = table<const T>(a.x, size.channels);
  job.out = a.out;
  job.wide = a.out.channel == 1 &&
             is_aligned<T>(a.out.data, a.out.row | a.out.orientation | a.out.function | size.channels);
  return blocks_of(quotient_up(job.units.count(), kWarps), 32 * kWarps, stream)(moments<T>, job);
}

// Gradients. Without a stream's launches it only counts its workspace.
template <class T>
struct Gradients {
  using R = RealOf<T>;
  static constexpr std::int64_t kMessages = 32 << 20;  // bytes, that they may be in the L2 cache still
  const PairMessage& size;
  const PairMomentsGradients& a;
  cudaStream_t stream;

  std::int64_t pitch() const { return quotient_up(size.channels, kPiece<T>) * kPiece<T>; }
  std::int64_t together() const {
    const std::int64_t bytes = size.pairs * pitch() * std::int64_t(sizeof(R));
    return std::clamp<std::int64_t>(kMessages / bytes, 1, size.orientations);
  }
  void take(Workspace& workspace, R*& messages) const {
    messages = a.grad_x ? workspace.take<R>(size.pairs * together() * pitch()) : nullptr;
  }

  // Of the matrices (receiver, orientation, term, entry), which has the strides `term` and `entry`.
  template <class Stored>
  cudaError_t products(ProductsJob<T, Stored>& job, std::int64_t orientations) const {
    const std::int64_t across = job.entry == 1 ? job.term : job.entry,
                       length = job.entry == 1 ? job.entries : job.terms;
    job.groups = Groups::of(a.by_receiver, size.receivers, size.pairs);
    job.units = {size.receivers, orientations / job.together,
                 quotient_up(job.entries, ProductsJob<T, Stored>::kShape.columns())};
    job.receiver = a.grad_out.row, job.orientation = a.grad_out.orientation;
    job.wide = (job.entry == 1 || job.term == 1) &&
               is_aligned<T>(job.matrix, job.receiver | job.orientation | across | length);
    return blocks_of(quotient_up(job.units.count(), kWarps), 32 * kWarps, stream)(pair_products<T, Stored>,
                                                                                  job);
  }

  cudaError_t of_basis() const {
    ProductsJob<T, T> job;
    job.together = size.shared ? size.orientations : 1;
    job.terms = size.channels, job.entries = size.functions;
    job.of_senders = true, job.rows = table<const T>(a.x, size.channels);
    job.matrix = static_cast<const T*>(a.grad_out.data);
    job.term = a.grad_out.channel, job.entry = a.grad_out.function;
    job.to = table<T>(a.grad_basis, size.functions);
    return products(job, size.orientations);
  }

  // By way of messages of the orientations first … first + count - 1.
  cudaError_t of_x(R* messages, std::int64_t first, std::int64_t count) const {
    ProductsJob<T, R> job;
    job.together = 1;
    job.terms = size.functions, job.entries = size.channels;
    job.of_senders = false, job.rows = table<const T>(a.basis, size.functions);
    job.rows.data += first * job.rows.orientation;
    job.matrix = static_cast<const T*>(a.grad_out.data) + first * a.grad_out.orientation;
    job.term = a.grad_out.function, job.entry = a.grad_out.channel;
    job.to = {messages, count * pitch(), pitch(), 1, true};
    if (const cudaError_t e = products(job, count)) return e;

    SumJob<T> sums{Groups::of(a.by_sender, size.senders, size.pairs),
                   count,
                   pitch() / kPiece<T>,
                   size.channels,
                   {messages, count * pitch(), pitch(), 1, true},
                   table<T>(a.grad_x, size.channels)};
    sums.to.data += first * sums.to.orientation;
    const std::int64_t threads = size.senders * count * sums.pieces;
    return blocks_of(quotient_up(threads, kThreads), kThreads, stream)(sum_messages<T>, sums);
  }

  cudaError_t launch(R* messages) const {
    if (a.grad_basis)
      if (const cudaError_t e = of_basis()) return e;
    if (a.grad_x)
      for (std::int64_t o = 0; o < size.orientations; o += together())
        if (const cudaError_t e = of_x(messages, o, std::min(together(), size.orientations - o))) return e;
    return cudaSuccess;
  }
};

}  // namespace

std::int64_t pair_moments_workspace(const PairMessage&, const PairMoments&) { return 0; }

std::int64_t pair_moments_gradients_workspace(const PairMessage& size, const PairMomentsGradients& a) {
  Workspace workspace;
  with_stored(a.x.dtype, [&](auto stored) {
    RealOf<decltype(stored)>* messages;
    Gradients<decltype(stored)>{size, a, nullptr}.take(workspace, messages);
    return cudaSuccess;
  });
  return workspace.used;
}

cudaError_t pair_moments(const PairMessage& size, const PairMoments& a, void*, cudaStream_t stream) {
  return with_stored(a.x.dtype, [&](auto stored) { return sum<decltype(stored)>(size, a, stream); });
}

cudaError_t pair_moments_gradients(const PairMessage& size, const PairMomentsGradients& a, void* workspace,
                                   cudaStream_t stream) {
  return with_stored(a.x.dtype, [&](auto stored) {
    Workspace taken{static_cast<char*>(workspace)};
    RealOf<decltype(stored)>* messages;
    const Gradients<decltype(stored)> gradients{size, a, stream};
    gradients.take(taken, messages);
    return gradients.launch(messages);
  });
}

}  // namespace equiconv::cuda
