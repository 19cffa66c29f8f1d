// conditioned_conv on a GPU, for lengths L = 2 N that are powers of two, where a row fits in shared memory.
//
//   y = post irfft((H + K) U) with U = rfft(pre x), K = rfft(filter) + skip
//   H[f] = bias + sum over taps j of w[j] a[f - j + width / 2],  a = |Q| or conj(K') Q,  Q and K' of query,
//   key
//
// A block takes one channel, for one chunk of the batch (half_spectra_blocks.cuh): row after row it
// transforms, combines and transforms back, in shared memory (half_spectra.cuh); no spectrum goes to memory
// but, backward, the sum of the static filter's gradients. a goes on beyond its ends as a real row's spectrum
// does, a[-f] = conj(a[f]), so the gradient of a gathers what was read there.
//
//   shared memory   three spectra of N complex numbers forward (two without a static filter), four backward,
//                   N/8 of factors: at N = 2048 and float32 54 and 72 KB
//   transforms      forward query, key, x, and one back; backward those and grad_out, the filter for every
//                   row, the key once more (its place is needed in between), and up to four back
//
// Backward with G = rfft(post grad_out): the gradient of H is M = conj(U) G, twice (but for frequencies 0 and
// N, once) over L; so M counts these two half, and the 2 / L follows at the end. Weights' gradients are
// summed chunk by chunk, and a second launch adds the chunks'. Counted and compiled, not yet run on a GPU.
#include "conditioned_conv.h"

#include "conditioned_conv_network.cuh"

