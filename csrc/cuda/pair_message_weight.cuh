// The gradient of the weight: basis rows transposed times rows of products, summed over pairs and
// orientations.
//
// A warp holds 64 functions by 32 channels of it in registers and adds tile after tile of one orientation. Up
// to 2 by 4 warps, a team, share a tile's rows in shared memory; a block has as many teams as it has warps
// for, each with tiles of its own. Every team leaves one partial sum, and a second kernel adds those in
// order.
//
//   shared memory   of each team: basis rows, features and gradients twice, one tile to work on while the
//                   next is on its way; the products of the one that is worked on, in parts
//
// Lane 4 g + t reads, of every fourth pair from t on, functions and channels that are its own: both are 16
// bytes of a row. Two pairs' numbers of a half type become the word that mma wants by one permutation.
#pragma once
#include "launch.cuh"
#include "pair_message_rows.cuh"

namespace equiconv::cuda {

constexpr int kTeamFunctions = 64, kTeamChannels = 32;  // of a warp
constexpr int kWeightWarps = 8;

// How a block's warps are arranged: teams of functions x channels warps.
struct Teams {
  int functions, channels, teams;
  __host__ __device__ int warps() const { return functions * channels; }
};

// kBothWays: a row's pair goes both ways, if it is among the first `reversals`, and p is the sum of the two.
template <class S, bool kBothWays>
struct WeightGradient {
  using T = typename S::Stored;
  using Real = typename S::Real;
  using Product = typename S::WeightElement;  // of which products are kept: in parts, or as they are
  static constexpr int kParts = S::kHalves ? S::kRowParts : 1;
  static constexpr int kPointRows = kBothWays ? 4 : 2;  // of a pair: features and gradients

  Groups groups;
  Teams teams;
  std::int64_t orientations;
  Source basis, x, grad_out;
  Antipodes antipodes;
  std::int64_t reversals;
  Real* partials;  // [block.x, team][function][channel]

  __host__ __device__ std::int64_t tiles() const { return (groups.pairs + S::kPairs - 1) / S::kPairs; }
  __host__ __device__ Across<T> basis_rows() const { return Across<T>(teams.functions * kTeamFunctions); }
  __host__ __device__ Across<T> point_rows() const { return Across<T>(teams.channels * kTeamChannels); }
  __host__ __device__ Across<Product> product_rows() const {
    return Across<Product>(teams.channels * kTeamChannels);
  }
  __host__ __device__ int buffer() const {  // entries: basis, features, gradients, of the reversed pair too
    return S::kPairs * (basis_rows().pitch + kPointRows * point_rows().pitch);
  }
  __host__ __device__ std::int64_t team_bytes() const {
    return 2 * buffer() * std::int64_t(sizeof(T)) +
           kParts * S::kPairs * product_rows().pitch * std::int64_t(sizeof(Product));
  }
};

// ---- what a lane reads of rows that lie across ---------------------------------------------------------

// Which of 64 functions are a lane's: with 16 bytes to a load, eight or four neighbours at a time.
template <class T>
__device__ __forceinline__ int function_of(int g, int own) {
  constexpr int kWidth = Vector<T>::kWidth < 4 ? 4 : Vector<T>::kWidth;
  return own / kWidth * (8 * kWidth) + g * kWidth + own % kWidth;
}

template <class T>
__device__ __forceinline__ void load_functions(T (&to)[8], const T* row, int g) {
  constexpr int kWidth = Vector<T>::kWidth;
#pragma unroll
  for (int own = 0; own < 8; own += kWidth) {
    const auto part = *reinterpret_cast<const Vector<T>*>(row + function_of<T>(g, own));
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[own + i] = part.value[i];
  }
}

// Two pairs' numbers of one function or channel as a word.
template <class T>
__device__ __forceinline__ std::uint32_t paired(T first, T second) {
  const T two[2] = {first, second};
  std::uint32_t word;
  std::memcpy(&word, two, sizeof word);
  return word;
}

// Four rows, of one function or channel, as the operand of a product: rows t, t + 4, t + 8, t + 12 of a half
// type, or of tf32, for which there are two products, first t and t + 4, then the others.
template <class Operand, int Parts, class T, int N>
__device__ __forceinline__ Packed<Operand, Parts> column(const T (&rows)[4][N], int i) {
  Packed<Operand, Parts> packed;
  if constexpr (std::is_same_v<Operand, T>) {
    static_assert(Parts == 1);
    packed.word[0][0] = paired(rows[0][i], rows[1][i]);
    packed.word[0][1] = paired(rows[2][i], rows[3][i]);
  } else {
    float v[4] = {float(rows[0][i]), float(rows[1][i]), float(rows[2][i]), float(rows[3][i])};
    packed = pack<Operand, Parts>(v);
  }
  return packed;
}

// ---- the kernels -------------------------------------------------------------------------------------

// p = x grad_out for a tile of a team, in parts; `rows` are those of points.
template <class S, bool kBothWays>
__device__ __forceinline__ void make_products(const WeightGradient<S, kBothWays>& job,
                                              typename WeightGradient<S, kBothWays>::Product* to,
                                              const typename S::Stored* rows, int thread, int threads) {
  using T = typename S::Stored;
  using Job = WeightGradient<S, kBothWays>;
  using Product = typename Job::Product;
  constexpr int kWidth = Vector<T>::kWidth;
  const int pitch = job.point_rows().pitch, product_pitch = job.product_rows().pitch;
  const int vectors = job.teams.channels * kTeamChannels / kWidth;
#pragma unroll 1
  for (int i = thread; i < S::kPairs * vectors; i += threads) {
    const int pair = i / vectors, channel = i % vectors * kWidth;
    typename S::Real p[kWidth];
#pragma unroll
    for (int array = 0; array < Job::kPointRows; array += 2) {
      const T* row = rows + (array * S::kPairs + pair) * pitch + channel;
      const auto a = *reinterpret_cast<const Vector<T>*>(row);
      const auto b = *reinterpret_cast<const Vector<T>*>(row + S::kPairs * pitch);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const auto product = typename S::Real(a.value[k]) * typename S::Real(b.value[k]);
        p[k] = array ? p[k] + product : product;
      }
    }
#pragma unroll
    for (int part = 0; part < Job::kParts; ++part) {
      Product* row = to + (part * S::kPairs + pair) * product_pitch + channel;
#pragma unroll
      for (int first = 0; first < kWidth; first += Vector<Product>::kWidth) {
        Vector<Product> stored;
#pragma unroll
        for (int k = 0; k < Vector<Product>::kWidth; ++k) {
          stored.value[k] = Product(p[first + k]);
          if constexpr (S::kHalves) p[first + k] = rest(p[first + k], float(stored.value[k]));
        }
        *reinterpret_cast<Vector<Product>*>(row + first) = stored;
      }
    }
  }
}

