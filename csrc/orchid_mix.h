// orchid_mix: what a kernel is given beside the signals of conditioned_conv. No torch in here.
//
// conditioned_conv of signals that go through short convolutions along time first (short_conv.h): x, pre_gate
// and post_gate each through its own, and query and key are x through theirs.
#pragma once
#include "conditioned_conv.h"
#include "short_conv.h"

namespace equiconv {

// filter is (channel, position: tap), bias (channel), of the dtype of x, or float32 beside a half type; tap 0
// looks `ahead` positions ahead. Gradients are written where their data is not null.
struct MixShort {
  Input filter, bias;
  std::int64_t taps = 0, ahead = 0;
  Output grad_filter, grad_bias;

  bool wants() const { return grad_filter || grad_bias; }
};

// Of key only where there is one. Signals are periodic if `circular`, else zero outside.
struct OrchidMix {
  enum Signal { kPostGate, kPreGate, kX, kQuery, kKey, kSignals };

  MixShort of[kSignals];
  bool circular;
};

}  // namespace equiconv
