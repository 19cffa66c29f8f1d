// fft_conv on a GPU.
//
//   y      = post (c + skip u),  c = Re F'(K U) / N,  u = pre x,  K = F filter,  U = F u
//   grad u = Re F'(conj(K) G) / N + skip g,           g = post grad_out,         G = F g
//   grad k = F'(conj(U) G) / N, summed over the batch if the filter is shared; grad skip is its lag 0
//
// F is the transform of ring_transform.cuh, N the power of two not below the length, F' its adjoint.
//
// One launch, up to N = 16384 (float64: 8192). A block transforms one row, or several short ones; each
// thread takes 16 points at a time. Rows come and go by way of shared memory, 16 bytes of a tensor a thread.
// The pass that completes a spectrum multiplies it and begins the inverse while it is in registers. A
// spectrum needed later is kept for the thread that made it and will want it, in any order that suits: in
// shared memory while there is room, else in the workspace. A shared filter is transformed once.
//
//   shared memory   work 17/16 N, factors N/8, spectra N each, in complex numbers of 8 (16) bytes:
//                   forward keeps K, backward K and U, and the sum of conj(U) G for a shared filter
//
// Three launches above that, up to L = 2^22: with N = N1 N2 the columns' transforms of N1 points go to
// the workspace; then the rows', each a ring of its own with another root, the products and the rows'
// inverses; then the columns' inverses. Batch and channels are taken in portions that fit 64 MB.
// The filter's gradient needs one launch more to collect its taps, as does a sum over parts of a batch.
//
// Every sum has a fixed order, nothing is atomic: same input, same bits.
//
// What bounds it. At N = 4096 and float32 a row moves 48 KB to and from memory (11 ns of 4.3 TB/s),
// 18 times N complex numbers to and from shared memory (20 ns of 29 TB/s) and half a million
// multiply-adds (16 ns at 60 TFLOP/s): the three overlap. Not yet run on a GPU.
#include "fft_conv.h"

#include <algorithm>

#include "device.cuh"
#include "fft_conv_columns.cuh"
#include "fft_conv_rows.cuh"
#include "fft_conv_tensors.cuh"
#include "launch.cuh"
#include "ring_transform.cuh"

