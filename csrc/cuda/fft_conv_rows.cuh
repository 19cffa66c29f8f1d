// The rows a block of fft_conv works on: which they are, where they come from and go to, and the spectra
// kept on the way. A kernel is written once and takes its rows from the tensors (WholeRows: the one
// launch) or from polynomials in the workspace (RowsOfPolynomials: the second of three launches).
#pragma once
#include "fft_conv_tensors.cuh"

namespace equiconv::cuda {

template <class R>
constexpr int kMaxThreads = sizeof(R) == sizeof(float) ? 512 : 256;  // leaves 128 (256) registers

// ---- the work of a launch ----------------------------------------------------------------------

// Rows are numbered (id, repeat): a filter has one id and is used `repeats` times. A unit of work is a
// tile of ids, as many as a block has transforms, for one chunk of the repeats.
struct Work {
  std::uint32_t tiles = 0, chunks = 1, repeats = 1;

  __host__ __device__ std::uint32_t units() const { return tiles * chunks; }
};
struct Unit {
  std::uint32_t id;  // of the first row
  std::uint32_t chunk;
  std::uint32_t begin, end;  // repeats

  __device__ Unit(const Work& w, const Ring& ring, std::uint32_t unit)
      : id(unit % w.tiles << ring.log_rows),
        chunk(unit / w.tiles),
        begin(std::uint32_t(std::uint64_t(w.repeats) * chunk / w.chunks)),
        end(std::uint32_t(std::uint64_t(w.repeats) * (chunk + 1) / w.chunks)) {}
};

// A spectrum that each thread keeps for itself.
template <class R>
struct Spectrum {
  Complex<R>* data;
  int groups;

  // f(k, the place of point k)
  template <class F>
  __device__ __forceinline__ void for_each(const Place& p, F f) const {
    Complex<R>* at = data + p.index;
#pragma unroll
    for (int k = 0; k < kGroup; ++k, at += groups) f(k, *at);
  }
  __device__ __forceinline__ void put(const Group<R>& v, const Place& p) const {
    for_each(p, [&](int k, Complex<R>& kept) { kept = v[k]; });
  }
  __device__ __forceinline__ void get(Group<R>& v, const Place& p) const {
    for_each(p, [&](int k, Complex<R>& kept) { v[k] = kept; });
  }
  // v times this, or times its conjugate
  __device__ __forceinline__ void multiply(Group<R>& v, const Place& p) const {
    for_each(p, [&](int k, Complex<R>& kept) { v[k] = kept * v[k]; });
  }
  __device__ __forceinline__ void correlate(Group<R>& v, const Place& p) const {
    for_each(p, [&](int k, Complex<R>& kept) { v[k] = conj(kept) * v[k]; });
  }
};
// The spectra of a block: the first few in shared memory, the others in the block's own workspace.
template <class R>
struct Spectra {
  int count = 0, in_shared = 0;
  Complex<R>* workspace = nullptr;

  __device__ Spectrum<R> operator()(int i, const Ring& ring) const {
    const int size = kGroup * ring.groups();
    auto* shared = reinterpret_cast<Complex<R>*>(dynamic_shared() + ring.shared_bytes<R>());
    if (i < in_shared) return {shared + i * size, ring.groups()};
    const std::int64_t slot = std::int64_t(blockIdx.x) * (count - in_shared) + i - in_shared;
    return {workspace + slot * size, ring.groups()};
  }
};

// ---- where rows come from and go to ------------------------------------------------------------

template <class R>
__device__ __forceinline__ void scaled_real(R (&c)[kGroup], const Group<R>& v, int log_n) {
  const R scale = R(1) / R(1 << log_n);
#pragma unroll
  for (int k = 0; k < kGroup; ++k) c[k] = scale * v[k].re;
}
template <class R>
__device__ __forceinline__ void complex_of(Group<R>& v, const R (&re)[kGroup]) {
#pragma unroll
  for (int k = 0; k < kGroup; ++k) v[k] = {re[k], R(0)};
}

enum class Source { filter, signal, gradient };
enum class Result { y, grad_post_gate, grad_signal };

template <class R>
__device__ __forceinline__ void load_points(Source source, const Tensors<R>& t, Group<R>& v, const Span& s) {
  if (source == Source::filter) return t.load_filter(v, s);
  R re[kGroup];
  if (source == Source::signal) t.load_signal(re, s);
  else t.load_gradient(re, s);
  complex_of(v, re);
}
template <class R>
__device__ __forceinline__ void store_points(Result result, const Tensors<R>& t, const Group<R>& v,
                                             const Span& s) {
  R c[kGroup];
  scaled_real(c, v, t.log_n);
  if (result == Result::y) t.store_y(c, s);
  else if (result == Result::grad_post_gate) t.store_grad_post_gate(c, s);
  else t.store_grad_signal(c, s);
}

// Whole rows, straight from and to the tensors: the one launch.
template <class R>
struct WholeRows {
  Tensors<R> t;
  Complex<R>* parts;  // (chunk, id, N): the filter's gradient before the chunks are summed, or null
  R* lag0;            // (id): its point 0, or null

