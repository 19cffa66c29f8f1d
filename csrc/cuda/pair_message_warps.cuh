// The kernels of which every warp works on its own: the sums over groups, and the gradient of the basis.
//
// A block has the weight in shared memory, each of its warps two tiles' rows there, one to work on while the
// other is on its way (or in the room of both the rows of one, of both directions of its pairs: then other
// warps work meanwhile). Weights of too many terms come in slabs, for which the block's warps wait for each
// other.
#pragma once
#include "launch.cuh"
#include "pair_message_rows.cuh"

namespace equiconv::cuda {

constexpr int kMaxWarps = 8;

// How the weight is cut: `columns` of its rows to a block, `terms` of its terms at a time.
struct Plan {
  int columns, terms, slabs, warps;
};

// ---- a warp's stream of tiles ----------------------------------------------------------------------

// Job has: plan, cut, groups, weight; kArrays, how many rows a pair has in a buffer, of which there are
// kBuffers, two or one; parts(), in how many
// parts the sum of a tile's product comes, and results(), for how many orientations it is finished;
// warp_bytes() of shared memory; and what is done with a tile: stage, rows, bring, finish; with a group
// without pairs: empty.
template <class S, class Job>
__device__ __forceinline__ void run(const Job& job) {
  using T = typename S::Stored;
  using Real = typename S::Real;
  const Plan& plan = job.plan;
  const int warp = int(threadIdx.x / 32), chunks = plan.columns / kRows;
  const int first_row = int(blockIdx.y) * plan.columns;

  // 1. Shared memory: the weight, then each warp's.
  unsigned char* shared = dynamic_shared();
  const WeightRows<S> weight{reinterpret_cast<typename S::WeightElement*>(shared),
                             pitch_of<typename S::WeightElement>(plan.terms), plan.columns};
  shared += WeightRows<S>::bytes(plan.columns, plan.terms) + warp * job.warp_bytes();
  T* const buffers = reinterpret_cast<T*>(shared);
  const int buffer = Job::kArrays * S::kPairs * pitch_of<T>(plan.terms);
  Real* const own = reinterpret_cast<Real*>(buffers + Job::kBuffers * buffer);
  if (plan.slabs == 1) {
    load_weight(weight, job.weight, first_row, 0, plan.terms);
    __syncthreads();
  }

  // 2. Tiles, each a part at a time: the next one is asked for before this one is worked on, if it has a
  //    buffer of its own.
  Walk<S::kPairs> walk(job.groups, job.cut);
  Tile tile, next;
  Sums<S> sums;
  bool more = false;
  int part = job.parts() - 1, now = 0;
  for (bool first = true; first || (plan.slabs == 1 ? more : __syncthreads_or(more)); first = false) {
    const bool last_part = part + 1 == job.parts();
    const int next_part = last_part ? 0 : part + 1;
    bool next_more = more;
    if (!last_part) next = tile;
    else if (first || more)
      next_more = walk.next(next, [&](std::int64_t group, int o) { job.empty(group, o, first_row); });
    if (Job::kBuffers == 2 && next_more) job.stage(buffers + (now ^ 1) * buffer, next, next_part);
    ptx::cp_async_commit_group();
    if (plan.slabs > 1) {
      load_weight(weight, job.weight, first_row, part % plan.slabs * plan.terms, plan.terms);
      __syncthreads();
    }
    ptx::cp_async_wait_group<Job::kBuffers - 1>();
    __syncwarp();  // every lane's copies are visible

    if (more) {
      const int end = tile.orientation + (last_part ? job.results(tile) : 1);
      for (int chunk = 0; chunk < chunks; ++chunk)
        for (int o = tile.orientation; o < end; ++o) {
          const int row = first_row + chunk * kRows;
          const auto brought = job.bring(tile, o, row, last_part);
          if (o == tile.orientation) {
            if (part == 0) sums.clear();
            multiply(sums, weight, chunk, job.rows(buffers + now * buffer), plan.terms);
          }
          if (last_part)
            job.finish(tile, o, row, sums, brought,
                       own + (o - tile.orientation) * plan.columns + chunk * kRows);
        }
    }
    __syncwarp();  // the buffer may be filled again
    if (Job::kBuffers == 1 && next_more) job.stage(buffers, next, next_part);
    tile = next, more = next_more, part = next_part, now ^= Job::kBuffers - 1;
  }
}

// ---- sums over groups ------------------------------------------------------------------------------

// What a piece has of groups that other pieces have pairs of, too.
template <class Real>
struct Partials {
  Real* data;
  std::int64_t orientations, channels;
  enum Side { head, tail };

