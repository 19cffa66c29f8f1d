// What the lanes of a warp do together: shuffles, votes, matches, reductions.
#pragma once
#include <cuda_on_cpu/kernel.h>

namespace cuda_on_cpu {

// The types that shuffles move; cuda_fp16.h and cuda_bf16.h add theirs.
template <class T>
inline constexpr bool is_shuffled = std::is_arithmetic_v<T> && sizeof(T) <= 8;

template <class T>
T shuffle(unsigned mask, T v, int source, bool in_range, Site site) {
  static_assert(is_shuffled<T>, "CUDA has no shuffle of this type");
  const Slot* out = warp_collective(Op::shuffle, mask, &v, sizeof(T), nullptr, site);
  if (!in_range) return v;
  if (!(mask >> source & 1u)) fail(site, "shuffle reads lane %d, which is not in mask %08x", source, mask);
  if (!(met_lanes() >> source & 1u))
    fail(site, "shuffle reads lane %d, which has returned from the kernel", source);
  T r;
  std::memcpy(static_cast<void*>(&r), out[source].b, sizeof(T));
  return r;
}
inline int segment(int width, Site site) {  // where this lane's begins
  if (width < 1 || width > 32 || (width & (width - 1))) fail(site, "shuffle of width %d", width);
  return lane() & ~(width - 1);
}

template <class T, class F>
T reduce(unsigned mask, T v, F f, Site site) {
  const Slot* out = warp_collective(Op::reduce, mask, &v, sizeof v, nullptr, site);
  bool first = true;
  T r{};
  for (int l = 0; l < 32; ++l)
    if (met_lanes() >> l & 1u) {
      T x;
      std::memcpy(static_cast<void*>(&x), out[l].b, sizeof x);
      r = first ? x : f(r, x);
      first = false;
    }
  return r;
}
template <class T, class... Allowed>
inline constexpr bool is_one_of = (std::is_same_v<T, Allowed> || ...);

}  // namespace cuda_on_cpu

// ---- shuffles -----------------------------------------------------------------------------------------
template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32, CUDA_ON_CPU_SITE) {
  const int first = cuda_on_cpu::segment(width, CUDA_ON_CPU_HERE);
  return cuda_on_cpu::shuffle(mask, v, first + (source & (width - 1)), true, CUDA_ON_CPU_HERE);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, CUDA_ON_CPU_SITE) {
  const int first = cuda_on_cpu::segment(width, CUDA_ON_CPU_HERE), source = cuda_on_cpu::lane() - int(delta);
  return cuda_on_cpu::shuffle(mask, v, source, source >= first, CUDA_ON_CPU_HERE);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, CUDA_ON_CPU_SITE) {
  const int first = cuda_on_cpu::segment(width, CUDA_ON_CPU_HERE), source = cuda_on_cpu::lane() + int(delta);
  return cuda_on_cpu::shuffle(mask, v, source, source < first + width, CUDA_ON_CPU_HERE);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lane_mask, int width = 32, CUDA_ON_CPU_SITE) {
  const int first = cuda_on_cpu::segment(width, CUDA_ON_CPU_HERE), source = cuda_on_cpu::lane() ^ lane_mask;
  return cuda_on_cpu::shuffle(mask, v, source, source < first + width, CUDA_ON_CPU_HERE);
}

// ---- votes and matches --------------------------------------------------------------------------------
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_ON_CPU_SITE) {
  const int p = predicate != 0;
  const auto* out =
      cuda_on_cpu::warp_collective(cuda_on_cpu::Op::vote, mask, &p, sizeof p, nullptr, CUDA_ON_CPU_HERE);
  unsigned r = 0;
  for (int l = 0; l < 32; ++l)
    if (cuda_on_cpu::met_lanes() >> l & 1u) r |= unsigned(out[l].b[0]) << l;
  return r;
}
inline int __any_sync(unsigned mask, int predicate, CUDA_ON_CPU_SITE) {
  return __ballot_sync(mask, predicate, site_file, site_line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_ON_CPU_SITE) {
  return __ballot_sync(mask, !predicate, site_file, site_line) == 0;
}
inline int __uni_sync(unsigned mask, int predicate, CUDA_ON_CPU_SITE) {
  const unsigned yes = __ballot_sync(mask, predicate, site_file, site_line);
  return yes == 0 || yes == cuda_on_cpu::met_lanes();
}
// Which lanes run together is the hardware's choice: no lane may count on any other.
inline unsigned __activemask() { return 1u << cuda_on_cpu::lane(); }

template <class T>
unsigned __match_any_sync(unsigned mask, T v, CUDA_ON_CPU_SITE) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  const auto* out =
      cuda_on_cpu::warp_collective(cuda_on_cpu::Op::match, mask, &v, sizeof v, nullptr, CUDA_ON_CPU_HERE);
  unsigned r = 0;
  for (int l = 0; l < 32; ++l)
    if (cuda_on_cpu::met_lanes() >> l & 1u && !std::memcmp(out[l].b, &v, sizeof v)) r |= 1u << l;
  return r;
}
template <class T>
unsigned __match_all_sync(unsigned mask, T v, int* all, CUDA_ON_CPU_SITE) {
  const unsigned equal = __match_any_sync(mask, v, site_file, site_line);
  *all = equal == cuda_on_cpu::met_lanes();
  return *all ? mask : 0;
}

// ---- reductions ---------------------------------------------------------------------------------------
template <class T>
  requires cuda_on_cpu::is_one_of<T, int, unsigned>
T __reduce_add_sync(unsigned mask, T v, CUDA_ON_CPU_SITE) {
  return cuda_on_cpu::reduce(
      mask, v, [](T a, T b) { return T(unsigned(a) + unsigned(b)); }, CUDA_ON_CPU_HERE);
}
template <class T>
  requires cuda_on_cpu::is_one_of<T, int, unsigned>
T __reduce_min_sync(unsigned mask, T v, CUDA_ON_CPU_SITE) {
  return cuda_on_cpu::reduce(mask, v, [](T a, T b) { return b < a ? b : a; }, CUDA_ON_CPU_HERE);
}
template <class T>
  requires cuda_on_cpu::is_one_of<T, int, unsigned>
T __reduce_max_sync(unsigned mask, T v, CUDA_ON_CPU_SITE) {
  return cuda_on_cpu::reduce(mask, v, [](T a, T b) { return a < b ? b : a; }, CUDA_ON_CPU_HERE);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned v, CUDA_ON_CPU_SITE) {
  return cuda_on_cpu::reduce(mask, v, [](unsigned a, unsigned b) { return a & b; }, CUDA_ON_CPU_HERE);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned v, CUDA_ON_CPU_SITE) {
  return cuda_on_cpu::reduce(mask, v, [](unsigned a, unsigned b) { return a | b; }, CUDA_ON_CPU_HERE);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned v, CUDA_ON_CPU_SITE) {
  return cuda_on_cpu::reduce(mask, v, [](unsigned a, unsigned b) { return a ^ b; }, CUDA_ON_CPU_HERE);
}