namespace equiconv::cuda {
namespace {

// ---- forward -----------------------------------------------------------------------------------

template <class R, class Rows>
__global__ void __launch_bounds__(kMaxThreads<R>)
    convolve(const Rows rows, const Ring ring, const Work work, const Spectra<R> spectra) {
  const RingTransform<R> transform(ring, dynamic_shared());
  const Spectrum<R> filter = spectra(0, ring);

  for (std::uint32_t unit = blockIdx.x; unit < work.units(); unit += gridDim.x) {
    const Unit u(work, ring, unit);
    if (!Rows::kOneRoot || unit == blockIdx.x) transform.fill_factors(rows.turns(u.id));

    // 1. The filter's spectrum, kept.
    rows.forward(transform, Source::filter, u, 0, [&](Group<R>& v, const Place& p) { filter.put(v, p); });

    for (std::uint32_t repeat = u.begin; repeat < u.end; ++repeat) {
      // 2. The signal's, and while it is in registers the product and the way back.
      rows.forward(transform, Source::signal, u, repeat, [&](Group<R>& v, const Place& p) {
        filter.multiply(v, p);
        transform.begin_inverse(v, p);
      });
      // 3. Back, weighed and gated.
      rows.inverse(transform, Result::y, u, repeat);
    }
  }
}

// ---- adjoint -----------------------------------------------------------------------------------

struct Wanted {
  bool signal, post_gate, filter;  // `filter`: its gradient or skip's
  bool summed;                     // the filter's gradient is a sum over repeats
};

template <class R, class Rows>
__global__ void __launch_bounds__(kMaxThreads<R>)
    correlate(const Rows rows, const Ring ring, const Work work, const Spectra<R> spectra,
              const Wanted wanted, Complex<R>* const sums) {
  const RingTransform<R> transform(ring, dynamic_shared());
  const Spectrum<R> filter = spectra(0, ring), signal = spectra(1, ring);
  Spectrum<R> sum = wanted.summed ? spectra(2, ring) : signal;

  for (std::uint32_t unit = blockIdx.x; unit < work.units(); unit += gridDim.x) {
    const Unit u(work, ring, unit);
    if (!Rows::kOneRoot || unit == blockIdx.x) transform.fill_factors(rows.turns(u.id));
    if (sums && wanted.summed) sum.data = sums + std::int64_t(unit) * ring.n();

    // 1. The filter's spectrum, kept; an empty sum.
    if (wanted.signal || wanted.post_gate)
      rows.forward(transform, Source::filter, u, 0, [&](Group<R>& v, const Place& p) { filter.put(v, p); });
    if (wanted.summed && !rows.resumes())
      for (int i = threadIdx.x; i < ring.groups(); i += blockDim.x)
#pragma unroll
        for (int k = 0; k < kGroup; ++k) sum.data[k * ring.groups() + i] = {};

    for (std::uint32_t repeat = u.begin; repeat < u.end; ++repeat) {
      // 2. The signal's spectrum, kept; the forward result for the post gate.
      if (wanted.post_gate || wanted.filter)
        rows.forward(transform, Source::signal, u, repeat, [&](Group<R>& v, const Place& p) {
          if (wanted.filter) signal.put(v, p);
          if (!wanted.post_gate) return;
          filter.multiply(v, p);
          transform.begin_inverse(v, p);
        });
      if (wanted.post_gate) rows.inverse(transform, Result::grad_post_gate, u, repeat);

      // 3. The gradient's spectrum: times conj(U) for the filter, times conj(K) for the signal.
      if (wanted.signal || wanted.filter)
        rows.forward(transform, Source::gradient, u, repeat, [&](Group<R>& v, const Place& p) {
          const auto correlation = [&](auto combine) {
            const Complex<R>* kept_signal = signal.data + p.index;
            sum.for_each(p, [&](int k, Complex<R>& kept) {
              kept = combine(kept, conj(*kept_signal) * v[k]);
              kept_signal += ring.groups();
            });
          };
          if (wanted.summed) correlation([](Complex<R> a, Complex<R> b) { return a + b; });
          else if (wanted.filter) correlation([](Complex<R>, Complex<R> b) { return b; });
          if (!wanted.signal) return;
          filter.correlate(v, p);
          transform.begin_inverse(v, p);
        });
      if (wanted.signal) rows.inverse(transform, Result::grad_signal, u, repeat);
    }

    // 4. The filter's gradient: here a filter that is not shared has had its one repeat.
    if (wanted.filter && rows.completes()) {
      transform.begin_inverse([&](Group<R>& v, const Place& p) { sum.get(v, p); });
      rows.store_grad_filter(transform, u);
    }
  }
}

// Sums the parts of a filter's gradient in their order, and takes out the taps.
template <class R>
__global__ void __launch_bounds__(256)
    collect_taps(const Tensors<R> t, const Complex<R>* const parts, const int count,
                 const std::uint32_t first_id, const std::uint32_t ids, R* const lag0) {
  const R scale = R(1) / R(1 << t.log_n);
  const std::int64_t taps = t.grad_filter.data ? t.size.taps : 1, all = taps * ids;
  for (std::int64_t i = blockIdx.x * 256ll + threadIdx.x; i < all; i += gridDim.x * 256ll) {
    const auto id = std::uint32_t(i / taps);
    const int tap = int(i % taps);
    const auto at = [&](int n) {
      Complex<R> sum = {R(0), R(0)};
      for (std::int64_t part = 0; part < count; ++part) sum = sum + parts[((part * ids + id) << t.log_n) + n];
      return Complex<R>{scale * sum.re, scale * sum.im};
    };
    if (t.grad_filter.data) t.store_grad_tap(first_id + id, tap, at);
    if (lag0 && tap == 0) lag0[first_id + id] = at(0).re;
  }
}

// grad skip[channel] = the sum of lag0[part][channel].
template <class R>
__global__ void __launch_bounds__(256) collect_skip(const R* const lag0, const std::int64_t parts,
                                                    const std::int64_t channels, const Output grad_skip) {
  for (std::int64_t c = blockIdx.x * 256ll + threadIdx.x; c < channels; c += gridDim.x * 256ll) {
    R sum = 0;
    for (std::int64_t part = 0; part < parts; ++part) sum += lag0[part * channels + c];
    store_one(sum, grad_skip, c * grad_skip.channel);
  }
}

// ---- launchers ---------------------------------------------------------------------------------

constexpr int kMaxLogLength = 22;
constexpr std::int64_t kPortionBytes = 64 << 20;  // of the three launches' workspace, or one row's

int log2_at_least(std::int64_t n) {
  int log = 0;
  while (std::int64_t(1) << log < n) ++log;
  return log;
}
unsigned grid_for(std::int64_t units) { return unsigned(std::min<std::int64_t>(units, 0x7fffffff)); }
std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// One call: it plans, takes workspace, and launches unless it only counts the workspace.
template <class R>
struct Call {
  Device device;
  Workspace workspace;
  cudaStream_t stream = nullptr;
  bool launches = false;
  Tensors<R> t{};
  Wanted wanted{};  // backward only
  std::int64_t repeats = 1;
  R* lag0 = nullptr;