  __host__ __device__ std::int64_t count(std::int64_t pieces) const {
    return pieces * 2 * orientations * channels;
  }
  __device__ __forceinline__ Real* row(std::int64_t piece, Side side, std::int64_t orientation) const {
    return data + ((piece * 2 + side) * orientations + orientation) * channels;
  }
};

template <class S>
struct Aggregate {
  using T = typename S::Stored;
  using Real = typename S::Real;
  static constexpr int kArrays = 1, kBuffers = 2;
  static constexpr int kRun = S::kRun;

  Groups groups;
  Cut cut;
  Plan plan;
  int orientations;
  WeightSource weight;
  Source x, basis;
  Target out;
  Partials<Real> partials;
  Antipodes antipodes;

  __host__ __device__ std::int64_t warp_bytes() const {
    return 2 * kArrays * S::kPairs * pitch_of<T>(plan.terms) * std::int64_t(sizeof(T)) +
           std::int64_t(sizeof(Real)) * cut.together * plan.columns;
  }
  __device__ __forceinline__ int parts() const { return plan.slabs; }

  __device__ __forceinline__ void stage(T* to, const Tile& tile, int part) const {
    std::int64_t row = tile.row, orientation = tile.orientation;
    if (row >= antipodes.rows) row -= antipodes.rows, orientation = antipodes.of[orientation];
    const std::int64_t place = tile.has_lane() ? place_of(basis, row, orientation) : kNoRow;
    equiconv::cuda::stage(to, Along<T, S::kPairs>(plan.terms), basis, place, S::kPairs, part * plan.terms,
                          plan.terms);
  }
  __device__ __forceinline__ StagedRows<S> rows(const T* buffer) const {
    return {buffer, pitch_of<T>(plan.terms)};
  }
  __device__ void empty(std::int64_t group, int first, int channel) const {
    const int end = min(first + cut.together, orientations);
    const Real zeros[8] = {};
    for (int o = first; o < end; ++o)
      for (int c = channel + 8 * lane(); c < min(channel + plan.columns, out.entries); c += 256)
        store_eight<T>(out, group, o, c, zeros);
  }

  __device__ __forceinline__ int results(const Tile& tile) const {
    return min(cut.together, orientations - tile.orientation);
  }

  // The features that this lane's pairs are sent, on their way while the filters are made; where factors take
  // more registers than that leaves, of float64 and of halves as tf32, after that.
  static constexpr bool kEarly = S::kHalves || std::is_same_v<T, float>;
  struct Brought {
    Eight<T> of[kEarly ? kRun : 1];
  };
  __device__ __forceinline__ Eight<T> features(const Tile& tile, int o, int channel, int i) const {
    const int pair = lane() % 4 * kRun + i;
    return load_eight<T>(x, __shfl_sync(kAllLanes, tile.neighbour, pair), o, channel + lane() / 4 * kOwn,
                         pair < tile.count);
  }
  __device__ __forceinline__ Brought bring(const Tile& tile, int o, int channel, bool wanted) const {
    Brought brought{};
    if constexpr (kEarly)
      if (wanted)
#pragma unroll
        for (int i = 0; i < kRun; ++i) brought.of[i] = features(tile, o, channel, i);
    return brought;
  }