// sums[function][channel] += basis rows transposed times products; channel i + 4 j of a lane is the product's
// column 2 t + j, for channel 8 t + i + 4 j of 32.
template <class S>
__device__ __forceinline__ void multiply_across(typename S::Real (&sums)[8][8],
                                                const typename S::Stored* basis, int basis_pitch,
                                                const typename S::WeightElement* products,
                                                int product_pitch) {
  using T = typename S::Stored;
  using Product = typename S::WeightElement;
  constexpr int kParts = WeightGradient<S, false>::kParts;
  using Operand = typename S::Operand;
  const int g = lane() / 4, t = lane() % 4;
  if constexpr (std::is_same_v<Operand, double>) {
#pragma unroll 1
    for (int pair = 0; pair < S::kPairs; ++pair) {
      double b[8];
      load_functions(b, basis + pair * basis_pitch, g);
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        const double p = products[pair * product_pitch + 8 * t + c];
#pragma unroll
        for (int f = 0; f < 8; ++f) sums[f][c] += b[f] * p;
      }
    }
  } else {
#pragma unroll 1
    for (int step = 0; step < S::kPairs; step += 16) {
      // 1. This lane's rows of the products, four channels of each.
      Packed<Operand, S::kRowParts> right[4];
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        Product rows[4][4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const Product* row = products + (part * S::kPairs + step + t + 4 * i) * product_pitch + 4 * g;
          const auto quad = *reinterpret_cast<const Quad<Product>*>(row);
#pragma unroll
          for (int c = 0; c < 4; ++c) rows[i][c] = quad.value[c];
        }
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if constexpr (S::kHalves) {
            const auto one = column<Operand, 1>(rows, c);
            std::memcpy(right[c].word[part], one.word[0], sizeof one.word[0]);
          } else {
            right[c] = column<Operand, S::kRowParts>(rows, c);
          }
        }
      }
      // 2. Of the basis, eight functions of each; the products leave the tensor cores after 16 pairs.
      T rows[4][8];
#pragma unroll
      for (int i = 0; i < 4; ++i) load_functions(rows[i], basis + (step + t + 4 * i) * basis_pitch, g);
#pragma unroll
      for (int f = 0; f < 8; f += 2) {
        const auto upper = column<Operand, S::kWeightParts>(rows, f);
        const auto lower = column<Operand, S::kWeightParts>(rows, f + 1);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          float d[4] = {};
          multiply_add(d, upper, lower, right[c]);
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[f + i / 2][c + 4 * (i % 2)] += d[i];
        }
      }
    }
  }
}

