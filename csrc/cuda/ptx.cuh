// The instructions that CUDA C++ has no function for, under their PTX names: the only inline PTX. Beside each
// stands what a compiler for the host gets, the same instruction of tests/cuda_on_cpu.
//
// All 32 lanes of a warp execute ldmatrix and mma together. Below, lane = 4 g + t, and a word is the 4 bytes
// of a register: two neighbouring elements of 16 bits, the first in the lower half, or one of 32.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace equiconv::cuda::ptx {

#if defined(__CUDACC__)
__device__ __forceinline__ std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}
#endif

// ---- cp.async: from global to shared memory, past the registers ------------------------------------

// Copies Bytes (4, 8 or 16; both addresses a multiple of it), or where not valid reads nothing and writes
// zeros. This thread sees the result after cp_async_wait_group, others after a barrier that follows it.
template <int Bytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global, bool valid = true) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  const int read = valid ? Bytes : 0;
#if defined(__CUDACC__)
  if constexpr (Bytes == 16)  // .cg: through L2 only
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(read)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                 "n"(Bytes), "r"(read)
                 : "memory");
#else
  cuda_on_cpu::cp_async(shared, global, Bytes, read);
#endif
}

// Ends a group of copies: all that this thread issued since the last one.
__device__ __forceinline__ void cp_async_commit_group() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  cuda_on_cpu::cp_async_commit_group();
#endif
}

// Waits until no more than the newest `Pending` of this thread's groups are unfinished.
template <int Pending>
__device__ __forceinline__ void cp_async_wait_group() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#else
  cuda_on_cpu::cp_async_wait_group(Pending);
#endif
}

// ---- bar: barriers of some of a block's warps --------------------------------------------------------

// Waits until `threads` threads, whole warps, have come to this one of the barriers 1 ... 15.
__device__ __forceinline__ void bar_sync(int barrier, int threads) {
#if defined(__CUDACC__)
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
#else
  cuda_on_cpu::named_barrier(barrier, threads, true);
#endif
}

// Comes to it without waiting: what this thread has written is there for those who wait.
__device__ __forceinline__ void bar_arrive(int barrier, int threads) {
#if defined(__CUDACC__)
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
#else
  cuda_on_cpu::named_barrier(barrier, threads, false);
#endif
}

// ---- ldmatrix: 8 x 8 matrices of 16-bit elements from shared memory --------------------------------

struct as_stored {
  static constexpr char modifier[] = "";
};
struct trans {
  static constexpr char modifier[] = ".trans";
};

// Count matrices. Lane 8 i + j gives the address of row j of matrix i, 16 bytes and a multiple of 16; lanes
// from 8 Count on may give any valid one. r[i] is the word t of row g of matrix i, and with <trans> its
// elements (2t, g) and (2t + 1, g).
template <class Order = as_stored, int Count>
__device__ __forceinline__ void ldmatrix(std::uint32_t (&r)[Count], const void* row) {
  static_assert(Count == 1 || Count == 2 || Count == 4);
#if defined(__CUDACC__)
  if constexpr (Count == 1)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1%2.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(shared_address(row)), "C"(Order::modifier)
                 : "memory");
  else if constexpr (Count == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2%3.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row)), "C"(Order::modifier)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4%5.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)), "C"(Order::modifier)
                 : "memory");
#else
  cuda_on_cpu::ldmatrix(r, Count, row, Order::modifier);
#endif
}

// ---- mma: d += a b on the tensor cores -------------------------------------------------------------

// A float32 of which the product reads sign, exponent and the upper 10 bits of the fraction.
struct tf32 {};

// x rounded to tf32, ties away from zero. Unrounded, the product would drop the lower bits.
__device__ __forceinline__ std::uint32_t cvt_tf32(float x) {
#if defined(__CUDACC__)
  std::uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
#else
  return cuda_on_cpu::cvt_tf32(x);
#endif
}

// PTX's names of an element's type and of the products whose rows of a have 32 and 16 bytes.
template <class T>
struct Operand;
template <>
struct Operand<__nv_bfloat16> {
  static constexpr char type[] = "bf16", k32[] = "k16", k16[] = "k8";
};
template <>
struct Operand<__half> {
  static constexpr char type[] = "f16", k32[] = "k16", k16[] = "k8";
};
template <>
struct Operand<tf32> {
  static constexpr char type[] = "tf32", k32[] = "k8", k16[] = "k4";
};

// d: 16 x 8, d[2 i + j] is row g + 8 i, column 2t + j.
// a: 16 rows of 32 bytes (16 elements; 8 of tf32), a[i + 2 j] is the word t + 4 j of row g + 8 i.
// b: 8 columns of 32 bytes, b[j] is the word t + 4 j of column g.
template <class T>
__device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8%10.row.col.f32.%11.%11.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "C"(Operand<T>::k32),
        "C"(Operand<T>::type));
#else
  cuda_on_cpu::mma(Operand<T>::type, d, a, b);
#endif
}

// The same with rows and columns of 16 bytes: words t only.
template <class T>
__device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1]) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8%7.row.col.f32.%8.%8.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]), "C"(Operand<T>::k16), "C"(Operand<T>::type));
#else
  cuda_on_cpu::mma(Operand<T>::type, d, a, b);
#endif
}

// Sums in f16, two to a register: d[i] is row g + 8 i, columns 2t and 2t + 1. T is __half.
template <class T>
__device__ __forceinline__ void mma(std::uint32_t (&d)[2], const std::uint32_t (&a)[4],
                                    const std::uint32_t (&b)[2]) {
  static_assert(Operand<T>::type[0] == 'f', "only f16 is summed in f16");
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
      : "+r"(d[0]), "+r"(d[1])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  cuda_on_cpu::mma(Operand<T>::type, d, a, b);
#endif
}

}  // namespace equiconv::cuda::ptx