  // Adds filters times features over the tile's groups: each lane over its own pairs, then what four lanes'
  // runs, and the tiles before, have of the same group. Always in the order of the pairs.
  __device__ __forceinline__ void finish(const Tile& tile, int o, int channel, const Sums<S>& filters,
                                         const Brought& brought, Real* open) const {
    const int g = lane() / 4, t = lane() % 4, first_channel = channel;
    channel += g * kOwn;
    Real sum[kOwn] = {}, head[kOwn] = {};
    int first_end = -1;  // of this lane's pairs the first that ends a group, `head` the sum up to it
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const int pair = t * kRun + i;
      const std::int64_t group = __shfl_sync(kAllLanes, tile.group, pair);
      const Eight<T> sent = kEarly ? brought.of[kEarly ? i : 0] : features(tile, o, first_channel, i);
      if (pair >= tile.count) continue;
#pragma unroll
      for (int c = 0; c < kOwn; ++c) sum[c] += filters.get(c, i) * Real(sent[c]);
      if (!(tile.ends >> pair & 1u)) continue;
      if (first_end >= 0) store(group, o, channel, sum);
#pragma unroll
      for (int c = 0; c < kOwn; ++c) {
        if (first_end < 0) head[c] = sum[c];
        sum[c] = 0;
      }
      if (first_end < 0) first_end = pair;
    }

    // What the pairs before have of the group that this lane's first pair is in, and what it leaves.
    Real before[kOwn], left[kOwn];
#pragma unroll
    for (int c = 0; c < kOwn; ++c) before[c] = 0;
    if (t == 0 && tile.open) take_open(before, open);
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int c = 0; c < kOwn; ++c) {
        left[c] = first_end >= 0 ? sum[c] : before[c] + sum[c];
        if (step == 3) continue;
        const Real above = __shfl_up_sync(kAllLanes, left[c], 1);
        if (t == step + 1) before[c] = above;
      }
    const std::int64_t group = __shfl_sync(kAllLanes, tile.group, first_end >= 0 ? first_end : 0);
    if (first_end >= 0) {
#pragma unroll
      for (int c = 0; c < kOwn; ++c) head[c] += before[c];
      if (first_end == tile.head) keep(Partials<Real>::head, tile.piece, o, channel, head);
      else store(group, o, channel, head);
    }
    __syncwarp();  // what the last tile left is read
    if (t == 3) {
      if (tile.tail) keep(Partials<Real>::tail, tile.piece, o, channel, left);
      else keep_open(open, left);
    }
    __syncwarp();  // what this one leaves is there
  }
  // A lane's eight sums as they are kept for the next tile: 16 bytes at a time, eight lanes' side by side.
  using Part = Vector<Real>;
  static __device__ __forceinline__ void keep_open(Real* open, const Real (&sums)[kOwn]) {
#pragma unroll
    for (int c = 0; c < kOwn; c += Part::kWidth) {
      Part part;
#pragma unroll
      for (int i = 0; i < Part::kWidth; ++i) part.value[i] = sums[c + i];
      reinterpret_cast<Part*>(open)[c / Part::kWidth * 8 + lane() / 4] = part;
    }
  }
  static __device__ __forceinline__ void take_open(Real (&sums)[kOwn], const Real* open) {
#pragma unroll
    for (int c = 0; c < kOwn; c += Part::kWidth) {
      const Part part = reinterpret_cast<const Part*>(open)[c / Part::kWidth * 8 + lane() / 4];
#pragma unroll
      for (int i = 0; i < Part::kWidth; ++i) sums[c + i] = part.value[i];
    }
  }
  __device__ __forceinline__ void store(std::int64_t group, int o, int channel,
                                        const Real (&sum)[kOwn]) const {
    store_eight<T>(out, group, o, channel, sum);
  }
  __device__ __forceinline__ void keep(typename Partials<Real>::Side side, int piece, int o, int channel,
                                       const Real (&sum)[kOwn]) const {
    Real* to = partials.row(piece, side, o) + channel;
#pragma unroll
    for (int c = 0; c < kOwn; ++c)
      if (channel + c < out.entries) to[c] = sum[c];
  }
};

template <class S>
__global__ void __launch_bounds__(32 * kMaxWarps, 1) aggregate(const Aggregate<S> job) {
  run<S>(job);
}

// ---- the gradient of the basis ---------------------------------------------------------------------

// kBothWays: a row's pair goes both ways, if it is among the first `reversals`, and p is the sum of the two.
template <class S, bool kBothWays>
struct BasisGradient {
  using T = typename S::Stored;
  using Real = typename S::Real;
  static constexpr int kArrays = kBothWays ? 4 : 2, kBuffers = kBothWays ? 1 : 2;

