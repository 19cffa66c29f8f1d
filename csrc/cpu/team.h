// The threads that share a piece of work.
#pragma once
#include <algorithm>

#include "fft_conv.h"

namespace {

// team(n, f) calls f(i) for i in [0, n), in any order. A team of one is a plain loop.
struct Team {
  equiconv::cpu::Parallel parallel = nullptr;
  int threads = 1;

  template <class F>
  void operator()(std::int64_t n, F f) const {
    if (threads > 1 && n > 1) {
      parallel(n, [](void* context, std::int64_t i) { (*static_cast<F*>(context))(i); }, &f);
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