  static constexpr std::int64_t kBytes = sizeof(Complex<R>);

  // Short rows share a block. Where a row's positions are strided, its neighbours are other channels.
  Ring ring_of_rows(std::int64_t rows) const {
    Ring ring;
    ring.log_n = t.log_n;
    ring.rows_fastest = t.x.channel == 1 && t.x.position != 1;
    const int single = sizeof(R) == sizeof(float);
    ring.log_rows = std::max(10 + single - t.log_n, 0);
    if (ring.rows_fastest)
      ring.log_rows = std::max(ring.log_rows, std::min(std::max(11 + single - t.log_n, 0), 4));
    ring.log_rows = std::min(ring.log_rows, log2_at_least(rows));
    return ring;
  }

  // Whether rows of `count` elements can be read or written 16 bytes at a time.
  template <class Void>
  static bool is_wide(const Array<Void>& a, std::int64_t count) {
    const int size = a.dtype == DType::float64 ? 8 : a.dtype == DType::float32 ? 4 : 2;
    const std::int64_t bytes = reinterpret_cast<std::intptr_t>(a.data) | (a.batch | a.channel | count) * size;
    return !a || (a.position == 1 && bytes % 16 == 0);
  }
  template <class... Arrays>
  void set_wide(const Arrays&... arrays) {
    t.wide = (is_wide(arrays, t.size.length) && ...);
    t.wide_filter = t.size.mode == Mode::causal && is_wide(t.filter, t.size.taps);
  }

  void set_rows(bool over_batch) {
    t.over_batch = over_batch;
    t.ids = std::uint32_t(over_batch ? t.size.channels : t.size.batch * t.size.channels);
    repeats = over_batch ? t.size.batch : 1;
  }

  template <class... Parameter, class... Argument>
  cudaError_t launch(std::int64_t blocks, int groups, std::int64_t shared, void (*kernel)(Parameter...),
                     const Argument&... arguments) const {
    if (!launches || !blocks) return cudaSuccess;
    const int threads = std::min(groups, kMaxThreads<R>);
    return Launch{dim3(grid_for(blocks)), dim3(unsigned(threads)), std::size_t(shared), stream}(kernel,
                                                                                                arguments...);
  }

  // A kernel over rows: its spectra in shared memory as far as they fit, the others in the workspace
  // of as many blocks as can run at a time.
  template <class... Parameter, class Rows, class... Argument>
  cudaError_t over_rows(void (*kernel)(Parameter...), const Rows& rows, const Ring& ring, const Work& work,
                        Spectra<R> spectra, const Argument&... arguments) const {
    const std::int64_t each = kBytes * ring.n() * ring.rows();
    return launch(blocks(ring, work, spectra), ring.groups(),
                  ring.template shared_bytes<R>() + spectra.in_shared * each, kernel, rows, ring, work,
                  spectra, arguments...);
  }
  std::int64_t blocks(const Ring& ring, const Work& work, const Spectra<R>& spectra) const {
    if (spectra.in_shared == spectra.count) return work.units();
    const std::int64_t each = kBytes * ring.n() * ring.rows();
    const std::int64_t shared = ring.template shared_bytes<R>() + spectra.in_shared * each;
    return std::min<std::int64_t>(work.units(),
                                  device.multiprocessors * std::max<std::int64_t>(1, device.shared / shared));
  }
  Spectra<R> place_spectra(const Ring& ring, const Work& work, int count) {
    const std::int64_t each = kBytes * ring.n() * ring.rows();
    Spectra<R> spectra;
    spectra.count = count;
    spectra.in_shared =
        int(std::min<std::int64_t>(count, (device.shared - ring.template shared_bytes<R>()) / each));
    const std::int64_t outside = count - spectra.in_shared;
    if (outside)
      spectra.workspace =
          workspace.take<Complex<R>>(blocks(ring, work, spectra) * outside * ring.n() * ring.rows());
    return spectra;
  }

