// Pairs by the tile: some consecutive pairs of a piece, a piece being what a warp sums without a stop.
//
// All 32 lanes of a warp work together: lane m knows pair m of its tile.
#pragma once
#include <cuda_runtime.h>

#include "../pair_message.h"

namespace equiconv::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ int lane() { return int(threadIdx.x % 32); }

struct Index {
  const void* data;
  bool wide;
  __device__ __forceinline__ std::int64_t operator[](std::int64_t i) const {
    return wide ? static_cast<const std::int64_t*>(data)[i] : static_cast<const std::int32_t*>(data)[i];
  }
};

struct Groups {
  Index offset, neighbour, row;
  std::int64_t count, pairs;

  static Groups of(const PairGroups& g, std::int64_t count, std::int64_t pairs) {
    return {{g.offsets, g.wide}, {g.neighbours, g.wide}, {g.rows, g.wide}, count, pairs};
  }

  // The first group that begins at pair `at` or after it, found by 32 probes at a time.
  __device__ std::int64_t first_from(std::int64_t at) const {
    std::int64_t low = 0, high = count;  // offset[count] is the number of pairs
    while (low < high) {
      const std::int64_t step = (high - low + 31) / 32, probe = low + step * (lane() + 1) - 1;
      const bool before = probe < high && offset[probe] < at;
      const std::int64_t below = __popc(__ballot_sync(kAllLanes, before));
      high = min(high, low + step * (below + 1) - 1);
      low = min(high, low + step * below);
    }
    return low;
  }
};

struct Tile {
  std::int64_t neighbour, row, group;  // of this lane's pair
  int count = 0;
  unsigned ends = 0;               // bit m: pair m is its group's last
  int orientation = 0, piece = 0;  // the unit's, the first of its orientations
  int head = -1;                   // the pair that ends a group begun in an earlier piece
  bool open = false;               // its first pair's group has pairs in the piece's last tile
  bool tail = false;               // the piece ends with this tile, but not the last pair's group

  __device__ __forceinline__ bool has_lane() const { return lane() < count; }
};

// The tile of `count` pairs from `first` on. `group` is the first pair's or an earlier group, and then the
// last pair's.
__device__ __forceinline__ Tile tile_at(const Groups& groups, std::int64_t first, int count,
                                        std::int64_t& group) {
  Tile tile;
  tile.count = count;
  const std::int64_t pair = first + min(lane(), count - 1);
  tile.neighbour = groups.neighbour[pair], tile.row = groups.row[pair];
  bool found = false, last = false;
  for (;; group += 32) {
    const std::int64_t candidate = group + lane();
    const std::int64_t end = candidate < groups.count ? groups.offset[candidate + 1] : groups.pairs + 1;
    int below = 0;  // how many of the 32 groups end before this lane's pair, but 31 at most
#pragma unroll
    for (int step = 16; step; step /= 2)
      if (__shfl_sync(kAllLanes, end, below + step - 1) <= pair) below += step;
    const std::int64_t end_here = __shfl_sync(kAllLanes, end, below);
    if (!found && end_here > pair) {
      found = true, tile.group = group + below;
      last = end_here == pair + 1;
    }
    if (__all_sync(kAllLanes, found)) break;
  }
  tile.ends = __ballot_sync(kAllLanes, last && lane() < count);
  group = __shfl_sync(kAllLanes, tile.group, count - 1);
  return tile;
}

// How the pairs are cut into pieces; that depends on their number alone, and so do the bits of every sum.
// A unit of a warp's work is a piece and `together` orientations.
struct Cut {
  std::int64_t piece, pieces;
  bool whole;  // a piece ends where a group does
  int together, spans;

  static constexpr std::int64_t kWhole = 4096;  // up to so many pairs: one launch
  static constexpr std::int64_t kPieces = 1024;

  static Cut of(std::int64_t pairs, int orientations, int together) {
    Cut cut;
    cut.whole = pairs <= kWhole;
    cut.piece = cut.whole ? 32 : ((pairs + kPieces - 1) / kPieces + 31) / 32 * 32;
    cut.piece = cut.whole || cut.piece > 128 ? cut.piece : 128;
    cut.pieces = (pairs + cut.piece - 1) / cut.piece;
    cut.together = together, cut.spans = (orientations + together - 1) / together;
    return cut;
  }
  __host__ __device__ std::int64_t units() const { return pieces * spans; }
};

// A warp's way through its units, tile by tile.
template <int kPairs>
class Walk {
 public:
  __device__ Walk(const Groups& groups, const Cut& cut)
      : groups_(groups),
        cut_(cut),
        stride_(std::int64_t(gridDim.x) * (blockDim.x / 32)),
        unit_(std::int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32 - stride_) {}

  // The next tile, false if there is none. Calls empty(group, orientation) for groups without pairs.
  template <class Empty>
  __device__ __forceinline__ bool next(Tile& tile, Empty empty) {
    while (position_ >= end_) {
      unit_ += stride_;
      if (unit_ >= cut_.units()) return false;
      begin_unit(empty);
    }
    const bool first = position_ == begin_;
    tile = tile_at(groups_, position_, int(min(std::int64_t(kPairs), end_ - position_)), group_);
    tile.piece = int(unit_ / cut_.spans);
    tile.orientation = int(unit_ % cut_.spans) * cut_.together;
    tile.open = !first && open_;
    tile.head = inside_ && tile.ends ? __ffs(int(tile.ends)) - 1 : -1;
    if (tile.ends) inside_ = false;
    open_ = !(tile.ends >> (tile.count - 1) & 1u);
    position_ += tile.count;
    tile.tail = open_ && position_ == end_;
    return true;
  }

 private:
  template <class Empty>
  __device__ void begin_unit(Empty empty) {
    const std::int64_t piece = unit_ / cut_.spans, at = piece * cut_.piece;
    const std::int64_t low = groups_.first_from(at);
    const std::int64_t high = piece + 1 == cut_.pieces ? groups_.count : groups_.first_from(at + cut_.piece);
    for (std::int64_t g = low; g < high; g += 32) {
      const bool none = g + lane() < high && groups_.offset[g + lane()] == groups_.offset[g + lane() + 1];
      for (unsigned all = __ballot_sync(kAllLanes, none); all; all &= all - 1)
        empty(g + __ffs(int(all)) - 1, int(unit_ % cut_.spans) * cut_.together);
    }
    begin_ = cut_.whole ? groups_.offset[low] : at;
    end_ = cut_.whole ? groups_.offset[high] : min(at + cut_.piece, groups_.pairs);
    inside_ = groups_.offset[low] > begin_;
    group_ = inside_ ? low - 1 : low;
    position_ = begin_, open_ = false;
  }

  Groups groups_;
  Cut cut_;
  std::int64_t stride_, unit_;
  std::int64_t begin_ = 0, position_ = 0, end_ = 0, group_ = 0;
  bool inside_ = false, open_ = false;
};

}  // namespace equiconv::cuda
