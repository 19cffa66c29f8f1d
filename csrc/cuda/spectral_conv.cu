// spectral_conv on a GPU, for lengths L = 2 N that are powers of two, where a row fits in shared memory.
//
//   y = post irfft((spectrum + skip) U) with U = rfft(pre x)
//
// A block takes one channel, for one chunk of the batch (half_spectra_blocks.cuh): row after row it
// transforms, multiplies with the spectrum as it lies in memory, two frequencies of a thread at a time, and
// transforms back, in shared memory (half_spectra.cuh). No spectrum of x goes to memory.
//
//   shared memory   one spectrum of N complex numbers forward, backward two, and a third for the sum of
//                   a shared spectrum's gradients, N/8 of factors: at N = 2048 and float32 20, 37 and 54 KB
//   transforms      forward x, and one back; backward x, grad_out, and two back
//
// Backward with G = rfft(post grad_out): the gradient of a spectrum is conj(U) G, twice (but for frequencies
// 0 and N, once) over L, and that of skip the sum of its real parts. What is summed over the batch is summed
// chunk by chunk, and a second launch adds the chunks'. Counted and compiled, not yet run on a GPU.
#include "spectral_conv.h"

#include "half_spectra_blocks.cuh"

namespace equiconv::cuda {
namespace {

using SpectralPlan = RowPlan<SpectralConv>;
using SpectralRows = BlockRows<SpectralPlan>;

// Bounds registers: four blocks of 128 threads for N = 2048 of float32 forward, three backward, as there is
// shared memory for.
template <class R>
constexpr int kForwardThreads = sizeof(R) == sizeof(float) ? 512 : kMostThreads<R>;
template <class R>
constexpr int kBackwardThreads = sizeof(R) == sizeof(float) ? 384 : kMostThreads<R>;

// ---- spectra in memory -----------------------------------------------------------------------------------

// Frequencies f and N - f of what a row is multiplied with; the imaginary parts that no real row has are 0.
template <class R>
__device__ __forceinline__ Two<R> load_two(const SpectralRows& of, const Input& spectrum, std::int64_t batch,
                                           int n, int f, R skip) {
  const auto at = [&](int i) {
    const std::int64_t offset =
        batch * spectrum.batch + of.channel * spectrum.channel + i * spectrum.position;
    Complex<R> z{};
    if (of.plan.size.complex) z = static_cast<const Complex<R>*>(spectrum.data)[offset];
    else z.re = load_one<R>(spectrum, offset);
    return Complex<R>{z.re + skip, z.im};
  };
  Two<R> two = {at(f), at(n - f)};
  if (f == 0) two.near.im = two.far.im = R(0);
  return two;
}
template <class R>
__device__ __forceinline__ void store_two(const SpectralRows& of, const Output& gradient, std::int64_t batch,
                                          int n, int f, const Two<R>& two) {
  const auto store = [&](int i, Complex<R> z) {
    const std::int64_t offset =
        batch * gradient.batch + of.channel * gradient.channel + i * gradient.position;
    if (of.plan.size.complex) static_cast<Complex<R>*>(gradient.data)[offset] = z;
    else store_one(z.re, gradient, offset);
  };
  store(f, two.near), store(n - f, two.far);
}

template <class R>
__device__ __forceinline__ R load_skip(const SpectralRows& of, const Input& skip) {
  return skip.data ? load_one<R>(skip, of.channel * skip.channel) : R(0);
}

// ---- forward ---------------------------------------------------------------------------------------------

template <class R>
__global__ void __launch_bounds__(kForwardThreads<R>)
    spectral_rows(const SpectralPlan plan, const SpectralConvForward a) {
  const HalfSpectra<R> spectra(plan.ring);
  Complex<R>* const signal = spectra.buffer(0);
  const SpectralRows of(plan);

  spectra.transform.fill_factors(R(0));
  for (std::int64_t batch = of.begin; batch < of.end; ++batch) {
    transform(spectra, signal, of.row(a.x, batch), of.row(a.pre_gate, batch));
    const R scale = R(1) / R(2 * spectra.n), skip = load_skip<R>(of, a.skip);
    spectra.for_each_two([&](int f, Complex<R> w) {
      const Two<R> h = load_two(of, a.spectrum, batch, spectra.n, f, skip);
      const Two<R> u = spectra.get(signal, f, w);
      spectra.put(signal, f, w, {h.near * u.near, h.far * u.far}, scale);
    });
    spectra.inverse(signal, [&](Group<R>& v, int first, int step) {
      if (a.post_gate.data) multiply_by_row(v, of.row(a.post_gate, batch), first, step);
      store_row(v, of.row(a.y, batch), first, step);
    });
  }
}

// ---- backward --------------------------------------------------------------------------------------------

// What is done to a row, in this order, as far as it is wanted.
enum Step : int {
  kSignal,
  kGradient,
  kMultiply,    // the spectra of what the post gate weighs and of the gradient of u, sums
  kToPostGate,  // back
  kToSignal,
  kSteps
};

// Of a chunk's sums over the batch: those of the spectra of all channels, if they are shared, and after them
// those of skip. The chunks' lie `pitch` apart.
template <class R>
struct Sums {
  R* numbers = nullptr;
  std::int64_t spectra = 0, skips = 0, pitch = 0;
};

// A step of one kind is in the code once, whichever row it takes.
template <class R>
__global__ void __launch_bounds__(kBackwardThreads<R>)
    spectral_gradients(const SpectralPlan plan, const SpectralConvBackward a, const unsigned steps,
                       const Sums<R> sums) {
  const HalfSpectra<R> spectra(plan.ring);
  const int n = spectra.n;
  Complex<R>*const signal = spectra.buffer(0), *const gradient = spectra.buffer(1);
  Complex<R>* const sum = sums.spectra ? spectra.buffer(2) : nullptr;
  R* const of_warps = reinterpret_cast<R*>(spectra.buffer(sum ? 3 : 2));
  const SpectralRows of(plan);
  const auto wanted = [&](int step) { return (steps >> step & 1) != 0; };
  const bool multiplies = wanted(kToPostGate) || wanted(kToSignal);
  const R scale = R(1) / R(2 * n), skip = load_skip<R>(of, a.skip);
  R* const of_chunk = sums.numbers + of.chunk * sums.pitch;
  Output grad_spectrum = a.grad_spectrum;
  if (sum)
    grad_spectrum = {of_chunk, sizeof(R) == sizeof(double) ? DType::float64 : DType::float32, 0, n + 1, 1};
  R skips[1] = {};  // the part of this thread's frequencies

  spectra.transform.fill_factors(R(0));
  for (std::int64_t batch = of.begin; batch < of.end; ++batch) {
#pragma unroll 1
    for (int step = 0; step < kSteps; ++step) {
      if (!wanted(step)) continue;
      if (step < kMultiply) {
        const bool of_signal = step == kSignal;
        transform(spectra, of_signal ? signal : gradient, of.row(of_signal ? a.x : a.grad_out, batch),
                  of.row(of_signal ? a.pre_gate : a.post_gate, batch));
        continue;
      }
      if (step == kMultiply) {
        R of_row = 0;
        spectra.for_each_two([&](int f, Complex<R> w) {
          Two<R> u{}, g{};
          if (wanted(kSignal)) u = spectra.get(signal, f, w);
          if (wanted(kGradient)) g = spectra.get(gradient, f, w);
          if (multiplies) {
            const Two<R> h = load_two(of, a.spectrum, batch, n, f, skip);
            spectra.put(signal, f, w, {h.near * u.near, h.far * u.far}, scale);
            spectra.put(gradient, f, w, {conj(h.near) * g.near, conj(h.far) * g.far}, scale);
          }
          Two<R> m = {conj(u.near) * g.near, conj(u.far) * g.far};
          if (f == 0) m = {{m.near.re / 2, R(0)}, {m.far.re / 2, R(0)}};
          of_row += f == n - f ? m.near.re : m.near.re + m.far.re;
          if (sum) {
            if (batch > of.begin) {
              const Two<R> before = spectra.kept(sum, f);
              m = {before.near + m.near, before.far + m.far};
            }
            spectra.keep(sum, f, m);
          }
          if (!grad_spectrum.data || (sum && batch + 1 < of.end)) return;
          const R times = 2 * scale;
          store_two(of, grad_spectrum, batch, n, f,
                    Two<R>{{times * m.near.re, times * m.near.im}, {times * m.far.re, times * m.far.im}});
        });
        skips[0] += of_row;
        continue;
      }
      // Back: kToSignal may have two results.
      const bool to_signal = step == kToSignal;
      spectra.inverse(to_signal ? gradient : signal, [&](const Group<R>& v, int first, int points) {
        Row<void> result = of.row(to_signal ? a.grad_pre_gate : a.grad_post_gate, batch);
        Row<const void> factor = of.row(to_signal ? a.x : a.grad_out, batch);
#pragma unroll 1
        for (int i = 0; i < (to_signal ? 2 : 1); ++i) {
          if (result.data) {
            Group<R> weighed;
#pragma unroll
            for (int k = 0; k < kGroup; ++k) weighed[k] = v[k];
            if (factor.data) multiply_by_row(weighed, factor, first, points);
            store_row(weighed, result, first, points);
          }
          result = of.row(a.grad_x, batch), factor = of.row(a.pre_gate, batch);
        }
      });
    }
  }
  if (!sums.skips) return;
  R total = 0;
  add_to_total(skips, of_warps, total);
  if (threadIdx.x == 0) of_chunk[sums.spectra + of.channel] = total * 2 * scale;
}

// The sums over chunks, in their order: a thread a number.
template <class R>
__global__ void __launch_bounds__(256) spectral_totals(const int chunks, const Sums<R> sums,
                                                       const Output grad_spectrum, const Output grad_skip) {
  const std::int64_t count = sums.spectra + sums.skips;
  for (std::int64_t i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
    R sum = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) sum += sums.numbers[chunk * sums.pitch + i];
    if (i < sums.spectra) store_one(sum, grad_spectrum, i);
    else store_one(sum, grad_skip, i - sums.spectra);
  }
}

// ---- launchers -------------------------------------------------------------------------------------------

template <class R>
std::int64_t backward_shared(const Ring& ring, bool sums) {
  return block_shared<R>(ring, sums ? 3 : 2, kMostThreads<R> / 32);
}

// One rule for all calls of a length: whether the most that one needs is there.
template <class R>
bool fuses(std::int64_t length) {
  const Ring ring = ring_of<R>(length);
  return has_room<R>(ring, backward_shared<R>(ring, true));
}

template <class R>
cudaError_t run_forward(const SpectralConv& size, const SpectralConvForward& a, cudaStream_t stream) {
  if (!fuses<R>(size.length)) return cudaErrorInvalidValue;
  const SpectralPlan plan = row_plan<R>(size, a.x, a.pre_gate, a.post_gate, a.y);
  return launch_of(plan, block_shared<R>(plan.ring, 1, 0), stream)(spectral_rows<R>, plan, a);
}

template <class R>
SpectralPlan backward_plan(const SpectralConv& size, const SpectralConvBackward& a) {
  return row_plan<R>(size, a.grad_out, a.x, a.pre_gate, a.post_gate, a.grad_x, a.grad_pre_gate,
                     a.grad_post_gate);
}

template <class R>
Sums<R> sums_of(const SpectralPlan& plan, const SpectralConvBackward& a, Workspace& workspace) {
  const SpectralConv& size = plan.size;
  Sums<R> sums;
  if (size.shared && a.grad_spectrum)
    sums.spectra = size.channels * size.frequencies() * (size.complex ? 2 : 1);
  if (a.grad_skip) sums.skips = size.channels;
  sums.pitch = (sums.spectra + sums.skips + 31) / 32 * 32;  // whole sectors
  sums.numbers = workspace.take<R>(plan.chunks * sums.pitch);
  return sums;
}

// What is wanted of a row; 0: nothing.
unsigned steps_of(const SpectralConvBackward& a) {
  const bool signal = a.grad_x || a.grad_pre_gate, post_gate = bool(a.grad_post_gate);
  const bool spectrum = a.grad_spectrum || a.grad_skip;
  unsigned steps = 0;
  const auto want = [&](Step step, bool wanted) { steps |= unsigned(wanted) << step; };
  want(kSignal, post_gate || spectrum);
  want(kGradient, signal || spectrum);
  want(kMultiply, signal || post_gate || spectrum);
  want(kToPostGate, post_gate);
  want(kToSignal, signal);
  return steps;
}

template <class R>
cudaError_t run_backward(const SpectralConv& size, const SpectralConvBackward& a, void* memory,
                         cudaStream_t stream) {
  if (!fuses<R>(size.length)) return cudaErrorInvalidValue;
  const unsigned steps = steps_of(a);
  if (!steps) return cudaSuccess;
  const SpectralPlan plan = backward_plan<R>(size, a);
  Workspace workspace{static_cast<char*>(memory)};
  const Sums<R> sums = sums_of<R>(plan, a, workspace);
  if (const cudaError_t e = launch_of(plan, backward_shared<R>(plan.ring, sums.spectra > 0), stream)(
          spectral_gradients<R>, plan, a, steps, sums))
    return e;
  const std::int64_t count = sums.spectra + sums.skips;
  if (!count) return cudaSuccess;
  const Launch totals{dim3(unsigned(std::min<std::int64_t>((count + 255) / 256, 1 << 30))), dim3(256), 0,
                      stream};
  return totals(spectral_totals<R>, plan.chunks, sums, a.grad_spectrum, a.grad_skip);
}

template <class R>
std::int64_t backward_workspace(const SpectralConv& size, const SpectralConvBackward& a) {
  Workspace workspace;
  sums_of<R>(backward_plan<R>(size, a), a, workspace);
  return workspace.used;
}

}  // namespace

bool spectral_conv_fuses(std::int64_t length, DType dtype) {
  return dtype == DType::float64 ? fuses<double>(length) : fuses<float>(length);
}
std::int64_t spectral_conv_forward_workspace(const SpectralConv&, const SpectralConvForward&) { return 0; }
std::int64_t spectral_conv_backward_workspace(const SpectralConv& size, const SpectralConvBackward& a) {
  return a.x.dtype == DType::float64 ? backward_workspace<double>(size, a)
                                     : backward_workspace<float>(size, a);
}
cudaError_t spectral_conv_forward(const SpectralConv& size, const SpectralConvForward& a, void*,
                                  cudaStream_t stream) {
  return a.x.dtype == DType::float64 ? run_forward<double>(size, a, stream)
                                     : run_forward<float>(size, a, stream);
}
cudaError_t spectral_conv_backward(const SpectralConv& size, const SpectralConvBackward& a, void* workspace,
                                   cudaStream_t stream) {
  return a.x.dtype == DType::float64 ? run_backward<double>(size, a, workspace, stream)
                                     : run_backward<float>(size, a, workspace, stream);
}

}  // namespace equiconv::cuda
