// ldmatrix and mma, with the layouts of the PTX ISA ("Matrix Fragments for mma.m16n8k4, k8, k16" and
// "ldmatrix"). Lane = 4 g + t; a word is the 4 bytes of a register.
//
// Sums are made in float64 and rounded once: no tensor core's own order and truncation, which are
// nowhere specified.
#include <cstring>

#include <cuda_on_cpu/intrinsics.h>

#include "internal.h"

namespace cuda_on_cpu {
namespace {

constexpr std::uint32_t kWarp = 0xffffffffu;

float half_value(std::uint32_t h) { return float(bits<_Float16>(std::uint16_t(h))); }

// The elements of a word.
struct Bf16 {
  static constexpr int kInWord = 2;
  static double value(std::uint32_t word, int i) { return bits<float>(word >> 16 * i << 16); }
};
struct F16 {
  static constexpr int kInWord = 2;
  static double value(std::uint32_t word, int i) { return half_value(word >> 16 * i & 0xffffu); }
};
struct Tf32 {
  static constexpr int kInWord = 1;
  static double value(std::uint32_t word, int) { return bits<float>(word & 0xffffe000u); }
};

// What a lane brings: `words` of each row of a (8 or 4), its registers of a and b, and its part of d.
struct Operands {
  int words;
  std::uint32_t a[4], b[2];
  float d[4];
};
static_assert(sizeof(Operands) <= kSlot);

template <class Element>
void multiply(std::uint32_t, const Slot* in, Slot* out) {
  const auto lane = [in](int l) -> const Operands& { return *reinterpret_cast<const Operands*>(in[l].b); };
  for (int l = 0; l < 32; ++l) {
    const int g = l >> 2, t = l & 3;
    double d[4];
    for (int i = 0; i < 4; ++i) {
      const int row = g + 8 * (i >> 1), column = 2 * t + (i & 1);
      double sum = 0;
      for (int word = 0; word < lane(0).words; ++word) {
        const std::uint32_t a = lane(4 * (row & 7) + (word & 3)).a[(row >> 3) + 2 * (word >> 2)];
        const std::uint32_t b = lane(4 * column + (word & 3)).b[word >> 2];
        for (int k = 0; k < Element::kInWord; ++k) sum += Element::value(a, k) * Element::value(b, k);
      }
      d[i] = sum + double(lane(l).d[i]);
    }
    std::memcpy(out[l].b, d, sizeof d);
  }
}

// The sums, not yet rounded.
template <int A, int B>
void run_mma(const char* type, double (&sums)[4], const float (&d)[4], const std::uint32_t (&a)[A],
             const std::uint32_t (&b)[B], Site site) {
  Operands operands{2 * A, {}, {}, {}};
  std::memcpy(operands.a, a, sizeof a), std::memcpy(operands.b, b, sizeof b);
  std::memcpy(operands.d, d, sizeof d);
  const Combine combine = !std::strcmp(type, "bf16")  ? multiply<Bf16>
                          : !std::strcmp(type, "f16") ? multiply<F16>
                                                      : multiply<Tf32>;
  if (combine == Combine(multiply<Tf32>) && std::strcmp(type, "tf32")) fail(site, "mma of %s", type);
  const Slot* out = warp_collective(Op::mma, kWarp, &operands, sizeof operands, combine, site);
  std::memcpy(sums, out[lane()].b, sizeof sums);
}

struct MatrixRow {
  const unsigned char* address;
  int count;
  bool transposed;
};
void load_matrices(std::uint32_t, const Slot* in, Slot* out) {
  const auto row = [in](int l) -> const MatrixRow& { return *reinterpret_cast<const MatrixRow*>(in[l].b); };
  for (int l = 0; l < 32; ++l) {
    const int g = l >> 2, t = l & 3;
    std::uint16_t r[8] = {};
    for (int i = 0; i < 2 * row(l).count; ++i) {
      const int first = row(l).transposed ? 2 * t + (i & 1) : g,
                second = row(l).transposed ? g : 2 * t + (i & 1);
      std::memcpy(&r[i], row(8 * (i >> 1) + first).address + 2 * second, 2);
    }
    std::memcpy(out[l].b, r, sizeof r);
  }
}

}  // namespace

void mma(const char* type, float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  double sums[4];
  run_mma(type, sums, d, a, b, {nullptr, 0, __builtin_return_address(0)});
  for (int i = 0; i < 4; ++i) d[i] = float(sums[i]);
}
void mma(const char* type, float (&d)[4], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1]) {
  double sums[4];
  run_mma(type, sums, d, a, b, {nullptr, 0, __builtin_return_address(0)});
  for (int i = 0; i < 4; ++i) d[i] = float(sums[i]);
}
void mma(const char* type, std::uint32_t (&d)[2], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  double sums[4];
  float wide[4];
  for (int i = 0; i < 4; ++i) wide[i] = half_value(d[i / 2] >> 16 * (i & 1) & 0xffffu);
  run_mma(type, sums, wide, a, b, {nullptr, 0, __builtin_return_address(0)});
  const auto half = [](double x) { return std::uint32_t(bits<std::uint16_t>(_Float16(x))); };
  for (int i = 0; i < 2; ++i) d[i] = half(sums[2 * i]) | half(sums[2 * i + 1]) << 16;
}

void ldmatrix(std::uint32_t* r, int count, const void* row, const char* modifier) {
  const void* const pc = __builtin_return_address(0);
  const Site site{nullptr, 0, pc};
  if (lane() < 8 * count) {
    if (!is_shared(row)) fail(site, "ldmatrix reads a row at %p, which is not in shared memory", row);
    if (reinterpret_cast<std::uintptr_t>(row) % 16)
      fail(site, "ldmatrix reads a row at %p, which is no multiple of 16", row);
    note(Access::read, row, 16, pc);
  }
  const MatrixRow mine{static_cast<const unsigned char*>(row), count, *modifier != 0};
  const Slot* out = warp_collective(Op::ldmatrix, kWarp, &mine, sizeof mine, load_matrices, site);
  std::memcpy(r, out[lane()].b, std::size_t(count) * 4);
}

std::uint32_t cvt_tf32(float x) {
  const std::uint32_t u = bits<std::uint32_t>(x);
  if ((u & 0x7f800000u) == 0x7f800000u) return u & 0x7fffffu ? 0x7fffffffu : u;
  return (u + 0x1000u) & ~0x1fffu;
}

}  // namespace cuda_on_cpu