  bool one_launch() const {
    Ring ring;
    ring.log_n = t.log_n;
    return t.log_n <= 14 && ring.template shared_bytes<R>() <= device.shared;
  }

  // In how many chunks to take the repeats: as few as give so many blocks. Depends on the sizes only.
  std::uint32_t chunks(std::int64_t enough, std::uint32_t tiles) const {
    const std::int64_t most = std::max<std::int64_t>(repeats, 1);
    return std::uint32_t(std::clamp<std::int64_t>(quotient_up(enough, std::max(tiles, 1u)), 1, most));
  }

  cudaError_t forward() {
    if (!one_launch()) {
      set_rows(t.size.shared);
      return three_launches(true);
    }
    Ring ring = ring_of_rows(t.size.batch * t.size.channels);
    set_rows(t.size.shared && t.size.channels >= ring.rows());
    Work work;
    work.tiles = std::uint32_t(quotient_up(t.ids, ring.rows()));
    work.repeats = std::uint32_t(repeats);
    work.chunks = chunks(2048, work.tiles);  // enough blocks for any GPU
    const Spectra<R> spectra = place_spectra(ring, work, 1);
    return over_rows(convolve<R, WholeRows<R>>, WholeRows<R>{t, nullptr, nullptr}, ring, work, spectra);
  }

  cudaError_t backward(const Output& grad_skip) {
    set_rows(t.size.shared);
    wanted.signal = t.grad_x || t.grad_pre_gate;
    wanted.post_gate = bool(t.grad_post_gate);
    wanted.filter = t.grad_filter || grad_skip;
    wanted.summed = wanted.filter && t.over_batch;
    if (!wanted.signal && !wanted.post_gate && !wanted.filter) return cudaSuccess;
    if (grad_skip) lag0 = workspace.take<R>(t.ids);
    if (const cudaError_t e = one_launch() ? one_launch_backward() : three_launches(false)) return e;
    if (!grad_skip) return cudaSuccess;
    return launch(quotient_up(t.size.channels, 256), 256, 0, collect_skip<R>, lag0,
                  t.over_batch ? 1 : t.size.batch, t.size.channels, grad_skip);
  }

  cudaError_t one_launch_backward() {
    const Ring ring = ring_of_rows(t.ids);
    Work work;
    work.tiles = std::uint32_t(quotient_up(t.ids, ring.rows()));
    work.repeats = std::uint32_t(repeats);
    work.chunks = chunks(wanted.summed ? 264 : 2048, work.tiles);  // every chunk costs a partial sum
    Complex<R>* parts = nullptr;
    const bool in_parts = wanted.summed && work.chunks > 1;
    if (in_parts) parts = workspace.take<Complex<R>>((std::int64_t(work.chunks) * t.ids) << t.log_n);
    const Spectra<R> spectra = place_spectra(ring, work, wanted.summed ? 3 : wanted.filter ? 2 : 1);
    if (const cudaError_t e = over_rows(correlate<R, WholeRows<R>>, WholeRows<R>{t, parts, lag0}, ring, work,
                                        spectra, wanted, static_cast<Complex<R>*>(nullptr)))
      return e;
    return in_parts ? collect(parts, int(work.chunks), 0, t.ids) : cudaSuccess;
  }

