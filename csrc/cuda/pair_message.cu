// pair_message on a GPU.
//
//   out[r, o, c]        = sum over pairs e with receiver r of (sum_k basis[e, o, k] weight[k, c]) x[s(e), o,
//   c] grad basis[e, o, k] = sum_c weight[k, c] p[e, o, c],   p[e, o, c] = x[s(e), o, c] grad_out[r(e), o, c]
//   grad weight[k, c]   = sum over pairs and orientations of basis[e, o, k] p[e, o, c]
//
// and the gradient of x is the first, senders and receivers exchanged. Where a basis row serves both
// directions of a pair, p is the sum of both directions' products, for which its kernels have a form of their
// own; the sums find a reversed pair's row at the opposite orientation. All three are products of a tall
// matrix of (pair, orientation) rows with a small one, and all that has a row and a channel lives in
// registers.
//
//   pair_message_tiles.cuh     pairs in tiles of 16 or 32, and where their groups end
//   pair_message_product.cuh   what the tensor cores multiply, in which parts
//   pair_message_rows.cuh      rows brought to shared memory, 16 bytes at a time
//   pair_message_warps.cuh     the first two: a warp for itself, the weight in shared memory
//   pair_message_weight.cuh    the last: a block together, the gradient in registers
//
// Up to 4096 pairs a group is one warp's, and the sums are one launch; beyond, pieces of equal size are, and
// a second launch adds what they have of the same group. Every sum has a fixed order, nothing is atomic: same
// input, same bits.
//
// What bounds the sums at K = C = 128, a (pair, orientation) row, on an H200: bfloat16 moves 256 bytes from
// memory (0.06 ns) and with the features 512 from L2 (0.09 ns), 16 wavefronts of shared memory (0.07 ns) and
// 16 thousand multiply-adds (0.05 ns); float32 in three products of tf32 takes 0.33 ns for those. Predicted,
// not yet run on a GPU.
#include "pair_message.h"

#include <algorithm>

#include "device.cuh"
#include "pair_message_warps.cuh"
#include "pair_message_weight.cuh"

namespace equiconv::cuda {
namespace {

// ---- launchers ---------------------------------------------------------------------------------

std::int64_t bytes_of(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }
std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
int round_up(std::int64_t n, int multiple) { return int(quotient_up(n, multiple) * multiple); }

// Whether rows can be read or written 16 bytes at a time.
template <class Void>
bool is_wide(const Rows<Void>& a, std::int64_t entries) {
  const std::int64_t bytes =
      reinterpret_cast<std::intptr_t>(a.data) | (a.row | a.orientation | entries) * bytes_of(a.dtype);
  return a.entry == 1 && bytes % 16 == 0;
}
Source source(const InputRows& a, std::int64_t entries) { return {a, int(entries), is_wide(a, entries)}; }
Target target(const OutputRows& a, std::int64_t entries) { return {a, int(entries), is_wide(a, entries)}; }

// One call: it takes workspace, and launches unless it only counts that.
struct Call {
  PairMessage size;
  Device device;
  Workspace workspace;
  cudaStream_t stream = nullptr;
  bool launches = false;

  // How to cut the weight: few blocks' columns, for each reads the pairs' rows anew, as long as four warps
  // find room; else slabs of its terms.
  template <class S, class Job>
  void plan(Job& job, std::int64_t rows, std::int64_t terms, bool one_chunk) const {
    const auto warps = [&](const Plan& plan) {
      job.plan = plan;
      const std::int64_t left = device.shared - WeightRows<S>::bytes(plan.columns, plan.terms);
      return std::min<std::int64_t>(left / job.warp_bytes(), kMaxWarps);
    };
    Plan plan{one_chunk ? kRows : round_up(rows, kRows), round_up(terms, kTerms), 1, 0};
    while (warps(plan) < 4 && plan.columns > kRows) plan.columns = round_up(plan.columns / 2, kRows);
    while (warps(plan) < 4 && plan.terms > kTerms) plan.terms = round_up(plan.terms / 2, kTerms);
    plan.slabs = int(quotient_up(terms, plan.terms));
    plan.warps = int(warps(plan));
    job.plan = plan;
  }

