// What gate is held against: the same bytes read and written, and nothing else. Two arrays come in and one
// goes out (forward), or three and two (backward), past the caches, by threads that share the positions
// evenly.
#include <immintrin.h>

#include <cstdint>
#include <thread>
#include <vector>

namespace {

__attribute__((target("avx2"))) void copy(float* const* to, int written, const float* const* from, int read,
                                          std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; i += 8) {
    __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from[0] + i));
    for (int k = 1; k < read; ++k)
      v = _mm256_xor_si256(v, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from[k] + i)));
    for (int k = 0; k < written; ++k) _mm256_stream_si256(reinterpret_cast<__m256i*>(to[k] + i), v);
  }
  _mm_sfence();
}

}  // namespace

// Arrays of n floats, n a multiple of 8, the written ones at a multiple of 32 bytes.
extern "C" void copy_bytes(float* const* to, int written, const float* const* from, int read, std::int64_t n,
                           int threads) {
  std::vector<std::thread> others;
  const std::int64_t vectors = n / 8;
  for (int t = 1; t < threads; ++t)
    others.emplace_back(copy, to, written, from, read, vectors * t / threads * 8,
                        vectors * (t + 1) / threads * 8);
  copy(to, written, from, read, 0, vectors / threads * 8);
  for (std::thread& other : others) other.join();
}