  cudaError_t collect(const Complex<R>* parts, int count, std::uint32_t first_id, std::uint32_t ids) const {
    const std::int64_t all = ids * (t.grad_filter ? t.size.taps : 1);
    return launch(quotient_up(all, 256), 256, 0, collect_taps<R>, t, parts, count, first_id, ids, lag0);
  }

  cudaError_t three_launches(bool forward) {
    // 1. N = N1 N2, rows of up to 4096 points and columns of 32 to 1024, 16 columns (8 of float64) or
    //    more to a block.
    Polynomials<R> p;
    p.log_n2 = std::min(12, t.log_n - 5);
    p.log_n1 = t.log_n - p.log_n2;
    Ring columns;
    columns.log_n = p.log_n1, columns.rows_fastest = true;
    columns.log_rows = std::max(sizeof(R) == sizeof(float) ? 4 : 3, 11 - p.log_n1);
    while (columns.template shared_bytes<R>() > device.shared) --columns.log_rows;
    Ring rows;
    rows.log_n = p.log_n2;

    // 2. The portions: whole filters with all their repeats if they fit, else some repeats of one.
    const bool filters = forward || wanted.signal || wanted.post_gate;
    const bool signals = forward || wanted.post_gate || wanted.filter;
    const bool gradients = !forward && (wanted.signal || wanted.filter);
    const std::int64_t polynomial = kBytes << t.log_n;
    const std::int64_t per_id = (filters + wanted.filter) * polynomial;
    const std::int64_t per_repeat = (signals + gradients) * polynomial;
    const std::int64_t ids_at_once = std::clamp<std::int64_t>(
        kPortionBytes / (per_id + std::max<std::int64_t>(repeats, 1) * per_repeat), 1, std::max(t.ids, 1u));
    const std::int64_t repeats_at_once =
        ids_at_once > 1 ? repeats
                        : std::clamp<std::int64_t>((kPortionBytes - per_id) / per_repeat, 1,
                                                   std::max<std::int64_t>(repeats, 1));
    const std::int64_t points = std::int64_t(1) << t.log_n;
    if (filters) p.filter = workspace.take<Complex<R>>(ids_at_once * points);
    if (wanted.filter) p.grad_filter = workspace.take<Complex<R>>(ids_at_once * points);
    if (signals) p.signal = workspace.take<Complex<R>>(ids_at_once * repeats_at_once * points);
    if (gradients) p.gradient = workspace.take<Complex<R>>(ids_at_once * repeats_at_once * points);
    Work work;
    work.tiles = std::uint32_t(ids_at_once << p.log_n1);
    const Spectra<R> spectra = place_spectra(rows, work, wanted.filter ? 2 : 1);
    if (!launches) return cudaSuccess;

    // 3. Columns, rows, columns.
    for (std::int64_t id = 0; id < t.ids; id += ids_at_once) {
      p.first_id = std::uint32_t(id);
      p.ids = std::uint32_t(std::min<std::int64_t>(ids_at_once, t.ids - id));
      std::int64_t repeat = 0;
      do {
        p.first_repeat = repeat;
        p.repeats = std::min(repeats_at_once, repeats - repeat);
        p.first_portion = repeat == 0, p.last_portion = repeat + p.repeats == repeats;
        if (const cudaError_t e = portion(p, columns, rows, spectra, forward)) return e;
        repeat += p.repeats;
      } while (repeat < repeats);
      if (wanted.filter)
        if (const cudaError_t e = collect(p.grad_filter, 1, p.first_id, p.ids)) return e;
    }
    return cudaSuccess;
  }

