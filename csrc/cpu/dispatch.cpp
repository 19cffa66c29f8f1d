// Which of the kernels compiled per capability are called. One paragraph an op.
#include "capability.h"
#include "fft_conv.h"
#include "pair_message.h"
#include "spectral_conv.h"

namespace equiconv::cpu {
namespace {

template <class Kernels>
const Kernels& choose(const Kernels& baseline, const Kernels& avx2, const Kernels& avx512) {
  switch (cpu_capability()) {
    case Capability::avx512: return avx512;
    case Capability::avx2: return avx2;
    default: return baseline;
  }
}

}  // namespace

namespace baseline {
extern const FftConvKernels fft_conv;
extern const SpectralConvKernels spectral_conv;
extern const PairMessageKernels pair_message;
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
extern const FftConvKernels fft_conv;
extern const SpectralConvKernels spectral_conv;
extern const PairMessageKernels pair_message;
}  // namespace avx2
namespace avx512 {
extern const FftConvKernels fft_conv;
extern const SpectralConvKernels spectral_conv;
extern const PairMessageKernels pair_message;
}  // namespace avx512
#else
namespace avx2 = baseline;
namespace avx512 = baseline;
#endif

const FftConvKernels& fft_conv() { return choose(baseline::fft_conv, avx2::fft_conv, avx512::fft_conv); }

const SpectralConvKernels& spectral_conv() {
  return choose(baseline::spectral_conv, avx2::spectral_conv, avx512::spectral_conv);
}

const PairMessageKernels& pair_message() {
  return choose(baseline::pair_message, avx2::pair_message, avx512::pair_message);
}

}  // namespace equiconv::cpu
