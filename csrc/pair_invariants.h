// pair_invariants: what a kernel is given, on any device. No torch in here.
//
//   out[e, o, f] = the f-th monomial in the attributes of pair e at orientation o (pair_attributes.h)
#pragma once
#include "pair_message.h"

namespace equiconv {

enum class Space : std::int8_t { distance, planar, spatial };

constexpr int kPairFeatures = 128;  // monomials at most

// Of the vectors of a pair; those of distances in fewer have zeros in the place of the others.
template <Space space>
constexpr int kDimensions = space == Space::planar ? 2 : 3;

// Sizes of one call. There is one orientation where each pair has its own, or there are none.
struct PairInvariants {
  std::int64_t pairs = 0, orientations = 1;
  std::int32_t dimensions = 0;
  std::int32_t geometric = 0, attributes = 0, features = 0;  // attributes: the geometric ones, then the extra
  Space space = Space::distance;
  bool senders = false, complete = false, smooth = false;
  // Feature f is feature shorter[f] times attribute last[f], but the first are the attributes themselves.
  std::uint8_t shorter[kPairFeatures] = {}, last[kPairFeatures] = {};

  constexpr std::int32_t extra() const { return attributes - geometric; }

  // All distinct monomials of degree 1 to `degree`, lower ones first, each a shorter one times an attribute
  // not before its last; false where they are too many.
  bool set_monomials(std::int64_t degree) {
    features = 0;
    const auto add = [&](int product, int attribute) {
      if (features == kPairFeatures) return false;
      shorter[features] = std::uint8_t(product), last[features++] = std::uint8_t(attribute);
      return true;
    };
    for (int i = 0; i < attributes; ++i)
      if (!add(0, i)) return false;
    for (int begin = 0; degree > 1; --degree) {
      const int end = features;
      for (int product = begin; product < end; ++product)
        for (int i = last[product]; i < attributes; ++i)
          if (!add(product, i)) return false;
      begin = end;
    }
    return true;
  }
};

// What belongs to pairs: vectors (pair, component) and extra attributes (pair, attribute); absent where data
// is null. A receiver of the grid is (orientation, component), with row stride 0.
template <class Void>
struct PairPoints {
  Rows<Void> rel, receiver, sender, extra;
  explicit operator bool() const { return rel || receiver || sender || extra; }
};

struct PairInvariantsForward {
  PairPoints<const void> at;
  OutputRows out;
};

// The gradients of `at` where `change` is empty, each written where its data is not null. Else what they
// change by, and `out`, where `at` does; grad_out may be absent then, if no gradient is asked for.
struct PairInvariantsBackward {
  InputRows grad_out;
  PairPoints<const void> at, change;
  OutputRows out;
  PairPoints<void> grad;
};

}  // namespace equiconv