template <class S, bool kBothWays>
__global__ void __launch_bounds__(32 * kWeightWarps) weight_gradient(const WeightGradient<S, kBothWays> job) {
  using T = typename S::Stored;
  using Real = typename S::Real;
  const Teams teams = job.teams;
  const int warp = int(threadIdx.x / 32), team = warp / teams.warps(), of_team = warp % teams.warps();
  const int my_functions = of_team / teams.channels * kTeamFunctions,
            my_channels = of_team % teams.channels * kTeamChannels;
  const int channel_blocks =
      (job.x.entries + teams.channels * kTeamChannels - 1) / (teams.channels * kTeamChannels);
  const int first_function = int(blockIdx.y) / channel_blocks * teams.functions * kTeamFunctions,
            first_channel = int(blockIdx.y) % channel_blocks * teams.channels * kTeamChannels;

  // 1. Shared memory of the team.
  unsigned char* shared = dynamic_shared() + team * job.team_bytes();
  T* const buffers = reinterpret_cast<T*>(shared);
  const int buffer = job.buffer();
  auto* const products = reinterpret_cast<typename S::WeightElement*>(shared + 2 * buffer * sizeof(T));
  const auto basis_rows = job.basis_rows();
  const auto point_rows = job.point_rows();
  const int points_at = S::kPairs * basis_rows.pitch;

  // 2. The block's run of tiles and their orientations, which its teams take in turns.
  const std::int64_t all = job.tiles() * job.orientations;
  const std::int64_t begin = all * blockIdx.x / gridDim.x, end = all * (blockIdx.x + 1) / gridDim.x;
  const std::int64_t rounds = (end - begin + teams.teams - 1) / teams.teams;
  std::int64_t group = 0, current = -1;
  Tile tile{};
  const auto fetch = [&](std::int64_t round, T* to) {
    const std::int64_t i = begin + round * teams.teams + team;
    const std::int64_t wanted = i / job.orientations, o = i % job.orientations;
    int count = 0;
    if (round < rounds && i < end) {
      if (wanted != current) {
        const std::int64_t first = wanted * S::kPairs;
        if (current < 0) group = job.groups.first_from(first + 1) - 1;
        tile = tile_at(job.groups, first, int(min(std::int64_t(S::kPairs), job.groups.pairs - first)), group);
        current = wanted;
      }
      count = tile.count;
    }
    const bool there = lane() < count;
    stage(to, basis_rows, job.basis, there ? place_of(job.basis, tile.row, o) : kNoRow, S::kPairs,
          first_function, teams.functions * kTeamFunctions, of_team, teams.warps());
    const auto bring = [&](int array, const Source& a, std::int64_t point, std::int64_t at, bool there) {
      stage(to + points_at + array * S::kPairs * point_rows.pitch, point_rows, a,
            there ? place_of(a, point, at) : kNoRow, S::kPairs, first_channel, teams.channels * kTeamChannels,
            of_team, teams.warps());
    };
    bring(0, job.x, tile.neighbour, o, there);
    bring(1, job.grad_out, tile.group, o, there);
    if constexpr (kBothWays) {
      const bool reversed = there && tile.row < job.reversals;
      const std::int64_t opposite = job.antipodes.of[o];
      bring(2, job.x, tile.group, opposite, reversed);
      bring(3, job.grad_out, tile.neighbour, opposite, reversed);
    }
  };

  // 3. Tile by tile: the next is asked for, products are made, and multiplied.
  Real sums[8][8] = {};
  fetch(0, buffers);
  for (std::int64_t round = 0; round < rounds; ++round) {
    T* const now = buffers + (round % 2) * buffer;
    ptx::cp_async_commit_group();
    ptx::cp_async_wait_group<0>();
    __syncthreads();  // the tile is there, the other buffer and the products are free
    fetch(round + 1, buffers + (round + 1) % 2 * buffer);
    make_products(job, products, now + points_at, of_team * 32 + lane(), teams.warps() * 32);
    __syncthreads();  // the products are there
    multiply_across<S>(sums, now + my_functions, basis_rows.pitch, products + my_channels,
                       job.product_rows().pitch);
  }

  // 4. The partial sum.
  Real* const partial =
      job.partials + (std::int64_t(blockIdx.x) * teams.teams + team) * job.basis.entries * job.x.entries;
#pragma unroll
  for (int own = 0; own < 8; ++own) {
    const int function = first_function + my_functions + function_of<T>(lane() / 4, own);
    const int channel = first_channel + my_channels + lane() % 4 * 8;
    if (function >= job.basis.entries) continue;
    const Target row{{partial, DType::float32, job.x.entries, 0, 1}, job.x.entries, job.x.entries % 4 == 0};
    store_eight<Real>(row, function, 0, channel, sums[own]);
  }
}

// grad_weight = the sum of the partial sums, by eight threads for each entry.
template <class Real>
__global__ void __launch_bounds__(256)
    collect_weight(const Real* const partials, const std::int64_t count, const std::int64_t functions,
                   const std::int64_t channels, const OutputRows grad_weight) {
  Real(*const sums)[32] = reinterpret_cast<Real(*)[32]>(dynamic_shared());  // [8][32]
  const int x = threadIdx.x % 32, y = int(threadIdx.x) / 32;
  const std::int64_t i = blockIdx.x * 32ll + x, all = functions * channels;
  Real sum = 0;
  if (i < all)
    for (std::int64_t part = y; part < count; part += 8) sum += partials[part * all + i];
  sums[y][x] = sum;
  __syncthreads();
  if (y || i >= all) return;
#pragma unroll
  for (int k = 1; k < 8; ++k) sum += sums[k][x];
  store_one(grad_weight, i / channels * grad_weight.row + i % channels * grad_weight.entry, sum);
}

}  // namespace equiconv::cuda
