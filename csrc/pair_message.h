// pair_message: what a kernel is given, on any device. No torch in here.
//
//   out[r, o, c] = sum over pairs e with receiver r of (sum_k basis[e, o, k] weight[k, c]) x[s(e), o, c]
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include "dtype.h"

namespace equiconv {

// Of a basis whose rows serve both directions of a pair: the pairs from `rows` on are the reversals of the
// pairs from 0 on, and have their rows, each at the opposite orientation. Any other has a row for each pair.
struct Antipodes {
  std::int64_t rows = std::numeric_limits<std::int64_t>::max();
  const std::int64_t* of = nullptr;  // (orientations,)
};

// Sizes of one call. `shared`: the basis has one row a pair, the same for all orientations.
struct PairMessage {
  std::int64_t pairs, senders, receivers, orientations, functions, channels;
  bool shared;
  bool tf32 = false;  // float32 factors may be rounded to TF32 (CUDA)
  Antipodes antipodes = {};
  std::int64_t filters() const { return shared ? 1 : orientations; }  // basis rows of a pair
  std::int64_t rows() const { return std::min(pairs, antipodes.rows); }
  std::int64_t reversals() const { return pairs - rows(); }
};

// A strided array indexed (point or pair, orientation, entry); strides count elements. A shared basis has
// orientation stride 0. A weight (function, channel) has no orientations.
template <class Void>
struct Rows {
  Void* data = nullptr;
  DType dtype = DType::float32;
  std::int64_t row = 0, orientation = 0, entry = 0;
  explicit operator bool() const { return data != nullptr; }
};
using InputRows = Rows<const void>;
using OutputRows = Rows<void>;

// Pairs in groups by the point on one side: group g is entries offset(g) … offset(g + 1) - 1 of `neighbours`,
// the points on the other side, and of `rows`, the pairs' rows in the basis. All int32, or int64 if `wide`.
struct PairGroups {
  const void *offsets = nullptr, *neighbours = nullptr, *rows = nullptr;
  bool wide = false;
};

// The sums over each group's pairs: for out by receiver, where x is of the senders; for the gradient of x by
// sender, where x is the gradient of out.
struct PairAggregate {
  std::int64_t groups;
  PairGroups pairs;
  InputRows x, basis, weight;
  OutputRows out;
};

// The gradients of basis and weight, each written where its data is not null. Pairs are by receiver, and
// without those that are reversals of others.
struct PairGradients {
  PairGroups pairs;
  InputRows grad_out, x, basis, weight;
  OutputRows grad_basis, grad_weight;
};

}  // namespace equiconv
