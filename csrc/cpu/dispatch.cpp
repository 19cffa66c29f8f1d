// Which of the kernels compiled per capability are called. One paragraph an op.
#include "capability.h"
#include "conditioned_conv.h"
#include "fft_conv.h"
#include "gate.h"
#include "implicit_filter.h"
#include "long_conv_step.h"
#include "orchid_mix.h"
#include "pair_invariants.h"
#include "pair_message.h"
#include "pair_moments.h"
#include "short_conv.h"
#include "spectral_conv.h"

namespace equiconv::cpu {
namespace {

template <class Kernels>
const Kernels& choose(const Kernels& baseline, const Kernels& avx2, const Kernels& avx512) {
  switch (cpu_capability()) {
    case Capability::amx:
    case Capability::avx512_bf16:
    case Capability::avx512: return avx512;
    case Capability::avx2: return avx2;
    default: return baseline;
  }
}

}  // namespace

namespace baseline {
extern const FftConvKernels fft_conv;
extern const SpectralConvKernels spectral_conv;
extern const ConditionedConvKernels conditioned_conv;
extern const OrchidMixKernels orchid_mix;
extern const PairMessageKernels pair_message;
extern const GateKernels gate;
extern const ImplicitFilterKernels implicit_filter;
extern const LongConvStepKernels long_conv_step;
extern const ShortConvKernels short_conv;
extern const PairMomentsKernels pair_moments;
extern const PairInvariantsKernels pair_invariants;
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
extern const FftConvKernels fft_conv;
extern const SpectralConvKernels spectral_conv;
extern const ConditionedConvKernels conditioned_conv;
extern const OrchidMixKernels orchid_mix;
extern const PairMessageKernels pair_message;
extern const GateKernels gate;
extern const ImplicitFilterKernels implicit_filter;
extern const LongConvStepKernels long_conv_step;
extern const ShortConvKernels short_conv;
extern const PairMomentsKernels pair_moments;
extern const PairInvariantsKernels pair_invariants;
}  // namespace avx2
namespace avx512 {
extern const FftConvKernels fft_conv;
extern const SpectralConvKernels spectral_conv;
extern const ConditionedConvKernels conditioned_conv;
extern const OrchidMixKernels orchid_mix;
extern const PairMessageKernels pair_message;
extern const GateKernels gate;
extern const ImplicitFilterKernels implicit_filter;
extern const LongConvStepKernels long_conv_step;
extern const ShortConvKernels short_conv;
extern const PairMomentsKernels pair_moments;
extern const PairInvariantsKernels pair_invariants;
}  // namespace avx512
namespace avx512_bf16 {  // of the ops that multiply matrices
extern const PairMessageKernels pair_message;
}  // namespace avx512_bf16
namespace amx {  // of the ops that multiply matrices
extern const PairMessageKernels pair_message;
}  // namespace amx
#else
namespace avx2 = baseline;
namespace avx512 = baseline;
namespace avx512_bf16 = baseline;
namespace amx = baseline;
#endif

const FftConvKernels& fft_conv() { return choose(baseline::fft_conv, avx2::fft_conv, avx512::fft_conv); }

const SpectralConvKernels& spectral_conv() {
  return choose(baseline::spectral_conv, avx2::spectral_conv, avx512::spectral_conv);
}

const ConditionedConvKernels& conditioned_conv() {
  return choose(baseline::conditioned_conv, avx2::conditioned_conv, avx512::conditioned_conv);
}

const OrchidMixKernels& orchid_mix() {
  return choose(baseline::orchid_mix, avx2::orchid_mix, avx512::orchid_mix);
}

const PairMessageKernels& pair_message() {
  if (cpu_capability() == Capability::amx) return amx::pair_message;
  if (cpu_capability() == Capability::avx512_bf16) return avx512_bf16::pair_message;
  return choose(baseline::pair_message, avx2::pair_message, avx512::pair_message);
}

const GateKernels& gate() { return choose(baseline::gate, avx2::gate, avx512::gate); }

const LongConvStepKernels& long_conv_step() {
  return choose(baseline::long_conv_step, avx2::long_conv_step, avx512::long_conv_step);
}

const ShortConvKernels& short_conv() {
  return choose(baseline::short_conv, avx2::short_conv, avx512::short_conv);
}

const ImplicitFilterKernels& implicit_filter() {
  return choose(baseline::implicit_filter, avx2::implicit_filter, avx512::implicit_filter);
}

const PairMomentsKernels& pair_moments() {
  return choose(baseline::pair_moments, avx2::pair_moments, avx512::pair_moments);
}

const PairInvariantsKernels& pair_invariants() {
  return choose(baseline::pair_invariants, avx2::pair_invariants, avx512::pair_invariants);
}

}  // namespace equiconv::cpu
