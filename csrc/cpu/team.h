// The threads that share a piece of work.
#pragma once
#include <algorithm>

#include "parallel.h"
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace {

// While it lives, this thread takes subnormal numbers for zero. A filter that decays ends in them, each costs
// a processor a hundred cycles, and they are far below the rounding of any sum they enter.
class FlushSubnormals {
 public:
#if defined(__SSE2__)
  FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(saved_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  unsigned saved_;
#else
  FlushSubnormals() {}
#endif
};

// team(n, f) calls f(i) for i in [0, n), in any order. A team of one is a plain loop.
struct Team {
  equiconv::cpu::Parallel parallel = nullptr;
  int threads = 1;

  template <class F>
  void operator()(std::int64_t n, F f) const {
    if (threads > 1 && n > 1) {
      const auto body = [](void* context, std::int64_t i) {
        const FlushSubnormals flush;
        (*static_cast<F*>(context))(i);
      };
      parallel(n, body, &f);
    } else {
      for (std::int64_t i = 0; i < n; ++i) f(i);
    }
  }
  // f(begin, end) over pieces of [0, n)
  template <class F>
  void ranges(std::int64_t n, F f) const {
    const std::int64_t pieces = threads > 1 ? std::min<std::int64_t>(4 * threads, n) : 1;
    (*this)(pieces, [&](std::int64_t i) { f(n * i / pieces, n * (i + 1) / pieces); });
  }
};

}  // namespace
