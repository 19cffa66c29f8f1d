// conditioned_conv on the CPU: y = post_gate * (irfft((H + rfft(filter)) * rfft(u)) + skip * u), u = pre_gate
// * x, with H made of query and key (conditioning.h), and its gradients.
//
// Work goes in items as in spectral_conv.cpp: a group of neighbouring channels over a run of batch entries,
// whose rows are transformed one at a time or a vector's width of them side by side. The static filter is
// transformed once for an item. No spectrum goes to memory: forward has two transforms, or three with a key,
// and one back; backward makes them anew and has one more, and up to four back. Rows whose positions are
// contiguous and that no gate changes are read and written where they lie.
//
// orchid_mix is the same kernels on rows that its short convolutions make (orchid_mix_rows.h).
//
// Bound by arithmetic as long as a thread's rows and spectra fit in its second cache.
#include "conditioned_conv.h"

#include "conditioned_backward.h"
#include "conditioned_forward.h"
#include "orchid_mix.h"

namespace {

// ---- the tables -------------------------------------------------------------------------------------------
// Calls f(kernel) with the kernel of a call.
template <template <class, class> class Kernel, class Arrays, class F>
void with_kernel(const ConditionedConv& size, const Arrays& a, const OrchidMix* mix, int threads,
                 cpu::Parallel parallel, F f) {
  with_transform(a.x.dtype, size.length, [&](auto t, auto* dft) {
    f(Kernel<decltype(t), Pointee<decltype(dft)>>(size, a, mix, threads, parallel));
  });
}
template <template <class, class> class Kernel, class Arrays>
std::int64_t scratch_of(const ConditionedConv& size, const Arrays& a, const OrchidMix* mix, int threads) {
  std::int64_t bytes = 0;
  with_kernel<Kernel>(size, a, mix, threads, nullptr, [&](const auto& kernel) { bytes = kernel.scratch(); });
  return bytes;
}

// of conditioned_conv
template <template <class, class> class Kernel, class Arrays>
std::int64_t scratch(const ConditionedConv& size, const Arrays& a, int threads) {
  return scratch_of<Kernel>(size, a, nullptr, threads);
}
template <template <class, class> class Kernel, class Arrays>
void run(const ConditionedConv& size, const Arrays& a, void* scratch, int threads, cpu::Parallel parallel) {
  with_kernel<Kernel>(size, a, nullptr, threads, parallel, [&](const auto& kernel) { kernel.run(scratch); });
}
// of orchid_mix
template <template <class, class> class Kernel, class Arrays>
std::int64_t scratch(const ConditionedConv& size, const Arrays& a, const OrchidMix& mix, int threads) {
  return scratch_of<Kernel>(size, a, &mix, threads);
}
template <template <class, class> class Kernel, class Arrays>
void run(const ConditionedConv& size, const Arrays& a, const OrchidMix& mix, void* scratch, int threads,
         cpu::Parallel parallel) {
  with_kernel<Kernel>(size, a, &mix, threads, parallel, [&](const auto& kernel) { kernel.run(scratch); });
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const ConditionedConvKernels conditioned_conv;
const ConditionedConvKernels conditioned_conv = {scratch<ConditionedForward>, scratch<ConditionedBackward>,
                                                 run<ConditionedForward>, run<ConditionedBackward>};
extern const OrchidMixKernels orchid_mix;
const OrchidMixKernels orchid_mix = {scratch<ConditionedForward>, scratch<ConditionedBackward>,
                                     run<ConditionedForward>, run<ConditionedBackward>};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
