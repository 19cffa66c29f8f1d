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
__device__ __forceinline__ void real_part(R (&c)[kGroup], const Group<R>& v) {
#pragma unroll
  for (int k = 0; k < kGroup; ++k) c[k] = v[k].re;
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
// c is still N times too large.
template <class R>
__device__ __forceinline__ void store_points(Result result, const Tensors<R>& t, R (&c)[kGroup],
                                             const Span& s) {
  const R scale = R(1) / R(1 << t.log_n);
#pragma unroll
  for (int k = 0; k < kGroup; ++k) c[k] *= scale;
  if (result == Result::y) t.store_y(c, s);
  else if (result == Result::grad_post_gate) t.store_grad_post_gate(c, s);
  else t.store_grad_signal(c, s);
}

// 16 points on their way between a tensor and `work`: `width` neighbours, then as many N width/16 further.
struct Piece {
  int row, first, far, log_width;

  __device__ Piece(const Ring& ring, int index, int log_width)
      : row(index >> (ring.log_n - 4)),
        first((index & (ring.step() - 1)) << log_width),
        far(ring.step() << log_width),
        log_width(log_width) {
    if (log_width || !ring.rows_fastest) return;
    row = index & (ring.rows() - 1), first = index >> ring.log_rows;
  }
  // f(k, the position of point k) for the first `count` points
  template <int Count, class F>
  __device__ __forceinline__ void for_each(F f) const {
    const int width = 1 << log_width;
#pragma unroll
    for (int k = 0; k < Count; ++k) f(k, first + (k & (width - 1)) + (k >> log_width) * far);
  }
};

// Whole rows, straight from and to the tensors: the one launch. They go by way of `work`, where the thread
// that reads or writes a tensor's neighbours meets the one whose points are N/16 apart.
template <class R>
struct WholeRows {
  Tensors<R> t;
  Complex<R>* parts;  // (chunk, id, N): the filter's gradient before the chunks are summed, or null
  R* lag0;            // (id): its point 0, or null

  static constexpr bool kOneRoot = true;
  __device__ R turns(std::uint32_t) const { return R(0.25); }

  __device__ static int log_width(bool wide, DType dtype) {
    if (!wide) return 0;
    return dtype == DType::float64 ? 1 : dtype == DType::float32 ? 2 : 3;
  }

  // finish(v, place) for every group of the rows' spectra
  template <class Finish>
  __device__ __forceinline__ void forward(const RingTransform<R>& transform, Source source, const Unit& u,
                                          std::uint32_t repeat, Finish finish) const {
    const bool filter = source == Source::filter, real = !filter || t.size.mode == Mode::causal;
    const bool wide = filter ? t.wide_filter : t.wide;
    const int log = log_width(wide, filter ? t.filter.dtype : t.x.dtype);
    __syncthreads();  // readers of `work` are done
    for (int i = threadIdx.x; i < transform.ring.groups(); i += blockDim.x) {
      const Piece piece(transform.ring, i, log);
      Group<R> v;
      load_points(source, t, v, t.span(u.id + piece.row, repeat, piece.first, piece.far, wide));
      if (real)
        piece.for_each<kGroup / 2>(
            [&](int k, int n) { transform.at(piece.row, n) = {v[k].re, v[k + kGroup / 2].re}; });
      else piece.for_each<kGroup>([&](int k, int n) { transform.at(piece.row, n) = v[k]; });
    }
    transform.forward(
        [&](Group<R>& v, const Place& p) {
          if (real) transform.read_real(v, p);
          else transform.read(v, p);
        },
        finish);
  }
  // What was begun, back to its rows.
  __device__ __forceinline__ void inverse(const RingTransform<R>& transform, Result result, const Unit& u,
                                          std::uint32_t repeat) const {
    transform.inverse([&](const Group<R>& v, const Place& p) { transform.write_real(v, p); });
    __syncthreads();
    const int log = log_width(t.wide, t.x.dtype);
    for (int i = threadIdx.x; i < transform.ring.groups(); i += blockDim.x) {
      const Piece piece(transform.ring, i, log);
      R c[kGroup];
      piece.for_each<kGroup / 2>([&](int k, int n) {
        const Complex<R> z = transform.at(piece.row, n);
        c[k] = z.re, c[k + kGroup / 2] = z.im;
      });
      store_points(result, t, c, t.span(u.id + piece.row, repeat, piece.first, piece.far, t.wide));
    }
  }

  __device__ bool resumes() const { return false; }
  __device__ bool completes() const { return true; }
  // A tap may draw on two points, so it waits until all are there.
  __device__ __forceinline__ void store_grad_filter(const RingTransform<R>& transform, const Unit& u) const {
    transform.inverse([&](const Group<R>& v, const Place& p) { transform.write(v, p); });
    __syncthreads();
    const R scale = R(1) / R(1 << t.log_n);
    const int log_width = t.log_n + (!parts && t.size.taps > 1 << t.log_n);
    for (int i = threadIdx.x; i < transform.ring.rows() << log_width; i += blockDim.x) {
      const int row = i >> log_width, n = i & ((1 << log_width) - 1);
      const std::uint32_t id = u.id + row;
      const auto at = [&](int n) -> Complex<R> {
        const Complex<R> z = transform.at(row, n);
        return {scale * z.re, scale * z.im};
      };
      if (id >= t.ids) continue;
      if (parts) {
        parts[((std::int64_t(u.chunk) * t.ids + id) << t.log_n) + n] = transform.at(row, n);
        continue;
      }
      if (t.grad_filter.data && n < t.size.taps) t.store_grad_tap(id, n, at);
      if (lag0 && n == 0) lag0[id] = at(0).re;
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
  template <class Finish>
  __device__ __forceinline__ void forward(const RingTransform<R>& transform, Source source, const Unit& u,
                                          std::uint32_t repeat, Finish finish) const {
    transform.forward(
        [&](Group<R>& v, const Place& p) {
          const Complex<R>* from = row(source, u.id, repeat) + p.group;
#pragma unroll
          for (int k = 0; k < kGroup; ++k) v[k] = from[k * transform.ring.step()];
        },
        finish);
  }
  // A result takes the place of what it was made from last.
  __device__ __forceinline__ void inverse(const RingTransform<R>& transform, Result result, const Unit& u,
                                          std::uint32_t repeat) const {
    const Source over = result == Result::grad_signal ? Source::gradient : Source::signal;
    inverse_to(transform, row(over, u.id, repeat));
  }
  __device__ bool resumes() const { return !p.first_portion; }
  __device__ bool completes() const { return p.last_portion; }
  __device__ __forceinline__ void store_grad_filter(const RingTransform<R>& transform, const Unit& u) const {
    inverse_to(transform, p.grad_filter + (std::int64_t(u.id) << p.log_n2));
  }
  __device__ __forceinline__ void inverse_to(const RingTransform<R>& transform, Complex<R>* to) const {
    transform.inverse([&](const Group<R>& v, const Place& p) {
#pragma unroll
      for (int k = 0; k < kGroup; ++k) to[p.group + k * transform.ring.step()] = v[k];
    });
  }
};

}  // namespace equiconv::cuda