  // As many blocks as run at a time, of as few warps as keep all multiprocessors busy.
  template <class S, class Job>
  cudaError_t over_pairs(void (*kernel)(Job), Job& job, std::int64_t rows) const {
    if (!launches) return cudaSuccess;
    const std::int64_t column_blocks = quotient_up(rows, job.plan.columns);
    const std::int64_t units = job.cut.units();
    job.plan.warps = int(std::clamp<std::int64_t>(quotient_up(units * column_blocks, device.multiprocessors),
                                                  1, job.plan.warps));
    const std::int64_t shared =
        WeightRows<S>::bytes(job.plan.columns, job.plan.terms) + job.plan.warps * job.warp_bytes();
    // Registers are for eight warps of a multiprocessor; every block takes 1 KB of shared memory more.
    const std::int64_t at_a_time =
        std::clamp<std::int64_t>(device.shared / (shared + 1024), 1, kMaxWarps / job.plan.warps);
    const std::int64_t blocks =
        std::min(quotient_up(units, job.plan.warps),
                 std::max<std::int64_t>(device.multiprocessors * at_a_time / column_blocks, 1));
    return Launch{dim3(unsigned(blocks), unsigned(column_blocks)), dim3(unsigned(32 * job.plan.warps)),
                  std::size_t(shared), stream}(kernel, job);
  }

  template <class S>
  cudaError_t aggregate(const PairAggregate& a) {
    using Real = typename S::Real;
    Aggregate<S> job;
    job.groups = Groups::of(a.pairs, a.groups, size.pairs);
    // Orientations that share a filter have it made once for up to eight of them.
    job.orientations = int(size.orientations);
    job.cut = Cut::of(size.pairs, job.orientations, size.shared ? std::min(job.orientations, 8) : 1);
    job.weight = {a.weight.data, a.weight.dtype,     a.weight.entry,
                  a.weight.row,  int(size.channels), int(size.functions)};
    job.x = source(a.x, size.channels), job.basis = source(a.basis, size.functions);
    job.out = target(a.out, size.channels);
    job.antipodes = size.antipodes;
    job.partials = {nullptr, size.orientations, size.channels};
    if (!job.cut.whole) job.partials.data = workspace.take<Real>(job.partials.count(job.cut.pieces));
    plan<S>(job, size.channels, size.functions, false);
    if (job.plan.slabs > 1) plan<S>(job, size.channels, size.functions, true);
    if (const cudaError_t e = over_pairs<S>(cuda::aggregate<S>, job, size.channels)) return e;
    if (!launches || job.cut.whole) return cudaSuccess;
    return Launch{dim3(unsigned(job.cut.pieces - 1)), dim3(128), 0, stream}(join_pieces<Real>, job.groups,
                                                                            job.cut, job.partials, a.out);
  }

  template <class S, bool kBothWays>
  cudaError_t basis_gradient(const PairGradients& a) {
    BasisGradient<S, kBothWays> job;
    job.groups = Groups::of(a.pairs, size.receivers, size.rows());
    job.antipodes = size.antipodes, job.reversals = size.reversals();
    job.orientations = int(size.orientations);
    job.cut = Cut::of(size.rows(), job.orientations, size.shared ? job.orientations : 1);
    job.weight = {a.weight.data,  a.weight.dtype,      a.weight.row,
                  a.weight.entry, int(size.functions), int(size.channels)};
    job.x = source(a.x, size.channels), job.grad_out = source(a.grad_out, size.channels);
    job.grad_basis = target(a.grad_basis, size.functions);
    plan<S>(job, size.functions, size.channels, job.cut.together > 1);
    if (job.plan.slabs > 1) plan<S>(job, size.functions, size.channels, true);
    return over_pairs<S>(cuda::basis_gradient<S, kBothWays>, job, size.functions);
  }