namespace equiconv::cuda {
namespace {

// Bounds registers as shared memory bounds blocks: three of 128 threads for N = 2048 of float32.
template <class R>
constexpr int kThreadsOfRegisters = sizeof(R) == sizeof(float) ? 384 : kMostThreads<R>;

// ---- forward ---------------------------------------------------------------------------------------------

// One loop takes all rows' transforms, so that they are in the code once.
template <class R>
__global__ void __launch_bounds__(kThreadsOfRegisters<R>)
    conditioned_rows(const ConditionedPlan plan, const ConditionedConvForward a) {
  const HalfSpectra<R> spectra(plan.ring);
  Complex<R>*const signal = spectra.buffer(0), *const conditioning = spectra.buffer(1);
  Complex<R>* const statics = a.filter.data ? spectra.buffer(2) : nullptr;
  const Channel<R> of(plan, reinterpret_cast<R*>(spectra.buffer(statics ? 3 : 2)));
  const R scale = R(1) / R(2 * spectra.n);

  spectra.transform.fill_factors(R(0));
  of.load_weights(a.frequency_filter, a.frequency_bias, a.skip);

  for (std::int64_t batch = of.begin; batch < of.end; ++batch) {
    // 1. The static filter's spectrum, with the first row; the query's and the key's, of which H is made; the
    //    signal's.
#pragma unroll 1
    for (int step = statics && batch == of.begin ? 0 : 1; step < 4; ++step) {
      if (step == 2 && !a.key.data) continue;
      if (step == 3) condition(spectra, conditioning, signal, a.key.data != nullptr, conditioning);
      const Input row = step == 0 ? a.filter : step == 1 ? a.query : step == 2 ? a.key : a.x;
      transform(spectra,
                step == 0   ? statics
                : step == 1 ? conditioning
                            : signal,
                of.row(row, batch, step == 0), of.row(step == 3 ? a.pre_gate : Input{}, batch));
    }
    // 2. The product.
    spectra.for_each_two([&](int f, Complex<R> w) {
      const Two<R> h = whole_filter(spectra, of, conditioning, statics, f, w);
      const Two<R> u = spectra.get(signal, f, w);
      spectra.put(signal, f, w, {h.near * u.near, h.far * u.far}, scale);
    });
    // 3. Back, and gated.
    spectra.inverse(signal, [&](Group<R>& v, int first, int step) {
      if (a.post_gate.data) multiply_by_row(v, of.row(a.post_gate, batch), first, step);
      store_row(v, of.row(a.y, batch), first, step);
    });
  }
}

// ---- backward --------------------------------------------------------------------------------------------

// What is done to a row, in this order, as far as it is wanted.
enum Step : int {
  kQuery,
  kKey,
  kCondition,  // a
  kStatics,
  kFilter,  // H, and the static filter's spectrum
  kSignal,
  kGradient,
  kMultiply,    // the spectra of what the post gate weighs and of the gradient of u, and M in the place of H
  kToPostGate,  // back
  kToSignal,
  kKeyAgain,
  kConditionAgain,
  kWeightSums,
  kAdjoint,  // the spectra of the gradients of query and key
  kToQuery,
  kToKey,
  kFilterSum,  // with the last row: the spectrum of the static filter's gradient
  kToFilter,
  kSteps
};

// weights: (chunk, channel, kWeights), the gradients of taps, of the bias and of skip. filters: (chunk,
// channel, L + 2), the static filter's: the sum of its spectra, and then its row, in the same place. A step
// of one kind is in the code once, whichever row it takes.
template <class R>
__global__ void __launch_bounds__(kThreadsOfRegisters<R>)
    conditioned_gradients(const ConditionedPlan plan, const ConditionedConvBackward a, const unsigned steps,
                          R* const weights, R* const filters) {
  const HalfSpectra<R> spectra(plan.ring);
  const int n = spectra.n;
  Complex<R>*const second = spectra.buffer(0), *const query = spectra.buffer(1),
                   *const gradient = spectra.buffer(2), *const third = spectra.buffer(3);
  R* const of_warps = reinterpret_cast<R*>(spectra.buffer(4));
  const Channel<R> of(plan, of_warps + kMostThreads<R> / 32 * kWeights);
  const bool keyed = a.key.data != nullptr;
  const auto wanted = [&](int step) { return (steps >> step & 1) != 0; };
  const R scale = R(1) / R(2 * n);
  const std::int64_t place = of.chunk * plan.size.channels + of.channel;
  R* const filter_row = filters ? filters + place * (2 * n + 2) : nullptr;
  Complex<R>* const filter_sum = reinterpret_cast<Complex<R>*>(filter_row);
  R total = 0;  // of the weight that this thread's number is

  spectra.transform.fill_factors(R(0));
  of.load_weights(a.frequency_filter, a.frequency_bias, a.skip);

  for (std::int64_t batch = of.begin; batch < of.end; ++batch) {
#pragma unroll 1
    for (int step = 0; step < (batch + 1 < of.end ? kFilterSum : kSteps); ++step) {
      if (!wanted(step)) continue;
      switch (step) {
        case kQuery:
        case kKey:
        case kStatics:
        case kSignal:
        case kGradient:
        case kKeyAgain: {
          const Input row = step == kQuery      ? a.query
                            : step == kStatics  ? a.filter
                            : step == kSignal   ? a.x
                            : step == kGradient ? a.grad_out
                                                : a.key;
          const Input gate = step == kSignal ? a.pre_gate : step == kGradient ? a.post_gate : Input{};
          transform(spectra,
                    step == kQuery      ? query
                    : step == kGradient ? third
                                        : second,
                    of.row(row, batch, step == kStatics), of.row(gate, batch));
          break;
        }
        case kCondition:
        case kConditionAgain:
          __syncthreads();  // readers of `third` are done
          condition(spectra, query, second, keyed, third);
          break;
        case kFilter:
          __syncthreads();  // all of a is there
          spectra.for_each_two([&](int f, Complex<R> w) {
            spectra.keep(gradient, f,
                         whole_filter(spectra, of, third, wanted(kStatics) ? second : nullptr, f, w));
          });
          break;
        case kMultiply:
          spectra.for_each_two([&](int f, Complex<R> w) {
            Two<R> u{}, g{};
            if (wanted(kSignal)) u = spectra.get(second, f, w);
            if (wanted(kGradient)) g = spectra.get(third, f, w);
            if (wanted(kFilter)) {
              const Two<R> h = spectra.kept(gradient, f);
              spectra.put(second, f, w, {h.near * u.near, h.far * u.far}, scale);
              spectra.put(third, f, w, {conj(h.near) * g.near, conj(h.far) * g.far}, scale);
            }
            Two<R> m = {conj(u.near) * g.near, conj(u.far) * g.far};
            if (wanted(kFilterSum)) {
              Two<R> sum = m;
              if (batch > of.begin) sum = {filter_sum[f] + m.near, filter_sum[n - f] + m.far};
              filter_sum[f] = sum.near, filter_sum[n - f] = sum.far;
            }
            if (f == 0) m = {{m.near.re / 2, R(0)}, {m.far.re / 2, R(0)}};
            spectra.keep(gradient, f, m);
          });
          break;
        case kWeightSums: {
          __syncthreads();  // all of a and M is there
          const int width = wanted(kConditionAgain) ? int(plan.size.width) : 0, half = width / 2;
          R values[kWeights] = {};
          for (int f = threadIdx.x; f <= n; f += blockDim.x) {
            const Complex<R> m = gradient[padded(f)];
            values[kMaxWidth] += keyed ? m.re + m.im : m.re;
            values[kMaxWidth + 1] += m.re;
#pragma unroll
            for (int j = 0; j < kMaxWidth; ++j)
              if (j < width) {
                const Complex<R> z = continued(third, n, f - j + half);
                values[j] += z.re * m.re + z.im * m.im;
              }
          }
          add_to_total(values, of_warps, total);
          break;
        }
        case kAdjoint:
          __syncthreads();  // all of M is there, and of the key
          spectra.for_each_two([&](int f, Complex<R> w) {
            const Two<R> d = {gradient_at(of, gradient, n, f), gradient_at(of, gradient, n, n - f)};
            const Two<R> q = spectra.get(query, f, w);
            if (keyed) {
              const Two<R> k = spectra.get(second, f, w);
              spectra.put(query, f, w, {d.near * k.near, d.far * k.far}, scale);
              spectra.put(second, f, w, {conj(d.near) * q.near, conj(d.far) * q.far}, scale);
              return;
            }
            const auto along = [](R d, Complex<R> z) {
              const R size = sqrt(z.re * z.re + z.im * z.im), times = size != R(0) ? d / size : R(0);
              return Complex<R>{times * z.re, times * z.im};
            };
            spectra.put(query, f, w, {along(d.near.re, q.near), along(d.far.re, q.far)}, scale);
          });
          break;
        case kFilterSum:
          __syncthreads();  // readers of `second` are done
          spectra.for_each_two([&](int f, Complex<R> w) {
            spectra.put(second, f, w, {filter_sum[f], filter_sum[n - f]}, scale);
          });
          break;
        default: {  // back: kToSignal may have two results, all others one
          const Output row_of_filter{filter_row,
                                     sizeof(R) == sizeof(double) ? DType::float64 : DType::float32, 0, 0, 1};
          const Output to = step == kToPostGate ? a.grad_post_gate
                            : step == kToSignal ? a.grad_pre_gate
                            : step == kToQuery  ? a.grad_query
                            : step == kToKey    ? a.grad_key
                                                : row_of_filter;
          const Input gate = step == kToPostGate ? a.grad_out : step == kToSignal ? a.x : Input{};
          spectra.inverse(step == kToQuery    ? query
                          : step == kToSignal ? third
                                              : second,
                          [&](const Group<R>& v, int first, int points) {
                            Row<void> result = of.row(to, batch);
                            result.wide |= step == kToFilter;
                            Row<const void> factor = of.row(gate, batch);
#pragma unroll 1
                            for (int i = 0; i < (step == kToSignal ? 2 : 1); ++i) {
                              Group<R> weighed;
#pragma unroll
                              for (int k = 0; k < kGroup; ++k) weighed[k] = v[k];
                              if (factor.data) multiply_by_row(weighed, factor, first, points);
                              if (result.data) store_row(weighed, result, first, points);
                              result = of.row(a.grad_x, batch), factor = of.row(a.pre_gate, batch);
                            }
                          });
        }
      }
    }
  }
  if (weights && threadIdx.x < kWeights) weights[place * kWeights + threadIdx.x] = total * R(2) * scale;
}

// The sums over chunks, in their order: a thread a weight of a channel, or a tap of its static filter.
template <class R>
__global__ void __launch_bounds__(256)
    conditioned_totals(const ConditionedPlan plan, const ConditionedConvBackward a, const R* const weights,
                       const R* const filters) {
  const std::int64_t channels = plan.size.channels, taps = filters ? plan.size.taps : 0;
  const std::int64_t each = kWeights + taps;
  for (std::int64_t i = blockIdx.x * 256ll + threadIdx.x; i < channels * each; i += gridDim.x * 256ll) {
    const std::int64_t channel = i / each, j = i % each;
    const bool of_filter = j >= kWeights;
    if (!of_filter && !weights) continue;
    const std::int64_t pitch = of_filter ? plan.size.length + 2 : kWeights;
    const R* const from = of_filter ? filters + j - kWeights : weights + j;
    R sum = 0;
    for (int chunk = 0; chunk < plan.chunks; ++chunk) sum += from[(chunk * channels + channel) * pitch];
    const auto store = [&](const Output& to, std::int64_t position) {
      if (to.data) store_one(sum, to, channel * to.channel + position * to.position);
    };
    if (of_filter) store(a.grad_filter, j - kWeights);
    else if (j < plan.size.width) store(a.grad_frequency_filter, j);
    else if (j == kMaxWidth) store(a.grad_frequency_bias, 0);
    else if (j == kMaxWidth + 1) store(a.grad_skip, 0);
  }
}

// ---- launchers -------------------------------------------------------------------------------------------

template <class R>
std::int64_t forward_shared(const Ring& ring, bool filter) {
  return block_shared<R>(ring, filter ? 3 : 2, kWeights);
}
template <class R>
std::int64_t backward_shared(const Ring& ring) {
  return block_shared<R>(ring, 4, (kMostThreads<R> / 32 + 1) * kWeights);
}

template <class R>
bool fuses(std::int64_t length) {
  const Ring ring = ring_of<R>(length);
  return has_room<R>(ring, backward_shared<R>(ring));
}

template <class R, class... Signals>
ConditionedPlan plan_of(const ConditionedConv& size, const Input& filter, const Signals&... signals) {
  return {row_plan<R>(size, signals...), is_wide(filter, size.taps)};
}
template <class R>
ConditionedPlan plan_of(const ConditionedConv& size, const ConditionedConvForward& a) {
  return plan_of<R>(size, a.filter, a.x, a.query, a.key, a.pre_gate, a.post_gate, a.y);
}
template <class R>
ConditionedPlan plan_of(const ConditionedConv& size, const ConditionedConvBackward& a) {
  return plan_of<R>(size, a.filter, a.grad_out, a.x, a.query, a.key, a.pre_gate, a.post_gate, a.grad_x,
                    a.grad_query, a.grad_key, a.grad_pre_gate, a.grad_post_gate);
}

template <class R>
cudaError_t run_forward(const ConditionedConv& size, const ConditionedConvForward& a, cudaStream_t stream) {
  if (!fuses<R>(size.length)) return cudaErrorInvalidValue;
  const ConditionedPlan plan = plan_of<R>(size, a);
  return launch_of(plan, forward_shared<R>(plan.ring, bool(a.filter)), stream)(conditioned_rows<R>, plan, a);
}

// Backward's sums, in the workspace.
template <class R>
struct Sums {
  Workspace workspace;
  R *weights = nullptr, *filters = nullptr;

