// Vectors of the capability this file is compiled for, by GCC's vector extensions. Everything is in an
// anonymous namespace: the same names mean other widths in another capability's object file.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#define EQUICONV_INLINE __attribute__((always_inline)) inline

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// AVX-512 came with twice the registers. With 16 of them a butterfly of few operands, or one that spills
// less, wins.
constexpr bool kManyRegisters = kVectorBytes == 64;

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<std::uint32_t> {
  typedef std::uint32_t type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VectorOf<T>::type;

struct bfloat16 {
  std::uint16_t bits;
};
struct float16 {
  std::uint16_t bits;
};

// Storage type to arithmetic type.
template <class S>
struct Arithmetic {
  using type = float;
};
template <>
struct Arithmetic<double> {
  using type = double;
};

template <class To, class From>
inline To bit_copy(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "bit_copy keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// ---- scalar conversions: exact in, rounded to nearest even out, NaN stays NaN --------------------
inline float widen(float a) { return a; }
inline double widen(double a) { return a; }
inline float widen(bfloat16 a) { return bit_copy<float>(std::uint32_t(a.bits) << 16); }
inline float widen(float16 a) {
  const std::uint32_t w = std::uint32_t(a.bits) << 16, sign = w & 0x80000000u, magnitude = w & 0x7fffffffu;
  // Normal numbers: move the exponent; subnormals: let a float subtraction normalise them.
  const float normal =
      bit_copy<float>((magnitude >> 3) + (magnitude >= 0x7c000000u ? 0x70000000u : 0x38000000u));
  const float subnormal = bit_copy<float>((magnitude >> 16) | 0x3f000000u) - 0.5f;
  // bits m of a subnormal half mean m * 2^-24; 0.5 + m * 2^-24 is exact in float
  const float value = magnitude < 0x04000000u ? subnormal : normal;
  return bit_copy<float>(bit_copy<std::uint32_t>(value) | sign);
}
inline void narrow(float* to, float a) { *to = a; }
inline void narrow(double* to, double a) { *to = a; }
inline void narrow(bfloat16* to, float a) {
  const std::uint32_t u = bit_copy<std::uint32_t>(a);
  to->bits = std::uint16_t(a != a ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
inline void narrow(float16* to, float a) {
  const std::uint32_t u = bit_copy<std::uint32_t>(a), sign = (u >> 16) & 0x8000u, m = u & 0x7fffffffu;
  std::uint32_t h;
  if (m > 0x7f800000u) h = 0x7e00u;        // NaN
  else if (m >= 0x477ff000u) h = 0x7c00u;  // rounds past the largest half
  else if (m < 0x38800000u)                // subnormal: round by adding 0.5
    h = bit_copy<std::uint32_t>(bit_copy<float>(m) + 0.5f) - 0x3f000000u;
  else h = (m + 0xfffu + ((m >> 13) & 1u) - 0x38000000u) >> 13;
  to->bits = std::uint16_t(sign | h);
}

// ---- vector loads and stores: kLanes<arithmetic type> elements -----------------------------------
template <class T>
inline Vec<T> splat(T a) {
  return a - Vec<T>{};
}
inline Vec<float> load(const float* p) {
  Vec<float> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec<double> load(const double* p) {
  Vec<double> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec<std::uint32_t> load(const std::uint32_t* p) {
  Vec<std::uint32_t> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec<float> v) { std::memcpy(p, &v, sizeof v); }
inline void store(double* p, Vec<double> v) { std::memcpy(p, &v, sizeof v); }

// Stores past the caches, where the address is aligned: for rows that would only push others out of them.
// Ordered with what follows by fence().
template <class S, class T>
inline void stream(S* p, Vec<T> v) {
#if defined(__AVX512F__) || defined(__AVX2__)
  if constexpr (std::is_same_v<S, T>) {
    if (reinterpret_cast<std::uintptr_t>(p) % kVectorBytes == 0) {
#if defined(__AVX512F__)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#else
      _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#endif
      return;
    }
  }
#endif
  store(p, v);
}
inline void fence() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

typedef std::uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));
using WordBits = Vec<std::uint32_t>;

// The nearest bfloat16, in the lower half of each lane.
inline WordBits nearest_bfloat16(Vec<float> v) {
  const WordBits u = (WordBits)v, high = u >> 16;
  return v != v ? high | 0x40u : (u + 0x7fffu + (high & 1u)) >> 16;
}
// By intrinsics: GCC 12 would convert the halves of a vector one by one, and join them.
#if defined(__AVX512F__)
inline Vec<float> load(const bfloat16* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return (Vec<float>)((WordBits)_mm512_maskz_cvtepu16_epi32(0xffff, half) << 16);
}
inline void store(bfloat16* p, Vec<float> v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)nearest_bfloat16(v)));
}
#elif defined(__AVX2__)
inline Vec<float> load(const bfloat16* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (Vec<float>)((WordBits)_mm256_cvtepu16_epi32(half) << 16);
}
inline void store(bfloat16* p, Vec<float> v) {
  const __m256i words = (__m256i)nearest_bfloat16(v), turns = _mm256_packus_epi32(words, words);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_castsi256_si128(_mm256_permute4x64_epi64(turns, 0b1000)));
}
#else
inline Vec<float> load(const bfloat16* p) {
  HalfBits h;
  std::memcpy(&h, p, sizeof h);
  return (Vec<float>)(__builtin_convertvector(h, WordBits) << 16);
}
inline void store(bfloat16* p, Vec<float> v) {
  const HalfBits h = __builtin_convertvector(nearest_bfloat16(v), HalfBits);
  std::memcpy(p, &h, sizeof h);
}
#endif
#if defined(__AVX512F__)
inline Vec<float> load(const float16* p) {
  return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline void store(float16* p, Vec<float> v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__F16C__)
inline Vec<float> load(const float16* p) {
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void store(float16* p, Vec<float> v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
#else
inline Vec<float> load(const float16* p) {
  float v[kLanes<float>];
  for (int i = 0; i < kLanes<float>; ++i) v[i] = widen(p[i]);
  return load(v);
}
inline void store(float16* p, Vec<float> v) {
  for (int i = 0; i < kLanes<float>; ++i) narrow(p + i, v[i]);
}
#endif

// The first `count` elements of a vector, the rest zero.
template <class T, class S>
inline Vec<T> load_some(const S* p, int count) {
  S all[kLanes<T>] = {};
  std::memcpy(all, p, std::size_t(count) * sizeof(S));
  return load(all);
}
template <class T, class S>
inline void store_some(S* p, Vec<T> v, int count) {
  S all[kLanes<T>];
  store(all, v);
  std::memcpy(p, all, std::size_t(count) * sizeof(S));
}

inline Vec<float> square_root(Vec<float> v) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_maskz_sqrt_ps(0xffff, (__m512)v);
#elif defined(__AVX2__)
  return (Vec<float>)_mm256_sqrt_ps((__m256)v);
#elif defined(__SSE2__)
  return (Vec<float>)_mm_sqrt_ps((__m128)v);
#else
  for (int i = 0; i < kLanes<float>; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}
inline Vec<double> square_root(Vec<double> v) {
#if defined(__AVX512F__)
  return (Vec<double>)_mm512_maskz_sqrt_pd(0xff, (__m512d)v);
#elif defined(__AVX2__)
  return (Vec<double>)_mm256_sqrt_pd((__m256d)v);
#elif defined(__SSE2__)
  return (Vec<double>)_mm_sqrt_pd((__m128d)v);
#else
  for (int i = 0; i < kLanes<double>; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}
inline float square_root(float a) { return std::sqrt(a); }
inline double square_root(double a) { return std::sqrt(a); }

template <class T>
inline T sum(Vec<T> v) {
  T s = 0;
  for (int i = 0; i < kLanes<T>; ++i) s += v[i];
  return s;
}

// ---- transpose of kLanes x kLanes ----------------------------------------------------------------
// Exchange of off-diagonal blocks of D lanes: v[i] and v[i + D], for D = 1, 2, 4, ...
template <class T, int D, int... I>
EQUICONV_INLINE void exchange(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, I...>) {
  constexpr int W = kLanes<T>;
  const Vec<T> low = __builtin_shufflevector(a, b, ((I & D) ? I - D + W : I)...);
  const Vec<T> high = __builtin_shufflevector(a, b, ((I & D) ? I + W : I + D)...);
  a = low, b = high;
}
// In every 16 bytes, the even lanes of a and b, and their odd ones. Instead of every exchange within 16 bytes
// it leads to the same transpose, in one instruction each where AVX2 has no blend that moves lanes.
template <class T, int... I>
EQUICONV_INLINE void unzip(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, I...>) {
  constexpr int W = kLanes<T>, G = 16 / int(sizeof(T));
  const Vec<T> even = __builtin_shufflevector(a, b, (I / G * G + 2 * I % G + (2 * (I % G) < G ? 0 : W))...);
  const Vec<T> odd =
      __builtin_shufflevector(a, b, (I / G * G + 2 * I % G + 1 + (2 * (I % G) < G ? 0 : W))...);
  a = even, b = odd;
}
template <class T, int D = 1>
EQUICONV_INLINE void transpose(Vec<T>* v) {
  constexpr int W = kLanes<T>;
  constexpr auto lanes = std::make_integer_sequence<int, W>{};
  if constexpr (D < W) {
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
      if (i & D) continue;
      if constexpr (!kManyRegisters && D * int(sizeof(T)) < 16) unzip<T>(v[i], v[i + D], lanes);
      else exchange<T, D>(v[i], v[i + D], lanes);
    }
    transpose<T, 2 * D>(v);
  }
}

}  // namespace