  template <class S, bool kBothWays>
  cudaError_t weight_gradient(const PairGradients& a) {
    using Real = typename S::Real;
    WeightGradient<S, kBothWays> job;
    job.groups = Groups::of(a.pairs, size.receivers, size.rows());
    job.antipodes = size.antipodes, job.reversals = size.reversals();
    job.orientations = size.orientations;
    job.basis = source(a.basis, size.functions);
    job.x = source(a.x, size.channels), job.grad_out = source(a.grad_out, size.channels);

    // 1. A team for as much of the weight as it can hold, and as many teams as there is room for.
    Teams& teams = job.teams;
    teams.channels = int(std::min<std::int64_t>(quotient_up(size.channels, kTeamChannels), 4));
    teams.functions = int(std::min<std::int64_t>(quotient_up(size.functions, kTeamFunctions), 2));
    if (job.team_bytes() > device.shared) teams.functions = 1;
    while (job.team_bytes() > device.shared) --teams.channels;
    teams.teams = int(std::min<std::int64_t>(kWeightWarps / teams.warps(), device.shared / job.team_bytes()));
    const std::int64_t parts_of_weight = quotient_up(size.functions, teams.functions * kTeamFunctions) *
                                         quotient_up(size.channels, teams.channels * kTeamChannels);

    // 2. As many blocks as there are multiprocessors; a partial sum for a few tiles at least.
    const std::int64_t tiles = job.tiles() * size.orientations;
    const std::int64_t blocks = std::clamp<std::int64_t>(
        tiles / (4 * teams.teams), 1, std::max<std::int64_t>(device.multiprocessors / parts_of_weight, 1));
    const std::int64_t sums = blocks * teams.teams, entries = size.functions * size.channels;
    job.partials = workspace.take<Real>(sums * entries);
    if (!launches) return cudaSuccess;
    if (const cudaError_t e = Launch{dim3(unsigned(blocks), unsigned(parts_of_weight)),
                                     dim3(unsigned(32 * teams.warps() * teams.teams)),
                                     std::size_t(teams.teams * job.team_bytes()),
                                     stream}(cuda::weight_gradient<S, kBothWays>, job))
      return e;
    return Launch{dim3(unsigned(quotient_up(entries, 32))), dim3(256), 256 * sizeof(Real), stream}(
        collect_weight<Real>, static_cast<const Real*>(job.partials), sums, size.functions, size.channels,
        a.grad_weight);
  }
};

// Calls f with the scheme of the sums over groups, and of the gradient of the basis. Nothing that is computed
// is rounded to a half type: bfloat16 is multiplied in parts of its own, of which products have the range,
// float16 in parts of tf32, which hold it exactly.
template <class F>
cudaError_t with_aggregate_scheme(const PairMessage& size, DType stored, DType weight, F f) {
  using bf16 = __nv_bfloat16;
  const bool wide_weight = weight == DType::float32;
  switch (stored) {
    case DType::float64: return f(Scheme<double, double, 1, 1, false>());
    case DType::bfloat16:
      return wide_weight ? f(Scheme<bf16, bf16, 2, 1, false>()) : f(Scheme<bf16, bf16, 1, 1, false>());
    case DType::float16:
      return wide_weight ? f(Scheme<__half, ptx::tf32, 2, 1, false>())
                         : f(Scheme<__half, __half, 1, 1, false>());
    default:
      return size.tf32 ? f(Scheme<float, ptx::tf32, 1, 1, false>())
                       : f(Scheme<float, ptx::tf32, 2, 2, true>());
  }
}
template <class F>
cudaError_t with_basis_scheme(const PairMessage& size, DType stored, DType weight, F f) {
  using bf16 = __nv_bfloat16;
  const bool wide_weight = weight == DType::float32;
  switch (stored) {
    case DType::float64: return f(Scheme<double, double, 1, 1, false>());
    case DType::bfloat16:
      return wide_weight ? f(Scheme<bf16, bf16, 2, 2, false>()) : f(Scheme<bf16, bf16, 1, 2, false>());
    case DType::float16:
      return wide_weight ? f(Scheme<__half, ptx::tf32, 2, 2, false>())
                         : f(Scheme<__half, ptx::tf32, 1, 2, false>());
    default:
      return size.tf32 ? f(Scheme<float, ptx::tf32, 1, 1, false>())
                       : f(Scheme<float, ptx::tf32, 2, 2, true>());
  }
}

// Of bfloat16 a product is two parts of its own exactly, a sum of two is three, less 2^-24 of it.
template <bool kBothWays, class F>
cudaError_t with_weight_scheme(const PairMessage& size, DType stored, F f) {
  constexpr int kParts = kBothWays ? 3 : 2;
  switch (stored) {
    case DType::float64: return f(Scheme<double, double, 1, 1, false>());
    case DType::bfloat16: return f(Scheme<__nv_bfloat16, __nv_bfloat16, 1, kParts, true>());
    case DType::float16: return f(Scheme<__half, ptx::tf32, 1, 2, true>());
    default:
      return size.tf32 ? f(Scheme<float, ptx::tf32, 1, 1, true>())
                       : f(Scheme<float, ptx::tf32, 2, 2, true>());
  }
}

cudaError_t run(Call& call, const PairAggregate& a) {
  if (const cudaError_t e = Device::current(call.device)) return e;
  return with_aggregate_scheme(call.size, a.x.dtype, a.weight.dtype,
                               [&](auto scheme) { return call.aggregate<decltype(scheme)>(a); });
}
template <bool kBothWays>
cudaError_t gradients(Call& call, const PairGradients& a) {
  if (a.grad_basis)
    if (const cudaError_t e = with_basis_scheme(call.size, a.x.dtype, a.weight.dtype, [&](auto scheme) {
          return call.basis_gradient<decltype(scheme), kBothWays>(a);
        }))
      return e;
  if (!a.grad_weight) return cudaSuccess;
  return with_weight_scheme<kBothWays>(call.size, a.x.dtype, [&](auto scheme) {
    return call.weight_gradient<decltype(scheme), kBothWays>(a);
  });
}
cudaError_t run(Call& call, const PairGradients& a) {
  if (const cudaError_t e = Device::current(call.device)) return e;
  return call.size.reversals() ? gradients<true>(call, a) : gradients<false>(call, a);
}

template <class Arguments>
std::int64_t count_workspace(const PairMessage& size, const Arguments& arguments) {
  Call call{size, {}, {}};
  run(call, arguments);  // an error comes back from the launch that follows
  return call.workspace.used;
}
template <class Arguments>
cudaError_t launch_all(const PairMessage& size, const Arguments& arguments, void* workspace,
                       cudaStream_t stream) {
  Call call{size, {}, {static_cast<char*>(workspace)}, stream, true};
  return run(call, arguments);
}

}  // namespace

std::int64_t pair_message_aggregate_workspace(const PairMessage& size, const PairAggregate& a) {
  return count_workspace(size, a);
}
std::int64_t pair_message_gradients_workspace(const PairMessage& size, const PairGradients& a) {
  return count_workspace(size, a);
}
cudaError_t pair_message_aggregate(const PairMessage& size, const PairAggregate& a, void* workspace,
                                   cudaStream_t stream) {
  return launch_all(size, a, workspace, stream);
}
cudaError_t pair_message_gradients(const PairMessage& size, const PairGradients& a, void* workspace,
                                   cudaStream_t stream) {
  return launch_all(size, a, workspace, stream);
}

}  // namespace equiconv::cuda
