// pair_invariants on a CPU.
//
// The lanes of a vector are pairs, so that the gradients of a pair are sums over orientations in one lane, in
// their order. What a few pairs have of all features and orientations is made in columns, a vector each, and
// transposed on its way to the rows in memory, and so are rows that come from there. A pair has nothing to do
// with any other: units are as many as give every thread enough.
//
// Derivatives of the gradients are the gradients computed of dual numbers.
#include "pair_invariants.h"

#include <algorithm>

#include "../pair_attributes.h"
#include "arena.h"
#include "storage.h"
#include "team.h"

namespace {

using namespace equiconv;

constexpr std::int64_t kUnit = 1 << 14;  // features that are worth a thread's while

// ---- numbers ---------------------------------------------------------------------------------------
template <class T>
struct Root {
  EQUICONV_INLINE Length<Vec<T>> operator()(const Vec<T>& squared) const {
    const Vec<T> zero = {}, length = square_root(squared);
    const auto positive = squared > zero;
    return {positive ? length : zero, positive ? T(1) / length : zero};
  }
  EQUICONV_INLINE Vec<T> half() const { return splat(T(0.5)); }
};

// What is asked for: a number, or what it changes by.
template <class V>
EQUICONV_INLINE const V& result(const V& v) {
  return v;
}
template <class V>
EQUICONV_INLINE const V& result(const Dual<V>& v) {
  return v.change;
}

// ---- rows and columns --------------------------------------------------------------------------------

// The entries of so many pairs, one column.
template <class S, class T = typename Arithmetic<S>::type>
inline Vec<T> load_lanes(const S* from, std::int64_t stride, int count) {
  if (stride == 0) return splat(T(widen(*from)));
  T all[kLanes<T>] = {};
  for (int i = 0; i < count; ++i) all[i] = widen(from[i * stride]);
  return load(all);
}
template <class S, class T = typename Arithmetic<S>::type>
inline void store_lanes(S* to, std::int64_t stride, int count, Vec<T> v) {
  for (int i = 0; i < count; ++i) narrow(to + i * stride, v[i]);
}

// Whole rows of so many pairs, `length` neighbours each.
template <class S, class T = typename Arithmetic<S>::type>
void load_rows(Vec<T>* columns, std::int64_t length, const S* from, std::int64_t stride, int count) {
  constexpr int W = kLanes<T>;
  std::int64_t column = 0;
  for (; column + W <= length; column += W) {
    Vec<T>* const v = columns + column;
    for (int i = 0; i < W; ++i) v[i] = i < count ? load(from + i * stride + column) : Vec<T>{};
    transpose<T>(v);
  }
  for (; column < length; ++column) columns[column] = load_lanes(from + column, stride, count);
}
template <class S, class T = typename Arithmetic<S>::type>
void store_rows(const Vec<T>* columns, std::int64_t length, S* to, std::int64_t stride, int count) {
  constexpr int W = kLanes<T>;
  std::int64_t column = 0;
  for (; column + W <= length; column += W) {
    Vec<T> v[W];
    std::copy_n(columns + column, W, v);
    transpose<T>(v);
    for (int i = 0; i < count; ++i) store(to + i * stride + column, v[i]);
  }
  for (; column < length; ++column) store_lanes(to + column, stride, count, columns[column]);
}

// ---- some pairs ----------------------------------------------------------------------------------------

// As many pairs as a vector has lanes. V: vectors, or Duals of them.
template <class S, class V, Space space>
class Pairs {
  using T = typename Arithmetic<S>::type;
  static constexpr int n = kDimensions<space>;
  static constexpr bool kDual = !std::is_same_v<V, Vec<T>>;
  using Points = PairPoints<const void>;

 public:
  Pairs(const PairInvariants& size, Arena& scratch)
      : size_(size),
        attributes_{size.senders, size.complete, size.smooth},
        length_(size.orientations * size.features),
        columns_(scratch.take<Vec<T>>(length_)),
        changes_(scratch.take<Vec<T>>(kDual ? length_ : 0)),
        features_(scratch.take<V>(size.features)),
        grad_(scratch.take<V>(size.features)),
        extra_(scratch.take<V>(size.extra())),
        grad_extra_(scratch.take<V>(size.extra())) {}