  static constexpr bool kOneRoot = true;
  __device__ R turns(std::uint32_t) const { return R(0.25); }

  __device__ __forceinline__ void load(Source source, Group<R>& v, std::uint32_t id, std::uint32_t repeat,
                                       const Place& p, int step) const {
    load_points(source, t, v, t.span(id, repeat, p.group, step));
  }
  __device__ __forceinline__ void store(Result result, const Group<R>& v, std::uint32_t id,
                                        std::int64_t repeat, const Place& p, int step) const {
    store_points(result, t, v, t.span(id, repeat, p.group, step));
  }
  __device__ bool resumes() const { return false; }
  __device__ bool completes() const { return true; }
  __device__ __forceinline__ void store_grad_filter(const RingTransform<R>& ring, const Group<R>& v,
                                                    const Unit& u, const Place& p, int step) const {
    if (!parts) return ring.write(v, p);
    const std::uint32_t id = u.id + p.row;
    if (id >= t.ids) return;
    Complex<R>* part = parts + ((std::int64_t(u.chunk) * t.ids + id) << t.log_n) + p.group;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) part[k * step] = v[k];
  }
  // A tap may draw on two points, so it waits until all are there.
  __device__ __forceinline__ void store_taps(const RingTransform<R>& ring, const Unit& u) const {
    if (parts) return;
    __syncthreads();
    const R scale = R(1) / R(1 << t.log_n);
    const int log_width = t.log_n + (t.size.taps > 1 << t.log_n);
    for (int i = threadIdx.x; i < ring.ring.rows() << log_width; i += blockDim.x) {
      const int row = i >> log_width, tap = i & ((1 << log_width) - 1);
      const std::uint32_t id = u.id + row;
      const auto at = [&](int n) -> Complex<R> {
        const Complex<R> z = ring.at(row, n);
        return {scale * z.re, scale * z.im};
      };
      if (id >= t.ids) continue;
      if (t.grad_filter.data && tap < t.size.taps) t.store_grad_tap(id, tap, at);
      if (lag0 && tap == 0) lag0[id] = at(0).re;
    }
  }
};

// Polynomials in the workspace, N = N1 N2 points each, in portions: the three launches.
template <class R>
struct Polynomials {
  Complex<R>*filter = nullptr, *grad_filter = nullptr;  // (id, N)
  Complex<R>*signal = nullptr, *gradient = nullptr;     // (id, repeat, N)
  int log_n1 = 0, log_n2 = 0;
  std::uint32_t first_id = 0, ids = 0;  // the portion
  std::int64_t first_repeat = 0, repeats = 0;
  bool first_portion = true, last_portion = true;  // of a filter's repeats

  __device__ Complex<R>* row(Source source, std::int64_t id, std::int64_t repeat) const {
    const int log_n = log_n1 + log_n2;
    if (source == Source::filter) return filter + (id << log_n);
    return (source == Source::signal ? signal : gradient) + ((id * repeats + repeat) << log_n);
  }
};

// Their rows of N2 points: row b of polynomial id / N1 is a ring of its own.
template <class R>
struct RowsOfPolynomials {
  Polynomials<R> p;

  static constexpr bool kOneRoot = false;
  __device__ R turns(std::uint32_t id) const {
    const unsigned b = id & ((1u << p.log_n1) - 1);
    return (R(__brev(b) >> (32 - p.log_n1)) + R(0.25)) / R(1 << p.log_n1);
  }
  __device__ Complex<R>* row(Source source, std::uint32_t id, std::uint32_t repeat) const {
    const std::uint32_t b = id & ((1u << p.log_n1) - 1);
    return p.row(source, id >> p.log_n1, repeat) + (std::int64_t(b) << p.log_n2);
  }
  __device__ __forceinline__ void load(Source source, Group<R>& v, std::uint32_t id, std::uint32_t repeat,
                                       const Place& place, int step) const {
    const Complex<R>* from = row(source, id, repeat) + place.group;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) v[k] = from[k * step];
  }
  // A result takes the place of what it was made from last.
  __device__ __forceinline__ void store(Result result, const Group<R>& v, std::uint32_t id,
                                        std::int64_t repeat, const Place& place, int step) const {
    const Source over = result == Result::grad_signal ? Source::gradient : Source::signal;
    Complex<R>* to = row(over, id, repeat) + place.group;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) to[k * step] = v[k];
  }
  __device__ bool resumes() const { return !p.first_portion; }
  __device__ bool completes() const { return p.last_portion; }
  __device__ Complex<R>* sum(std::uint32_t id) const {
    return p.grad_filter + (std::int64_t(id) << p.log_n2);
  }
  __device__ __forceinline__ void store_grad_filter(const RingTransform<R>&, const Group<R>& v, const Unit& u,
                                                    const Place& place, int step) const {
    Complex<R>* to = sum(u.id) + place.group;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) to[k * step] = v[k];
  }
  __device__ void store_taps(const RingTransform<R>&, const Unit&) const {}
};

}  // namespace equiconv::cuda