  Groups groups;
  Cut cut;
  Plan plan;
  int orientations;
  WeightSource weight;
  Source x, grad_out;
  Target grad_basis;
  Antipodes antipodes;
  std::int64_t reversals;

  __host__ __device__ std::int64_t warp_bytes() const {
    return kBuffers * kArrays * S::kPairs * pitch_of<T>(plan.terms) * std::int64_t(sizeof(T));
  }
  // A basis row that all orientations share has the sum of their gradients.
  __device__ __forceinline__ int parts() const { return cut.together * plan.slabs; }

  __device__ __forceinline__ void stage(T* to, const Tile& tile, int part) const {
    const int o = tile.orientation + part / plan.slabs;
    const int first = part % plan.slabs * plan.terms;
    const Along<T, S::kPairs> lie(plan.terms);
    const auto bring = [&](int array, const Source& a, std::int64_t point, std::int64_t at, bool there) {
      equiconv::cuda::stage(to + array * S::kPairs * lie.pitch, lie, a,
                            there ? place_of(a, point, at) : kNoRow, S::kPairs, first, plan.terms);
    };
    bring(0, x, tile.neighbour, o, tile.has_lane());
    bring(1, grad_out, tile.group, o, tile.has_lane());
    if constexpr (kBothWays) {
      const bool reversed = tile.has_lane() && tile.row < reversals;
      const std::int64_t opposite = antipodes.of[o];
      bring(2, x, tile.group, opposite, reversed);
      bring(3, grad_out, tile.neighbour, opposite, reversed);
    }
  }
  __device__ __forceinline__ StagedProducts<S, kBothWays> rows(const T* buffer) const {
    return {buffer, pitch_of<T>(plan.terms)};
  }
  __device__ void empty(std::int64_t, int, int) const {}

  __device__ __forceinline__ int results(const Tile&) const { return 1; }
  struct Nothing {};
  __device__ __forceinline__ Nothing bring(const Tile&, int, int, bool) const { return {}; }

  __device__ __forceinline__ void finish(const Tile& tile, int, int function, const Sums<S>& sums, Nothing,
                                         Real*) const {
    const int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int i = 0; i < S::kRun; ++i) {
      const int pair = t * S::kRun + i;
      const std::int64_t row = __shfl_sync(kAllLanes, tile.row, pair);
      Real value[kOwn];
#pragma unroll
      for (int k = 0; k < kOwn; ++k) value[k] = sums.get(k, i);
      if (pair < tile.count) store_eight<T>(grad_basis, row, tile.orientation, function + g * kOwn, value);
    }
  }
};

template <class S, bool kBothWays>
__global__ void __launch_bounds__(32 * kMaxWarps, 1) basis_gradient(const BasisGradient<S, kBothWays> job) {
  run<S>(job);
}

// ---- groups of several pieces ----------------------------------------------------------------------

// The groups that several pieces have pairs of: a block for the piece with the first of them, where it ends.
template <class Real>
__global__ void __launch_bounds__(128)
    join_pieces(const Groups groups, const Cut cut, const Partials<Real> partials, const OutputRows out) {
  const std::int64_t piece = blockIdx.x, begin = piece * cut.piece, end = begin + cut.piece;
  const std::int64_t group = groups.first_from(end) - 1;  // of pair end - 1, if it goes on
  const std::int64_t first = groups.offset[group], last = groups.offset[group + 1] - 1;
  if (first < begin || last < end) return;
  const std::int64_t last_piece = last / cut.piece;
  for (std::int64_t o = 0; o < partials.orientations; ++o)
    for (std::int64_t c = threadIdx.x; c < partials.channels; c += 128) {
      Real sum = partials.row(piece, Partials<Real>::tail, o)[c];
      for (std::int64_t p = piece + 1; p < last_piece; ++p)
        sum += partials.row(p, Partials<Real>::tail, o)[c];
      sum += partials.row(last_piece, Partials<Real>::head, o)[c];
      store_one(out, group * out.row + o * out.orientation + c * out.entry, sum);
    }
}

}  // namespace equiconv::cuda
