// The transform of the ring C[x]/(x^N - exp(2 pi i turns)), N = 32 ... 16384, by one block, in shared
// memory (docs/mathematics.md, "The transform"). A block may hold several such transforms side by side.
//
// A *group* is the 16 points of one transform that one thread takes into registers at a time, `step`
// apart. A pass takes every group through four levels of splitting and puts it back where it was:
//
//   pass       0                     1                  ...   last
//   levels     1 to 4                4                        4
//   step       N/16                  N/2^levels/16            1
//   blocks     1                     2^levels                 N/16
//
// so a transform is ceil(log2 N / 4) passes with a barrier between two, and nothing is ever reordered.
// Pass 0 takes its points from wherever `load` finds them; the last pass hands them to `finish`, while
// they are in registers. The inverse walks the passes backwards and hands its points to `store`.
//
// Factors are constant over a block of the splitting. With the block's root angle theta the four levels
// need exp(i theta / 2), / 4, / 8 and / 16, times eighth roots that are constants: the table in shared
// memory holds two of them, a squaring each gives the others.
//
// Point i of a transform lies at slot i + i/16: then the 16 lanes that make up one wavefront of 8-byte
// words (8 lanes, of 16-byte words) meet no bank twice, for every step.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "launch.cuh"

namespace equiconv::cuda {

template <class R>
struct alignas(2 * sizeof(R)) Complex {
  R re, im;
};
template <class R>
__device__ __forceinline__ Complex<R> operator+(Complex<R> a, Complex<R> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class R>
__device__ __forceinline__ Complex<R> operator-(Complex<R> a, Complex<R> b) {
  return {a.re - b.re, a.im - b.im};
}
template <class R>
__device__ __forceinline__ Complex<R> operator*(Complex<R> a, Complex<R> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <class R>
__device__ __forceinline__ Complex<R> conj(Complex<R> a) {
  return {a.re, -a.im};
}
template <class R>
__device__ __forceinline__ Complex<R> times_i(Complex<R> a) {
  return {-a.im, a.re};
}

// exp(pi i half_turns)
__device__ __forceinline__ Complex<float> on_circle(float half_turns) {
  Complex<float> z;
  sincospif(half_turns, &z.im, &z.re);
  return z;
}
__device__ __forceinline__ Complex<double> on_circle(double half_turns) {
  Complex<double> z;
  sincospi(half_turns, &z.im, &z.re);
  return z;
}

constexpr int kGroup = 16;  // points of a group
template <class R>
using Group = Complex<R>[kGroup];

// ---- four levels of splitting, in registers ----------------------------------------------------

template <class R>
struct Factors {  // exp(i theta / 2), / 4, / 8, / 16
  Complex<R> half, quarter, eighth, sixteenth;
};

// The two children of points `half` apart: a + r b and a - r b, six fused multiply-adds.
template <int Half, class R>
__device__ __forceinline__ void split_pairs(Complex<R>* v, Complex<R> r) {
#pragma unroll
  for (int j = 0; j < Half; ++j) {
    const Complex<R> a = v[j], b = v[j + Half];
    v[j] = {a.re + r.re * b.re - r.im * b.im, a.im + r.re * b.im + r.im * b.re};
    v[j + Half] = {R(2) * a.re - v[j].re, R(2) * a.im - v[j].im};
  }
}
// The adjoint: a + b and conj(r)(a - b).
template <int Half, class R>
__device__ __forceinline__ void merge_pairs(Complex<R>* v, Complex<R> r) {
#pragma unroll
  for (int j = 0; j < Half; ++j) {
    const Complex<R> a = v[j], b = v[j + Half];
    v[j] = a + b;
    v[j + Half] = conj(r) * (a - b);
  }
}

// exp(pi i / 4) and exp(pi i / 8) times z.
template <class R>
__device__ __forceinline__ Complex<R> times_eighth(Complex<R> z) {
  constexpr R h = R(0.70710678118654752440);
  return {h * (z.re - z.im), h * (z.re + z.im)};
}
template <class R>
__device__ __forceinline__ Complex<R> times_sixteenth(Complex<R> z) {
  return Complex<R>{R(0.92387953251128675613), R(0.38268343236508977173)} * z;
}

// Sibling blocks' factors differ by half, quarter and eighth turns; `pairs` runs over all of one level.
template <class R, class Pairs>
__device__ __forceinline__ void third_level(Complex<R>* v, const Factors<R>& f, Pairs pairs) {
  const Complex<R> e = times_eighth(f.eighth);
  pairs(v, f.eighth), pairs(v + 4, times_i(f.eighth)), pairs(v + 8, e), pairs(v + 12, times_i(e));
}
template <class R, class Pairs>
__device__ __forceinline__ void fourth_level(Complex<R>* v, const Factors<R>& f, Pairs pairs) {
  const Complex<R> a = f.sixteenth, b = times_eighth(a), c = times_sixteenth(a), d = times_eighth(c);
  pairs(v, a), pairs(v + 2, times_i(a)), pairs(v + 4, b), pairs(v + 6, times_i(b));
  pairs(v + 8, c), pairs(v + 10, times_i(c)), pairs(v + 12, d), pairs(v + 14, times_i(d));
}

template <class R>
__device__ __forceinline__ void split(Group<R>& v, const Factors<R>& f, int levels) {
  split_pairs<8>(v, f.half);
  if (levels == 1) return;
  split_pairs<4>(v, f.quarter), split_pairs<4>(v + 8, times_i(f.quarter));
  if (levels == 2) return;
  third_level(v, f, [](Complex<R>* p, Complex<R> r) { split_pairs<2>(p, r); });
  if (levels == 3) return;
  fourth_level(v, f, [](Complex<R>* p, Complex<R> r) { split_pairs<1>(p, r); });
}
template <class R>
__device__ __forceinline__ void merge(Group<R>& v, const Factors<R>& f, int levels) {
  if (levels > 3) fourth_level(v, f, [](Complex<R>* p, Complex<R> r) { merge_pairs<1>(p, r); });
  if (levels > 2) third_level(v, f, [](Complex<R>* p, Complex<R> r) { merge_pairs<2>(p, r); });
  if (levels > 1) merge_pairs<4>(v, f.quarter), merge_pairs<4>(v + 8, times_i(f.quarter));
  merge_pairs<8>(v, f.half);
}

// ---- one block's transforms --------------------------------------------------------------------

__host__ __device__ constexpr int padded(int i) { return i + (i >> 4); }

// The shape of a block's transforms, known to host and device.
struct Ring {
  int log_n = 5;              // points of a transform, at least 32
  int log_rows = 0;           // transforms of a block
  bool rows_fastest = false;  // neighbouring threads take neighbouring transforms, else neighbouring points

  __host__ __device__ int n() const { return 1 << log_n; }
  __host__ __device__ int rows() const { return 1 << log_rows; }
  __host__ __device__ int groups() const { return 1 << (log_n + log_rows - 4); }
  __host__ __device__ int step() const { return n() / kGroup; }  // of pass 0
  __host__ __device__ int passes() const { return (log_n + 3) / 4; }
  __host__ __device__ int levels(int pass) const { return pass ? 4 : (log_n - 1) % 4 + 1; }
  __host__ __device__ int factors() const {
    int count = 1;
    for (int depth = levels(0); depth < log_n; depth += 4) count += 1 << depth;
    return count;
  }
  // From one transform to the next. Lanes that run over transforms first must meet no bank twice either.
  template <class R>
  __host__ __device__ int row_stride() const {
    if (!rows_fastest) return padded(n());
    const int lanes = 128 / int(sizeof(Complex<R>));
    return (padded(n()) + 15) / 16 * 16 + (rows() < lanes ? lanes / rows() : 1);
  }
  template <class R>
  __host__ __device__ std::int64_t shared_bytes() const {
    return std::int64_t(sizeof(Complex<R>)) * (row_stride<R>() * rows() + 2 * factors());
  }
};

// Where a group is.
struct Place {
  int index;     // among the block's groups; the same thread has it in every pass
  int row;       // which of the block's transforms
  int group;     // among the transform's groups
  int block;     // the block of the splitting it belongs to
  int slot;      // of its first point
  int log_step;  // its points are 2^log_step apart
};

template <class R>
struct RingTransform {
  Ring ring;
  Complex<R>* work;
  Complex<R>* quarter;    // exp(i theta / 4) of every block of every pass
  Complex<R>* sixteenth;  // exp(i theta / 16)

  __device__ RingTransform(const Ring& ring, void* shared)
      : ring(ring),
        work(static_cast<Complex<R>*>(shared)),
        quarter(work + ring.row_stride<R>() * ring.rows()),
        sixteenth(quarter + ring.factors()) {}

  // The root of block b at depth d is (bit_reversed(b) + turns) / 2^d turns.
  __device__ void fill_factors(R turns) const {
    __syncthreads();  // the last transform's readers are done
    for (int pass = 0, depth = 0, first = 0; pass < ring.passes(); ++pass) {
      for (int b = threadIdx.x; b < 1 << depth; b += blockDim.x) {
        const R reversed = R(__brev(unsigned(b)) >> 1 >> (31 - depth));
        const R root = (reversed + turns) / R(1 << depth);
        quarter[first + b] = on_circle(root / 2);
        sixteenth[first + b] = on_circle(root / 8);
      }
      first += 1 << depth, depth += ring.levels(pass);
    }
  }

  template <class Load, class Finish>
  __device__ __forceinline__ void forward(Load load, Finish finish) const {
    int depth = 0, first = 0;
    for (int pass = 0; pass < ring.passes() - 1; ++pass) {
      __syncthreads();  // pass 0: readers of `work` are done; else: the points are in `work`
      for (int index = threadIdx.x; index < ring.groups(); index += blockDim.x) {
        const Place place = find(index, depth);
        Group<R> v;
        if (pass == 0) load(v, place);
        else read(v, place);
        split(v, factors(first + place.block), ring.levels(pass));
        write(v, place);
      }
      first += 1 << depth, depth += ring.levels(pass);
    }
    __syncthreads();
    for (int index = threadIdx.x; index < ring.groups(); index += blockDim.x) {
      const Place place = find_last(index);
      Group<R> v;
      read(v, place);
      split(v, factors(first + place.block), 4);
      finish(v, place);
    }
  }

  // The last pass's levels backwards, from registers to `work`: how an inverse begins.
  __device__ __forceinline__ void begin_inverse(Group<R>& v, const Place& place) const {
    merge(v, factors(ring.factors() - (ring.n() >> 4) + place.block), 4);
    write(v, place);
  }
  // The same for spectra that `load` brings.
  template <class Load>
  __device__ __forceinline__ void begin_inverse(Load load) const {
    __syncthreads();  // readers of `work` are done
    for (int index = threadIdx.x; index < ring.groups(); index += blockDim.x) {
      const Place place = find_last(index);
      Group<R> v;
      load(v, place);
      begin_inverse(v, place);
    }
  }
  // N times the inverse of what was begun. `store` may write a group back into `work`.
  template <class Store>
  __device__ __forceinline__ void inverse(Store store) const {
    int depth = ring.log_n - 4, first = ring.factors() - (1 << depth);
    for (int pass = ring.passes() - 2; pass >= 0; --pass) {
      depth -= ring.levels(pass), first -= 1 << depth;
      __syncthreads();  // the points are in `work`
      for (int index = threadIdx.x; index < ring.groups(); index += blockDim.x) {
        const Place place = find(index, depth);
        Group<R> v;
        read(v, place);
        merge(v, factors(first + place.block), ring.levels(pass));
        if (pass == 0) store(v, place);
        else write(v, place);
      }
    }
  }

  __device__ __forceinline__ Place find(int index, int depth) const {
    Place p;
    p.index = index;
    p.row = ring.rows_fastest ? index & (ring.rows() - 1) : index >> (ring.log_n - 4);
    p.group = ring.rows_fastest ? index >> ring.log_rows : index & (ring.step() - 1);
    p.log_step = ring.log_n - 4 - depth;
    p.block = p.group >> p.log_step;
    const int point = (p.block << (p.log_step + 4)) + (p.group & ((1 << p.log_step) - 1));
    p.slot = p.row * ring.row_stride<R>() + padded(point);
    return p;
  }
  // In the last pass, where points are neighbours: the compiler then knows all their slots but one.
  __device__ __forceinline__ Place find_last(int index) const {
    Place p = find(index, ring.log_n - 4);
    p.log_step = 0;
    return p;
  }
  __device__ __forceinline__ Factors<R> factors(int i) const {
    const Complex<R> q = quarter[i], s = sixteenth[i];
    return {q * q, q, s * s, s};
  }
  __device__ __forceinline__ void read(Group<R>& v, const Place& p) const {
#pragma unroll
    for (int k = 0; k < kGroup; ++k) v[k] = work[p.slot + padded(k << p.log_step)];
  }
  __device__ __forceinline__ void write(const Group<R>& v, const Place& p) const {
#pragma unroll
    for (int k = 0; k < kGroup; ++k) work[p.slot + padded(k << p.log_step)] = v[k];
  }
  // Of real rows a slot holds two points, n and n + N/2: those of one thread in pass 0.
  __device__ __forceinline__ void read_real(Group<R>& v, const Place& p) const {
#pragma unroll
    for (int k = 0; k < kGroup / 2; ++k) {
      const Complex<R> z = work[p.slot + padded(k << p.log_step)];
      v[k] = {z.re, R(0)}, v[k + kGroup / 2] = {z.im, R(0)};
    }
  }
  __device__ __forceinline__ void write_real(const Group<R>& v, const Place& p) const {
#pragma unroll
    for (int k = 0; k < kGroup / 2; ++k)
      work[p.slot + padded(k << p.log_step)] = {v[k].re, v[k + kGroup / 2].re};
  }
  // Point n of a row, after an inverse whose `store` wrote back.
  __device__ __forceinline__ Complex<R>& at(int row, int n) const {
    return work[row * ring.row_stride<R>() + padded(n)];
  }
};

}  // namespace equiconv::cuda
