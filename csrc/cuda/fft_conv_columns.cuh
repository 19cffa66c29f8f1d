// The first and the third of fft_conv's three launches: the columns of polynomials of N = N1 N2 points,
// N1 points each, from the tensors to the workspace and back.
#pragma once
#include "fft_conv_rows.cuh"
#include "fft_conv_tensors.cuh"
#include "ring_transform.cuh"

namespace equiconv::cuda {

// Column j of a polynomial is its points j, j + N2, ...; a block takes neighbouring columns, so that a
// warp's accesses are as wide as a sector even where single elements are small.
struct Columns {
  std::int64_t polynomial;
  int first;

  __device__ Columns(const Ring& ring, int log_n2, std::int64_t unit)
      : polynomial(unit >> (log_n2 - ring.log_rows)),
        first(int(unit & ((1 << (log_n2 - ring.log_rows)) - 1)) << ring.log_rows) {}
};

// The filters', then the signals', then the gradients', as far as each has a place to go to.
template <class R>
__global__ void __launch_bounds__(kMaxThreads<R>)
    columns_forward(const Tensors<R> t, const Polynomials<R> p, const Ring ring) {
  const RingTransform<R> transform(ring, dynamic_shared());
  transform.fill_factors(R(0.25));
  const std::int64_t filters = p.filter ? p.ids : 0, rows = p.ids * p.repeats;
  const std::int64_t signals = p.signal ? rows : 0, gradients = p.gradient ? rows : 0;
  const std::int64_t units = (filters + signals + gradients) << (p.log_n2 - ring.log_rows);

  for (std::int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const Columns columns(ring, p.log_n2, unit);
    std::int64_t row = columns.polynomial;
    Source source = Source::filter;
    if (row >= filters) row -= filters, source = p.signal ? Source::signal : Source::gradient;
    if (source == Source::signal && row >= signals) row -= signals, source = Source::gradient;
    const std::int64_t repeats = source == Source::filter ? 1 : p.repeats;
    const std::int64_t id = row / repeats, repeat = row % repeats;
    Complex<R>* const to = p.row(source, id, repeat);

    transform.forward(
        [&](Group<R>& v, const Place& place) {
          const int first = (place.group << p.log_n2) + columns.first + place.row;
          load_points(source, t, v,
                      t.span(p.first_id + std::uint32_t(id), p.first_repeat + repeat, first,
                             ring.step() << p.log_n2, false));
        },
        [&](Group<R>& v, const Place& place) {
          const int leaf = place.group * kGroup;
#pragma unroll
          for (int k = 0; k < kGroup; ++k) to[((leaf + k) << p.log_n2) + columns.first + place.row] = v[k];
        });
  }
}

// The first result's rows, then the second's, then the filters' gradients, which stay in the workspace.
template <class R>
__global__ void __launch_bounds__(kMaxThreads<R>)
    columns_inverse(const Tensors<R> t, const Polynomials<R> p, const Ring ring) {
  const RingTransform<R> transform(ring, dynamic_shared());
  transform.fill_factors(R(0.25));
  const std::int64_t rows = p.ids * p.repeats;
  const std::int64_t first_results = t.y.data || t.grad_post_gate.data ? rows : 0;
  const std::int64_t signals = t.grad_x.data || t.grad_pre_gate.data ? rows : 0;
  const std::int64_t filters = p.grad_filter && p.last_portion ? p.ids : 0;
  const std::int64_t units = (first_results + signals + filters) << (p.log_n2 - ring.log_rows);

  for (std::int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const Columns columns(ring, p.log_n2, unit);
    std::int64_t row = columns.polynomial;
    Result result = t.y.data ? Result::y : Result::grad_post_gate;
    if (row >= first_results) row -= first_results, result = Result::grad_signal;
    const bool filter = result == Result::grad_signal && row >= signals;
    if (filter) row -= signals;
    Complex<R>* const polynomial = (filter                          ? p.grad_filter
                                    : result == Result::grad_signal ? p.gradient
                                                                    : p.signal) +
                                   (row << t.log_n);
    const std::int64_t repeats = filter ? 1 : p.repeats, id = row / repeats, repeat = row % repeats;

    transform.begin_inverse([&](Group<R>& v, const Place& place) {
      const int leaf = place.group * kGroup;
#pragma unroll
      for (int k = 0; k < kGroup; ++k)
        v[k] = polynomial[((leaf + k) << p.log_n2) + columns.first + place.row];
    });
    transform.inverse([&](Group<R>& v, const Place& place) {
      const int first = (place.group << p.log_n2) + columns.first + place.row;
      const int step = ring.step() << p.log_n2;
      if (!filter) {
        R c[kGroup];
        real_part(c, v);
        return store_points(
            result, t, c,
            t.span(p.first_id + std::uint32_t(id), p.first_repeat + repeat, first, step, false));
      }
#pragma unroll
      for (int k = 0; k < kGroup; ++k) polynomial[first + k * step] = v[k];
    });
  }
}

}  // namespace equiconv::cuda