  cudaError_t portion(const Polynomials<R>& p, const Ring& columns, const Ring& rows,
                      const Spectra<R>& spectra, bool forward) const {
    const std::int64_t signals = p.ids * p.repeats;
    const std::int64_t loaded =
        (p.filter ? p.ids : 0) + (p.signal ? signals : 0) + (p.gradient ? signals : 0);
    const std::int64_t stored = (forward || wanted.post_gate ? signals : 0) + (wanted.signal ? signals : 0) +
                                (wanted.filter && p.last_portion ? p.ids : 0);
    const int log_tiles = p.log_n2 - columns.log_rows;
    const std::int64_t shared = columns.template shared_bytes<R>();
    Work work;
    work.tiles = p.ids << p.log_n1;
    work.repeats = std::uint32_t(p.repeats);
    if (const cudaError_t e =
            launch(loaded << log_tiles, columns.groups(), shared, columns_forward<R>, t, p, columns))
      return e;
    const RowsOfPolynomials<R> source{p};
    if (const cudaError_t e = forward
                                  ? over_rows(convolve<R, RowsOfPolynomials<R>>, source, rows, work, spectra)
                                  : over_rows(correlate<R, RowsOfPolynomials<R>>, source, rows, work, spectra,
                                              wanted, p.grad_filter))
      return e;
    return launch(stored << log_tiles, columns.groups(), shared, columns_inverse<R>, t, p, columns);
  }
};

template <class R>
cudaError_t prepare(Call<R>& call, const FftConv& size, const Input& x) {
  const std::int64_t rows = size.batch * size.channels;
  if (size.length < 1 || size.length > std::int64_t(1) << kMaxLogLength || size.taps < 1 || rows < 0 ||
      rows > std::int64_t(1) << 31)
    return cudaErrorInvalidValue;
  call.t.size = size;
  call.t.log_n = std::max(5, log2_at_least(size.length));
  call.t.lags = Lags::of(size, std::int64_t(1) << call.t.log_n);
  call.t.x = x;
  return Device::current(call.device);
}

template <class R>
cudaError_t run(Call<R>& call, const FftConv& size, const FftConvForward& a) {
  if (const cudaError_t e = prepare(call, size, a.x)) return e;
  Tensors<R>& t = call.t;
  t.filter = a.filter, t.pre_gate = a.pre_gate, t.post_gate = a.post_gate, t.skip = a.skip, t.y = a.y;
  call.set_wide(t.x, t.pre_gate, t.post_gate, t.y);
  return call.forward();
}
template <class R>
cudaError_t run(Call<R>& call, const FftConv& size, const FftConvBackward& a) {
  if (const cudaError_t e = prepare(call, size, a.x)) return e;
  Tensors<R>& t = call.t;
  t.grad_out = a.grad_out;
  t.filter = a.filter, t.pre_gate = a.pre_gate, t.post_gate = a.post_gate, t.skip = a.skip;
  t.grad_x = a.grad_x, t.grad_filter = a.grad_filter;
  t.grad_pre_gate = a.grad_pre_gate, t.grad_post_gate = a.grad_post_gate;
  call.set_wide(t.grad_out, t.x, t.pre_gate, t.post_gate, t.grad_x, t.grad_pre_gate, t.grad_post_gate);
  return call.backward(a.grad_skip);
}

template <class R, class Arguments>
std::int64_t count_workspace(const FftConv& size, const Arguments& arguments) {
  Call<R> call;
  run(call, size, arguments);  // an error comes back from the launch that follows
  return call.workspace.used;
}
template <class R, class Arguments>
cudaError_t launch_all(const FftConv& size, const Arguments& arguments, void* workspace,
                       cudaStream_t stream) {
  Call<R> call;
  call.workspace.memory = static_cast<char*>(workspace);
  call.stream = stream, call.launches = true;
  return run(call, size, arguments);
}

}  // namespace

std::int64_t fft_conv_forward_workspace(const FftConv& size, const FftConvForward& a) {
  return a.x.dtype == DType::float64 ? count_workspace<double>(size, a) : count_workspace<float>(size, a);
}
std::int64_t fft_conv_backward_workspace(const FftConv& size, const FftConvBackward& a) {
  return a.x.dtype == DType::float64 ? count_workspace<double>(size, a) : count_workspace<float>(size, a);
}
cudaError_t fft_conv_forward(const FftConv& size, const FftConvForward& a, void* workspace,
                             cudaStream_t stream) {
  return a.x.dtype == DType::float64 ? launch_all<double>(size, a, workspace, stream)
                                     : launch_all<float>(size, a, workspace, stream);
}
cudaError_t fft_conv_backward(const FftConv& size, const FftConvBackward& a, void* workspace,
                              cudaStream_t stream) {
  return a.x.dtype == DType::float64 ? launch_all<double>(size, a, workspace, stream)
                                     : launch_all<float>(size, a, workspace, stream);
}

}  // namespace equiconv::cuda
