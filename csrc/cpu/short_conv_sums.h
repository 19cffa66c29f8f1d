// How short_conv is cut into units of work, and how the gradients of its weights are summed over them.
#pragma once
#include <algorithm>

#include "../short_conv.h"
#include "storage.h"
#include "team.h"

namespace {

using namespace equiconv;

// A piece of one sample's sequence.
struct Place {
  std::int64_t batch, begin, end;
};

template <std::int64_t kPositions>
struct Units {
  explicit Units(const ShortConv& n)
      : length(n.length), each((n.length + kPositions - 1) / kPositions), count(n.batch * each) {}
  Place operator[](std::int64_t i) const {
    const std::int64_t begin = i % each * kPositions;
    return {i / each, begin, std::min(begin + kPositions, length)};
  }
  std::int64_t length, each, count;
};

// Outputs of 16 MB and more would only push others out of the caches.
inline bool past_caches(const ShortConv& n, DType dtype) {
  return n.batch * n.channels * n.length * n.parts * bytes_of(dtype) >= 1 << 24;
}

// Partial sums: of each of at most 64 runs of units, a row of lanes for each tap and one for the bias.
struct WeightSums {
  static constexpr std::int64_t kMost = 64;

  WeightSums(const ShortConv& n, std::int64_t units, std::int64_t parts_kept)
      : runs(std::min(units, kMost)),
        units_(units),
        lanes_(n.channels * n.streams() * parts_kept),
        parts_(parts_kept),
        taps_(n.taps) {}

  std::int64_t begin(std::int64_t run) const { return units_ * run / runs; }
  std::int64_t size() const { return runs * (taps_ + 1) * lanes_; }
  template <class T>
  T* row(T* sums, std::int64_t run, int j) const {
    return sums + (run * (taps_ + 1) + j) * lanes_;
  }

  // The sums over runs, and over a channel's parts, in their order.
  template <class T>
  void finish(T* sums, const Output& grad_filter, const Output& grad_bias, const Team& team) const {
    team.ranges(lanes_ / parts_, [&](std::int64_t first, std::int64_t last) {
      for (int j = 0; j <= taps_; ++j) {
        const Output& to = j < taps_ ? grad_filter : grad_bias;
        if (!to) continue;
        T* total = row(sums, 0, j);
        for (std::int64_t run = 1; run < runs; ++run) {
          const T* more = row(sums, run, j);
          for (std::int64_t i = first * parts_; i < last * parts_; ++i) total[i] += more[i];
        }
        with_arithmetic_storage<T>(to.dtype, [&](auto* storage) {
          using S = std::remove_pointer_t<decltype(storage)>;
          S* out = static_cast<S*>(to.data) + (j < taps_ ? j * to.position : 0);
          for (std::int64_t c = first; c < last; ++c) {
            const T sum = parts_ == 2 ? total[2 * c] + total[2 * c + 1] : total[c];
            narrow(out + c * to.channel, sum);
          }
        });
      }
    });
  }

  std::int64_t runs;

 private:
  std::int64_t units_, lanes_, parts_;
  int taps_;
};

}  // namespace
