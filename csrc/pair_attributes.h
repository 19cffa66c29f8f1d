// The attributes of a pair and their gradients, for any type of numbers: a vector whose lanes are pairs, a
// number, or one of these with what it changes by. Constant expressions, so that a GPU has them too.
//
// r: from receiver to sender, o: the receiver's orientation, p: the sender's
//   distance   |r|
//   planar     o.r, o x r                                   with senders o.p, complete: o x p too
//   spatial    o.r, |r - (o.r) o| or, smooth, its square    with senders o.p, complete: p.r too
//
// Lengths have derivatives of zero where they are zero.
#pragma once
#include "pair_invariants.h"

namespace equiconv {

// A number and its derivative in one direction: what is computed of such numbers, is derived.
template <class V>
struct Dual {
  V value, change;

  friend constexpr Dual operator+(const Dual& a, const Dual& b) {
    return {a.value + b.value, a.change + b.change};
  }
  friend constexpr Dual operator-(const Dual& a, const Dual& b) {
    return {a.value - b.value, a.change - b.change};
  }
  friend constexpr Dual operator*(const Dual& a, const Dual& b) {
    return {a.value * b.value, a.change * b.value + a.value * b.change};
  }
  constexpr Dual& operator+=(const Dual& a) { return *this = *this + a; }
  constexpr Dual& operator-=(const Dual& a) { return *this = *this - a; }
};

// A root and its inverse, both zero of zero.
template <class V>
struct Length {
  V length, inverse;
};

// Root: what makes a Length of a square, and knows one half.
template <class Root, class V>
constexpr Length<V> length_of(Root root, const V& squared) {
  return root(squared);
}
template <class Root, class V>
constexpr Length<Dual<V>> length_of(Root root, const Dual<V>& squared) {
  const Length<V> at = root(squared.value);
  const V change = at.inverse * squared.change * root.half();
  return {{at.length, change}, {at.inverse, V{} - at.inverse * change * at.inverse}};
}

template <class V, int n>
struct PairVectors {
  V rel[n] = {}, receiver[n] = {}, sender[n] = {};
};

template <class V, int n>
constexpr V dot(const V (&a)[n], const V (&b)[n]) {
  V sum = a[0] * b[0];
  for (int i = 1; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// to += factor * v
template <class V, int n>
constexpr void add(V (&to)[n], const V& factor, const V (&v)[n]) {
  for (int i = 0; i < n; ++i) to[i] += factor * v[i];
}

template <Space space>
struct PairAttributes {
  static constexpr int n = kDimensions<space>;
  bool senders, complete, smooth;

  template <class V, class Root>
  constexpr void values(const PairVectors<V, n>& at, Root root, V* to) const {
    if constexpr (space == Space::distance) {
      to[0] = length_of(root, dot(at.rel, at.rel)).length;
    } else {
      const auto &r = at.rel, &o = at.receiver, &p = at.sender;
      const V along = dot(o, r);
      to[0] = along;
      if constexpr (space == Space::planar) {
        to[1] = r[1] * o[0] - r[0] * o[1];
      } else {
        const Across<V> across(r, o, along);
        to[1] = smooth ? across.squared : length_of(root, across.squared).length;
      }
      if (!senders) return;
      const V cosine = dot(o, p), ahead = dot(p, r);
      to[2] = cosine;
      if (!complete) return;
      if constexpr (space == Space::planar) to[3] = o[0] * p[1] - o[1] * p[0];
      else to[3] = ahead;
    }
  }

  // Adds to `sums` what gradients of the attributes bring.
  template <class V, class Root>
  constexpr void gradients(const PairVectors<V, n>& at, Root root, const V* grad,
                           PairVectors<V, n>& sums) const {
    const auto &r = at.rel, &o = at.receiver, &p = at.sender;
    if constexpr (space == Space::distance) {
      add(sums.rel, grad[0] * length_of(root, dot(r, r)).inverse, r);
    } else {
      V along = grad[0];
      if constexpr (space == Space::planar) {
        sums.rel[0] -= grad[1] * o[1], sums.rel[1] += grad[1] * o[0];
        sums.receiver[0] += grad[1] * r[1], sums.receiver[1] -= grad[1] * r[0];
      } else {
        const V distance = dot(o, r);
        const Across<V> across(r, o, distance);
        const V factor = smooth ? grad[1] + grad[1] : grad[1] * length_of(root, across.squared).inverse;
        add(sums.rel, factor, across.vector);
        add(sums.receiver, V{} - factor * distance, across.vector);
        along -= factor * dot(across.vector, o);  // zero but for o that are no unit vectors
      }
      add(sums.rel, along, o), add(sums.receiver, along, r);
      if (!senders) return;
      add(sums.receiver, grad[2], p), add(sums.sender, grad[2], o);
      if (!complete) return;
      if constexpr (space == Space::planar) {
        sums.receiver[0] += grad[3] * p[1], sums.receiver[1] -= grad[3] * p[0];
        sums.sender[0] -= grad[3] * o[1], sums.sender[1] += grad[3] * o[0];
      } else {
        add(sums.sender, grad[3], r), add(sums.rel, grad[3], p);
      }
    }
  }

 private:
  // What of r is across o.
  template <class V>
  struct Across {
    V vector[n], squared;
    constexpr Across(const V (&r)[n], const V (&o)[n], const V& along) {
      for (int i = 0; i < n; ++i) vector[i] = r[i] - along * o[i];
      squared = dot(vector, vector);
    }
  };
};

// All features of a pair at an orientation, of which the attributes are there.
template <class V>
constexpr void multiply_out(const PairInvariants& size, V* features) {
  for (int f = size.attributes; f < size.features; ++f)
    features[f] = features[size.shorter[f]] * features[size.last[f]];
}

// Gradients of features, as those of the attributes.
template <class V>
constexpr void multiply_back(const PairInvariants& size, const V* features, V* grad) {
  for (int f = size.features - 1; f >= size.attributes; --f) {
    const int shorter = size.shorter[f], last = size.last[f];
    grad[shorter] += grad[f] * features[last];
    grad[last] += grad[f] * features[shorter];
  }
}

}  // namespace equiconv
