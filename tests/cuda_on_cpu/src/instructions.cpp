// Instructions with semantics of their own: asynchronous copies, and the tensor cores' products.
#include <cuda_runtime_api.h>

#include <cstring>

#include "internal.h"

namespace cuda_on_cpu {

// ---- cp.async -------------------------------------------------------------------------------
void async_copy(void* dst, const void* src, std::size_t n, std::size_t zfill, Site s) {
  if (n != 4 && n != 8 && n != 16) fail(s, "cp.async of %zu bytes", n);
  if (reinterpret_cast<std::uintptr_t>(dst) % n || (zfill < n && reinterpret_cast<std::uintptr_t>(src) % n))
    fail(s, "cp.async of %zu bytes is misaligned (dst %p, src %p)", n, dst, src);
  Fiber& f = *current;
  f.copies.push_back({static_cast<unsigned char*>(dst), static_cast<const unsigned char*>(src),
                      std::uint32_t(n), std::uint32_t(zfill), __builtin_return_address(0)});
  ++f.open_group;
  if (hooks.async_issue) hooks.async_issue(f.copies.back(), __builtin_return_address(0));
  volatile unsigned char touch = static_cast<unsigned char*>(dst)[n - 1];  // let ASan see dst now
  if (zfill < n) touch = static_cast<const unsigned char*>(src)[n - zfill - 1];
  (void)touch;
  std::memset(dst, 0xff, n);
}
void async_commit() {
  Fiber& f = *current;
  f.groups.push_back(f.open_group);
  f.open_group = 0;
}
void async_wait(std::size_t newest_allowed, Site s) {
  (void)s;
  Fiber& f = *current;
  std::size_t done = 0;
  while (f.groups.size() > newest_allowed) {
    for (std::uint32_t i = 0; i < f.groups.front(); ++i) {
      const Copy& c = f.copies[done++];
      const std::size_t real = c.zfill < c.n ? c.n - c.zfill : 0;
      if (real) std::memcpy(c.dst, c.src, real);
      std::memset(c.dst + real, 0, c.n - real);
      if (hooks.async_done) hooks.async_done(c);
    }
    f.groups.erase(f.groups.begin());
  }
  f.copies.erase(f.copies.begin(), f.copies.begin() + std::ptrdiff_t(done));
}

// ---- tensor cores: layouts of the PTX ISA, sections "Matrix Fragments for mma.m16n8k16/k8" ----
namespace {
float from_bf16(std::uint32_t h) {
  h <<= 16;
  float f;
  std::memcpy(&f, &h, 4);
  return f;
}
float from_fp16(std::uint32_t h) {
  _Float16 x;
  const std::uint16_t u = std::uint16_t(h);
  std::memcpy(&x, &u, 2);
  return float(x);
}
float from_tf32(std::uint32_t u) {
  u &= 0xffffe000u;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

struct MmaIn {
  std::uint32_t a[4], b[2];
  float c[4];
};
struct MmaOut {
  float d[4];
};
static_assert(sizeof(MmaIn) <= kSlot);

template <int K, class Decode>
void mma_combine(const Slot* in, Slot* out, Decode decode) {
  float A[16][K], B[K][8];
  const MmaIn* lanes[32];
  for (int l = 0; l < 32; ++l) {
    lanes[l] = reinterpret_cast<const MmaIn*>(in[l].b);
    decode(l, *lanes[l], A, B);
  }
  for (int l = 0; l < 32; ++l) {
    const int g = l >> 2, t = l & 3;
    MmaOut o;
    for (int i = 0; i < 4; ++i) {
      const int row = g + (i >> 1) * 8, col = 2 * t + (i & 1);
      double s = 0;
      for (int k = 0; k < K; ++k) s += double(A[row][k]) * double(B[k][col]);
      o.d[i] = float(s + double(lanes[l]->c[i]));
    }
    std::memcpy(out[l].b, &o, sizeof o);
  }
}
template <class F>
void mma16(const Slot* in, Slot* out, F value) {
  mma_combine<16>(in, out, [value](int l, const MmaIn& x, float (&A)[16][16], float (&B)[16][8]) {
    const int g = l >> 2, t = l & 3;
    for (int i = 0; i < 8; ++i)
      A[g + (i >> 1 & 1) * 8][2 * t + (i & 1) + (i >> 2) * 8] = value(x.a[i >> 1] >> (i & 1) * 16 & 0xffffu);
    for (int i = 0; i < 4; ++i)
      B[2 * t + (i & 1) + (i >> 1) * 8][g] = value(x.b[i >> 1] >> (i & 1) * 16 & 0xffffu);
  });
}
void run_mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
             Combine f, Site s) {
  MmaIn in;
  std::memcpy(in.a, a, sizeof a), std::memcpy(in.b, b, sizeof b), std::memcpy(in.c, c, sizeof c);
  const Slot* out = warp_collective(Op::mma, 0xffffffffu, &in, sizeof in, f, s);
  std::memcpy(d, out[lane()].b, sizeof d);
}
}  // namespace

void mma_m16n8k16(bool bf16, float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                  const float (&c)[4], Site s) {
  run_mma(d, a, b, c,
          bf16 ? Combine([](std::uint32_t, const Slot* i, Slot* o) { mma16(i, o, from_bf16); })
               : Combine([](std::uint32_t, const Slot* i, Slot* o) { mma16(i, o, from_fp16); }),
          s);
}
void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                      const float (&c)[4], Site s) {
  run_mma(
      d, a, b, c,
      [](std::uint32_t, const Slot* in, Slot* out) {
        mma_combine<8>(in, out, [](int l, const MmaIn& x, float (&A)[16][8], float (&B)[8][8]) {
          const int g = l >> 2, t = l & 3;
          for (int i = 0; i < 4; ++i) A[g + (i & 1) * 8][t + (i >> 1) * 4] = from_tf32(x.a[i]);
          for (int i = 0; i < 2; ++i) B[t + i * 4][g] = from_tf32(x.b[i]);
        });
      },
      s);
}
void ldmatrix(std::uint32_t* r, int count, bool transpose, const void* row, Site s) {
  struct In {
    const unsigned char* row;
    int count;
    bool transpose;
  } in{static_cast<const unsigned char*>(row), count, transpose};
  if (lane() < count * 8) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16)
      fail(s, "ldmatrix row address %p is not 16-byte aligned", row);
    note(Access::read, row, 16, __builtin_return_address(0));
  }
  const Slot* out = warp_collective(
      Op::ldmatrix, 0xffffffffu, &in, sizeof in,
      [](std::uint32_t, const Slot* src, Slot* dst) {
        for (int l = 0; l < 32; ++l) {
          std::uint32_t regs[4] = {};
          const auto* me = reinterpret_cast<const In*>(src[l].b);
          for (int i = 0; i < me->count; ++i)
            for (int e = 0; e < 2; ++e) {
              const int rr = me->transpose ? 2 * (l & 3) + e : l >> 2,
                        cc = me->transpose ? l >> 2 : 2 * (l & 3) + e;
              std::uint16_t v;
              std::memcpy(&v, reinterpret_cast<const In*>(src[i * 8 + rr].b)->row + 2 * cc, 2);
              regs[i] |= std::uint32_t(v) << e * 16;
            }
          std::memcpy(dst[l].b, regs, sizeof regs);
        }
      },
      s);
  std::memcpy(r, out[lane()].b, std::size_t(count) * 4);
}

}  // namespace cuda_on_cpu
