// A real row of L = 2 N numbers and its spectrum X[0 ... N], in shared memory, by the complex transform of N
// points of ring_transform.cuh.
//
// Two neighbours of the row are one point, z[n] = x[2 n] + i x[2 n + 1]. Of the transform Z, sorted by
// frequency, two points give two frequencies of X, and the other way round, with w = exp(-pi i f / N):
//
//   even = (Z[f] + conj(Z[N - f])) / 2        X[f]     = even + w odd
//   odd = -i (Z[f] - conj(Z[N - f])) / 2      X[N - f] = conj(even - w odd)
//
// So all that is done to single frequencies is done to two of them by one thread, on the way from Z to Z.
//
// A thread has one group of 16 points (ring_transform.cuh), or none: then a transform is sorted where it
// lies, all threads holding their points in registers between two barriers. Frequency f is at slot f + f/16,
// as points are: points of neighbouring groups are frequencies N/256 apart, which meet no bank twice; 16
// neighbours from anywhere but a multiple of 16 meet one twice, so they take two wavefronts.
#pragma once
#include "fft_conv_tensors.cuh"

namespace equiconv::cuda {

// Neighbours of a row, as they are stored.
template <class T>
struct alignas(2 * sizeof(T)) Neighbours {
  T first, second;
};

// A row of a tensor, whose numbers are `position` apart. wide: two neighbours at a time. count: how many
// numbers there are, the others are 0.
template <class Void>
struct Row {
  Void* data;
  std::int64_t position;
  int count;
  DType dtype;
  bool wide;
};

__device__ __forceinline__ std::int64_t bytes_of(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

// Numbers 2 n and 2 n + 1 for the points n = first, first + step, ... of a group, times those of v.
template <class R>
__device__ __forceinline__ void multiply_by_row(Group<R>& v, const Row<const void>& row, int first,
                                                int step) {
  with_stored_type<R>(row.dtype, [&](auto type) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    const T* p = static_cast<const T*>(row.data) + 2 * first * row.position;
    const std::int64_t stride = 2 * step * row.position;
    int at = 2 * first;
    Neighbours<T> stored[kGroup] = {};
    if (row.wide) {
#pragma unroll
      for (int k = 0; k < kGroup; ++k, p += stride, at += 2 * step)
        if (at < row.count) stored[k] = *reinterpret_cast<const Neighbours<T>*>(p);
    } else {
#pragma unroll
      for (int k = 0; k < kGroup; ++k, p += stride, at += 2 * step) {
        if (at < row.count) stored[k].first = p[0];
        if (at + 1 < row.count) stored[k].second = p[row.position];
      }
    }
#pragma unroll
    for (int k = 0; k < kGroup; ++k) v[k] = {v[k].re * R(stored[k].first), v[k].im * R(stored[k].second)};
  });
}
template <class R>
__device__ __forceinline__ void store_row(const Group<R>& v, const Row<void>& row, int first, int step) {
  with_stored_type<R>(row.dtype, [&](auto type) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    T* p = static_cast<T*>(row.data) + 2 * first * row.position;
    const std::int64_t stride = 2 * step * row.position;
    if (row.wide) {
#pragma unroll
      for (int k = 0; k < kGroup; ++k, p += stride)
        *reinterpret_cast<Neighbours<T>*>(p) = {T(v[k].re), T(v[k].im)};
      return;
    }
#pragma unroll
    for (int k = 0; k < kGroup; ++k, p += stride) p[0] = T(v[k].re), p[row.position] = T(v[k].im);
  });
}

// Frequencies f and N - f.
template <class R>
struct Two {
  Complex<R> near, far;
};

// Spectra of real rows: `count` buffers of N + 1 frequencies in the block's shared memory, the first of which
// has place for N points only.
template <class R>
struct HalfSpectra {
  RingTransform<R> transform;
  int n;

  __device__ explicit HalfSpectra(const Ring& ring) : transform(ring, dynamic_shared()), n(ring.n()) {}

