// Pairs in groups, and the rows that belong to pairs and points.
#pragma once
#include <algorithm>
#include <type_traits>

#include "../pair_message.h"
#include "storage.h"
#include "tile.h"

namespace {

using namespace equiconv;

struct Index {
  const void* data;
  bool wide;
  std::int64_t operator[](std::int64_t i) const {
    return wide ? static_cast<const std::int64_t*>(data)[i] : static_cast<const std::int32_t*>(data)[i];
  }
};

struct Groups {
  std::int64_t count;
  Index offset, neighbour, row;

  Groups(const PairGroups& pairs, std::int64_t groups)
      : count(groups),
        offset{pairs.offsets, pairs.wide},
        neighbour{pairs.neighbours, pairs.wide},
        row{pairs.rows, pairs.wide} {}

  // The group of pair i.
  std::int64_t of(std::int64_t i) const {
    std::int64_t low = 0, high = count;  // offset[low] <= i < offset[high]
    while (high - low > 1) {
      const std::int64_t middle = low + (high - low) / 2;
      (offset[middle] <= i ? low : high) = middle;
    }
    return low;
  }

  // The first group of a piece, of `pieces` with about as many pairs and groups each.
  std::int64_t first_of(std::int64_t piece, std::int64_t pieces) const {
    const std::int64_t goal = (offset[count] + count) / pieces * piece;
    if (piece == pieces) return count;
    std::int64_t low = 0, high = count;
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (offset[middle] + middle < goal) low = middle + 1;
      else high = middle;
    }
    return low;
  }
};

template <class S, class Void>
auto* row_of(const Rows<Void>& a, std::int64_t row, std::int64_t orientation) {
  using Pointee = std::conditional_t<std::is_const_v<Void>, const S, S>;
  return static_cast<Pointee*>(a.data) + row * a.row + orientation * a.orientation;
}

template <class S>
StridedRow<S> features(const InputRows& a, std::int64_t point, std::int64_t orientation) {
  return {row_of<S>(a, point, orientation), a.entry};
}

// Rows of the basis as contiguous rows of T, readable up to a multiple of entries: where they lie, or copied
// and filled up with zeros.
template <class T>
class BasisRows {
  using Real = typename Arithmetic<T>::type;

 public:
  BasisRows(const InputRows& basis, std::int64_t functions, std::int64_t multiple,
            const Antipodes& antipodes = {})
      : basis_(basis),
        antipodes_(antipodes),
        functions_(functions),
        pitch_(round_up(functions, std::max<std::int64_t>(multiple, kLanes<Real>))) {
    with_storage(basis.dtype, [&](auto* storage) {
      in_place_ = std::is_same_v<decltype(storage), T*> && basis.entry == 1 && functions % multiple == 0;
    });
  }
  std::int64_t room(std::int64_t rows) const { return in_place_ ? 0 : rows * pitch_; }
  // Row i of those for which there is room.
  EQUICONV_INLINE const T* get(std::int64_t pair, std::int64_t orientation, std::int64_t i, T* copies) const {
    find(pair, orientation);
    return in_place_ ? row_of<T>(basis_, pair, orientation) : get_copy(pair, orientation, i, copies);
  }
  // Where the row lies.
  EQUICONV_INLINE const char* place(std::int64_t pair, std::int64_t orientation) const {
    find(pair, orientation);
    return row_of<char>(basis_, 0, 0) +
           bytes_of(basis_.dtype) * (pair * basis_.row + orientation * basis_.orientation);
  }

 private:
  __attribute__((noinline)) const T* get_copy(std::int64_t pair, std::int64_t orientation, std::int64_t i,
                                              T* copies) const {
    T* copy = copies + i * pitch_;
    with_arithmetic_storage<Real>(basis_.dtype, [&](auto* storage) {
      const auto row = features<std::remove_pointer_t<decltype(storage)>>(basis_, pair, orientation);
      for (std::int64_t k = 0; k < pitch_; k += kLanes<Real>)
        store(copy + k, row.vector(k, std::max<std::int64_t>(functions_ - k, 0)));
    });
    return copy;
  }
  // A reversed pair's row is that of the pair, at the opposite orientation.
  EQUICONV_INLINE void find(std::int64_t& pair, std::int64_t& orientation) const {
    if (pair >= antipodes_.rows) pair -= antipodes_.rows, orientation = antipodes_.of[orientation];
  }

  InputRows basis_;
  Antipodes antipodes_;
  std::int64_t functions_, pitch_;
  bool in_place_ = false;
};

// A weight (function, channel), or the same transposed, packed as a product wants it.
template <class T, class Product>
void pack_weight(const InputRows& weight, const Product& product, bool transposed,
                 typename Product::Right& out) {
  with_storage(weight.dtype, [&](auto* storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    if constexpr (std::is_same_v<typename Arithmetic<S>::type, T>) {
      const auto* w = static_cast<const S*>(weight.data);
      const auto entry = [&](std::int64_t k, std::int64_t c) {
        return widen(w[k * weight.row + c * weight.entry]);
      };
      if (transposed) product.pack_right([&](std::int64_t c, std::int64_t k) { return entry(k, c); }, out);
      else product.pack_right(entry, out);
    }
  });
}

}  // namespace
