// pair_moments: what a kernel is given, on any device. No torch in here.
//
//   out[r, o, k, c] = sum over pairs e with receiver r of basis[e, o, k] x[s(e), o, c]
#pragma once
#include "pair_message.h"

namespace equiconv {

// A strided array indexed (receiver, orientation, function, channel).
template <class Void>
struct Moments {
  Void* data = nullptr;
  DType dtype = DType::float32;
  std::int64_t row = 0, orientation = 0, function = 0, channel = 0;
};

// The sums over each receiver's pairs. Sizes are those of a PairMessage.
struct PairMoments {
  PairGroups pairs;
  InputRows x, basis;
  Moments<void> out;
};

// The gradients of x and basis, each written where its data is not null.
struct PairMomentsGradients {
  PairGroups by_receiver, by_sender;
  Moments<const void> grad_out;
  InputRows x, basis;
  OutputRows grad_x, grad_basis;
};

}  // namespace equiconv