  Sums(const ConditionedPlan& plan, const ConditionedConvBackward& a, void* memory) {
    workspace.memory = static_cast<char*>(memory);
    const std::int64_t rows = plan.chunks * plan.size.channels;
    if (a.grad_frequency_filter || a.grad_frequency_bias || a.grad_skip)
      weights = workspace.take<R>(rows * kWeights);
    if (a.grad_filter) filters = workspace.take<R>(rows * (plan.size.length + 2));
  }
};

// What is wanted of a row; 0: nothing.
unsigned steps_of(const ConditionedConvBackward& a, bool weights) {
  const bool signal = a.grad_x || a.grad_pre_gate, post_gate = bool(a.grad_post_gate);
  const bool adjoint = a.grad_query || a.grad_key, taps = bool(a.grad_frequency_filter);
  const bool multiplies = signal || post_gate, conditioning = adjoint || taps;
  const bool spectrum = adjoint || weights || a.grad_filter;
  if (!multiplies && !spectrum) return 0;
  unsigned steps = 0;
  const auto want = [&](Step step, bool wanted) { steps |= unsigned(wanted) << step; };
  want(kQuery, multiplies || conditioning);
  want(kKey, multiplies && a.key);
  want(kCondition, multiplies);
  want(kStatics, multiplies && a.filter);
  want(kFilter, multiplies);
  want(kSignal, post_gate || spectrum);
  want(kGradient, signal || spectrum);
  want(kMultiply, true);
  want(kToPostGate, post_gate);
  want(kToSignal, signal);
  want(kKeyAgain, conditioning && a.key);
  want(kConditionAgain, taps);
  want(kWeightSums, weights);
  want(kAdjoint, adjoint);
  want(kToQuery, bool(a.grad_query));
  want(kToKey, bool(a.grad_key));
  want(kFilterSum, bool(a.grad_filter));
  want(kToFilter, bool(a.grad_filter));
  return steps;
}

template <class R>
cudaError_t run_backward(const ConditionedConv& size, const ConditionedConvBackward& a, void* memory,
                         cudaStream_t stream) {
  if (!fuses<R>(size.length)) return cudaErrorInvalidValue;
  const ConditionedPlan plan = plan_of<R>(size, a);
  const Sums<R> sums(plan, a, memory);
  const unsigned steps = steps_of(a, sums.weights != nullptr);
  if (!steps) return cudaSuccess;
  if (const cudaError_t e = launch_of(plan, backward_shared<R>(plan.ring), stream)(
          conditioned_gradients<R>, plan, a, steps, sums.weights, sums.filters))
    return e;
  if (!sums.weights && !sums.filters) return cudaSuccess;
  const std::int64_t threads = size.channels * (kWeights + (sums.filters ? size.taps : 0));
  const Launch totals{dim3(unsigned(std::min<std::int64_t>((threads + 255) / 256, 1 << 30))), dim3(256), 0,
                      stream};
  return totals(conditioned_totals<R>, plan, a, sums.weights, sums.filters);
}

template <class R>
std::int64_t backward_workspace(const ConditionedConv& size, const ConditionedConvBackward& a) {
  return Sums<R>(plan_of<R>(size, a), a, nullptr).workspace.used;
}

}  // namespace

bool conditioned_conv_fuses(std::int64_t length, DType dtype) {
  return dtype == DType::float64 ? fuses<double>(length) : fuses<float>(length);
}
std::int64_t conditioned_conv_forward_workspace(const ConditionedConv&, const ConditionedConvForward&) {
  return 0;
}
std::int64_t conditioned_conv_backward_workspace(const ConditionedConv& size,
                                                 const ConditionedConvBackward& a) {
  return a.x.dtype == DType::float64 ? backward_workspace<double>(size, a)
                                     : backward_workspace<float>(size, a);
}
cudaError_t conditioned_conv_forward(const ConditionedConv& size, const ConditionedConvForward& a, void*,
                                     cudaStream_t stream) {
  return a.x.dtype == DType::float64 ? run_forward<double>(size, a, stream)
                                     : run_forward<float>(size, a, stream);
}
cudaError_t conditioned_conv_backward(const ConditionedConv& size, const ConditionedConvBackward& a,
                                      void* workspace, cudaStream_t stream) {
  return a.x.dtype == DType::float64 ? run_backward<double>(size, a, workspace, stream)
                                     : run_backward<float>(size, a, workspace, stream);
}

}  // namespace equiconv::cuda
