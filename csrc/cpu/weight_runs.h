// The gradient of a weight, which is summed in runs of rows that depend on the sizes alone, whatever the
// number of threads.
#pragma once
#include <algorithm>
#include <vector>

#include "pairs.h"
#include "team.h"

namespace {

inline std::int64_t weight_runs(const PairMessage& size) {
  constexpr std::int64_t most = 32, rows = 256;
  return std::clamp<std::int64_t>(size.rows() * size.filters() / rows, 1, most);
}

// grad_weight = the sum of the runs' sums, pairwise; these have (functions, pitch).
template <class T>
void add_runs(const PairMessage& size, const OutputRows& grad_weight, const Team& team,
              const std::vector<T*>& sums, std::int64_t pitch) {
  const auto runs = std::int64_t(sums.size());
  for (std::int64_t step = 1; step < runs; step *= 2)
    team(runs, [&](std::int64_t i) {
      if (i % (2 * step) || i + step >= runs) return;
      T* total = sums[std::size_t(i)];
      const T* more = sums[std::size_t(i + step)];
      for (std::int64_t n = 0; n < size.functions * pitch; ++n) total[n] += more[n];
    });
  with_arithmetic_storage<T>(grad_weight.dtype, [&](auto* storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    for (std::int64_t k = 0; k < size.functions; ++k)
      for (std::int64_t c = 0; c < size.channels; ++c)
        narrow(row_of<S>(grad_weight, k, 0) + c * grad_weight.entry, sums[0][k * pitch + c]);
  });
}

}  // namespace