  void forward(const PairInvariantsForward& a, std::int64_t pair, int count)
    requires(!kDual)
  {
    load_pairs(a.at, {}, pair, count);
    for (std::int64_t o = 0; o < size_.orientations; ++o) {
      load_receiver(a.at, {}, pair, o, count);
      features(columns_ + o * size_.features);
    }
    store_rows(columns_, length_, row<S>(a.out, pair), a.out.row, count);
  }

  void backward(const PairInvariantsBackward& a, std::int64_t pair, int count) {
    load_pairs(a.at, a.change, pair, count);
    if (a.grad_out) load_grad_out(a.grad_out, pair, count);
    PairVectors<V, n> sums;
    std::fill_n(grad_extra_, size_.extra(), V{});
    for (std::int64_t o = 0; o < size_.orientations; ++o) {
      load_receiver(a.at, a.change, pair, o, count);
      features(features_);
      const std::int64_t first = o * size_.features;
      if (a.out)
        for (int f = 0; f < size_.features; ++f) changes_[first + f] = result(features_[f]);
      if (!a.grad_out) continue;
      for (int f = 0; f < size_.features; ++f) {
        if constexpr (kDual) grad_[f] = {columns_[first + f], Vec<T>{}};
        else grad_[f] = columns_[first + f];
      }
      multiply_back(size_, features_, grad_);
      attributes_.gradients(at_, Root<T>(), grad_, sums);
      for (int i = 0; i < size_.extra(); ++i) grad_extra_[i] += grad_[size_.geometric + i];
    }
    if (a.out) store_rows(changes_, length_, row<S>(a.out, pair), a.out.row, count);
    store_columns(sums.rel, size_.dimensions, a.grad.rel, pair, count);
    store_columns(sums.receiver, size_.dimensions, a.grad.receiver, pair, count);
    store_columns(sums.sender, size_.dimensions, a.grad.sender, pair, count);
    store_columns(grad_extra_, size_.extra(), a.grad.extra, pair, count);
  }

 private:
  template <class Storage, class Void>
  static auto* row(const Rows<Void>& rows, std::int64_t pair) {
    using Entry = std::conditional_t<std::is_const_v<Void>, const Storage, Storage>;
    return static_cast<Entry*>(rows.data) + pair * rows.row;
  }

  void load_columns(V* to, int columns, const InputRows& value, const InputRows& change, std::int64_t pair,
                    std::int64_t orientation, int count) const {
    if (!value) return;
    const auto column = [&](const InputRows& a, int i) {
      const S* const first = row<S>(a, pair) + orientation * a.orientation;
      return load_lanes(first + i * a.entry, a.row, count);
    };
    for (int i = 0; i < columns; ++i) {
      if constexpr (kDual) to[i] = {column(value, i), change ? column(change, i) : Vec<T>{}};
      else to[i] = column(value, i);
    }
  }
  void load_pairs(const Points& at, const Points& change, std::int64_t pair, int count) {
    load_columns(at_.rel, size_.dimensions, at.rel, change.rel, pair, 0, count);
    load_columns(at_.sender, size_.dimensions, at.sender, change.sender, pair, 0, count);
    load_columns(extra_, size_.extra(), at.extra, change.extra, pair, 0, count);
  }
  void load_receiver(const Points& at, const Points& change, std::int64_t pair, std::int64_t orientation,
                     int count) {
    load_columns(at_.receiver, size_.dimensions, at.receiver, change.receiver, pair, orientation, count);
  }

  void load_grad_out(const InputRows& a, std::int64_t pair, int count) {
    const bool contiguous = a.entry == 1 && (a.orientation == size_.features || size_.orientations == 1);
    if (contiguous) return load_rows(columns_, length_, row<S>(a, pair), a.row, count);
    for (std::int64_t o = 0; o < size_.orientations; ++o)
      for (int f = 0; f < size_.features; ++f)
        columns_[o * size_.features + f] =
            load_lanes(row<S>(a, pair) + o * a.orientation + f * a.entry, a.row, count);
  }

  static void store_columns(const V* from, int columns, const OutputRows& to, std::int64_t pair, int count) {
    if (!to) return;
    for (int i = 0; i < columns; ++i)
      store_lanes(row<S>(to, pair) + i * to.entry, to.row, count, result(from[i]));
  }

  EQUICONV_INLINE void features(V* to) const {
    attributes_.values(at_, Root<T>(), to);
    std::copy_n(extra_, size_.extra(), to + size_.geometric);
    multiply_out(size_, to);
  }