  __host__ __device__ static int pitch(const Ring& ring) { return padded(ring.n()) + 1; }
  __host__ __device__ static std::int64_t shared_bytes(const Ring& ring, int count) {
    return ring.shared_bytes<R>() + (count - 1) * pitch(ring) * std::int64_t(sizeof(Complex<R>));
  }
  __device__ Complex<R>* buffer(int i) const {
    if (i == 0) return transform.work;
    return transform.sixteenth + transform.ring.factors() + (i - 1) * pitch(transform.ring);
  }

  // f(frequency, w) for the frequencies up to N/2, in the threads that see to them and to their mirror
  // images.
  template <class F>
  __device__ __forceinline__ void for_each_two(F f) const {
    for (int i = threadIdx.x; i <= n / 2; i += blockDim.x) f(i, on_circle(-R(i) / R(n)));
  }
  __device__ __forceinline__ Two<R> get(const Complex<R>* z, int f, Complex<R> w) const {
    const Complex<R> a = z[padded(f)], b = conj(z[mirrored(f)]), sum = a + b, difference = a - b;
    const Complex<R> even = {sum.re / 2, sum.im / 2};
    const Complex<R> odd = w * Complex<R>{difference.im / 2, -difference.re / 2};
    return {even + odd, conj(even - odd)};
  }
  // Twice as much, which `scale` accounts for. Of frequencies 0 and N the real parts count.
  __device__ __forceinline__ void put(Complex<R>* z, int f, Complex<R> w, Two<R> x, R scale) const {
    if (f == 0) x.near.im = x.far.im = R(0);
    const Complex<R> even = x.near + conj(x.far), odd = times_i(conj(w) * (x.near - conj(x.far)));
    z[padded(f)] = {scale * (even.re + odd.re), scale * (even.im + odd.im)};
    z[mirrored(f)] = {scale * (even.re - odd.re), scale * (odd.im - even.im)};
  }
  __device__ __forceinline__ Two<R> kept(const Complex<R>* x, int f) const {
    return {x[padded(f)], x[padded(n - f)]};
  }
  __device__ __forceinline__ void keep(Complex<R>* x, int f, const Two<R>& two) const {
    x[padded(f)] = two.near, x[padded(n - f)] = two.far;
  }

  // z <- the transform of the points that load(v, first, step) brings, sorted. All threads are done with what
  // was in z, and have all of it after.
  template <class Load>
  __device__ __forceinline__ void forward(Complex<R>* z, Load load) const {
    Group<R> v{};
    at(z).forward([&](Group<R>& points, const Place& p) { load(points, p.group, transform.ring.step()); },
                  [&](const Group<R>& points, const Place&) {
#pragma unroll
                    for (int k = 0; k < kGroup; ++k) v[k] = points[k];
                  });
    __syncthreads();  // the last pass has read all of z
    if (has_group()) for_each_point([&](int k, int slot) { z[slot] = v[k]; });
    __syncthreads();
  }
  // N times the way back; store(v, first, step) takes the points.
  template <class Store>
  __device__ __forceinline__ void inverse(Complex<R>* z, Store store) const {
    const RingTransform<R> from = at(z);
    Group<R> v{};
    __syncthreads();  // all of z is there
    if (has_group()) for_each_point([&](int k, int slot) { v[k] = z[slot]; });
    __syncthreads();
    if (has_group()) from.begin_inverse(v, from.find_last(threadIdx.x));
    from.inverse([&](Group<R>& points, const Place& p) { store(points, p.group, transform.ring.step()); });
  }

 private:
  // Of a point; that of 0 is itself, and so is that of N / 2: both halves of a pair then hold the same.
  __device__ int mirrored(int f) const { return padded((n - f) & (n - 1)); }
  __device__ RingTransform<R> at(Complex<R>* z) const {
    RingTransform<R> moved = transform;
    moved.work = z;
    return moved;
  }
  __device__ bool has_group() const { return int(threadIdx.x) < transform.ring.groups(); }
  // f(k, the slot of the frequency of the group's point k): the ring's roots turn the other way.
  template <class F>
  __device__ __forceinline__ void for_each_point(F f) const {
    const int first = int(__brev(threadIdx.x * kGroup) >> (32 - transform.ring.log_n));
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      const int reversed = int(__brev(unsigned(k)) >> 28);  // of the four bits
      f(k, padded((n - first - reversed * (n / kGroup)) & (n - 1)));
    }
  }
};

}  // namespace equiconv::cuda