  const PairInvariants& size_;
  PairAttributes<space> attributes_;
  std::int64_t length_;
  Vec<T>*columns_, *changes_;
  V *features_, *grad_, *extra_, *grad_extra_;
  PairVectors<V, n> at_;
};

// ---- all pairs -----------------------------------------------------------------------------------------

template <class T>
std::int64_t groups_of(const PairInvariants& size) {
  return (size.pairs + kLanes<T> - 1) / kLanes<T>;
}
template <class T>
std::int64_t units_of(const PairInvariants& size, int threads) {
  const std::int64_t features = size.pairs * size.orientations * size.features;
  return std::clamp<std::int64_t>(features / kUnit, 1, std::min<std::int64_t>(threads, groups_of<T>(size)));
}

// Calls f with the pairs of the call's kind, for their groups, and the first and number of a group's.
template <class Pairs, class T, class F>
void for_groups(const PairInvariants& size, void* scratch, std::int64_t scratch_bytes, const Team& team,
                F f) {
  const std::int64_t groups = groups_of<T>(size), units = units_of<T>(size, team.threads);
  team(units, [&](std::int64_t unit) {
    Arena arena(static_cast<char*>(scratch) + unit * scratch_bytes);
    Pairs pairs(size, arena);
    for (std::int64_t group = groups * unit / units; group < groups * (unit + 1) / units; ++group) {
      const std::int64_t pair = group * kLanes<T>;
      f(pairs, pair, int(std::min<std::int64_t>(kLanes<T>, size.pairs - pair)));
    }
  });
}

// Calls f with a constant of the space.
template <class F>
void with_space(Space space, F f) {
  switch (space) {
    case Space::distance: return f(std::integral_constant<Space, Space::distance>());
    case Space::planar: return f(std::integral_constant<Space, Space::planar>());
    case Space::spatial: return f(std::integral_constant<Space, Space::spatial>());
  }
}

// ---- the table -----------------------------------------------------------------------------------------

// Of one unit, in any space.
template <class T>
std::int64_t unit_scratch(const PairInvariants& size, bool dual) {
  Arena arena(nullptr);
  if (dual) Pairs<T, Dual<Vec<T>>, Space::distance>(size, arena);
  else Pairs<T, Vec<T>, Space::distance>(size, arena);
  return arena.used();
}
std::int64_t scratch(const PairInvariants& size, DType dtype, bool dual, int threads) {
  return with_arithmetic(
      dtype, [&]<class T>(T) { return units_of<T>(size, threads) * unit_scratch<T>(size, dual); });
}
std::int64_t forward_scratch(const PairInvariants& size, const PairInvariantsForward& a, int threads) {
  return scratch(size, a.at.rel.dtype, false, threads);
}
std::int64_t backward_scratch(const PairInvariants& size, const PairInvariantsBackward& a, int threads) {
  return scratch(size, a.at.rel.dtype, bool(a.change), threads);
}

void forward(const PairInvariants& size, const PairInvariantsForward& a, void* scratch, int threads,
             cpu::Parallel parallel) {
  const FlushSubnormals flush;
  with_storage(a.at.rel.dtype, [&]<class S>(S*) {
    with_space(size.space, [&](auto space) {
      using T = typename Arithmetic<S>::type;
      using All = Pairs<S, Vec<T>, space>;
      for_groups<All, T>(size, scratch, unit_scratch<T>(size, false), Team{parallel, threads},
                         [&](All& pairs, std::int64_t pair, int count) { pairs.forward(a, pair, count); });
    });
  });
}

void backward(const PairInvariants& size, const PairInvariantsBackward& a, void* scratch, int threads,
              cpu::Parallel parallel) {
  const FlushSubnormals flush;
  const auto run = [&]<class S, class V>(S*, const V&) {
    with_space(size.space, [&](auto space) {
      using T = typename Arithmetic<S>::type;
      using All = Pairs<S, V, space>;
      for_groups<All, T>(size, scratch, unit_scratch<T>(size, bool(a.change)), Team{parallel, threads},
                         [&](All& pairs, std::int64_t pair, int count) { pairs.backward(a, pair, count); });
    });
  };
  with_storage(a.at.rel.dtype, [&]<class S>(S* storage) {
    using V = Vec<typename Arithmetic<S>::type>;
    if (a.change) run(storage, Dual<V>());
    else run(storage, V());
  });
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const PairInvariantsKernels pair_invariants;
const PairInvariantsKernels pair_invariants = {forward_scratch, backward_scratch, forward, backward};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
