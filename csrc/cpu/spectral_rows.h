// How ops on half spectra cut their rows for the transforms of real_dft.h.
#pragma once
#include "fft_conv_items.h"
#include "real_dft.h"

namespace {

template <class T>
Plane<T> take_plane(Arena& arena, std::int64_t count) {
  T* re = arena.take<T>(count);
  return {re, arena.take<T>(count)};
}

template <class T>
std::int64_t row_pitch(std::int64_t length) {  // room for a vector; not a power of two
  return (length + 2 * kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// Channels of an item: as many as are worth loading together, and as are transformed together.
template <class T>
std::int64_t group(std::int64_t channels, std::int64_t length, std::initializer_list<Input> signals,
                   int rows) {
  std::int64_t most = rows;
  for (const Input& a : signals) most = std::max(most, group_of<T>(a, length));
  return std::min(most, std::max<std::int64_t>(channels, 1));
}

// The c-th chunk of an item's channels, transformed together.
struct Chunk {
  std::int64_t first, count;
};
inline std::int64_t chunks(std::int64_t channels, int rows) { return (channels + rows - 1) / rows; }
inline Chunk chunk_of(std::int64_t c, std::int64_t channels, int rows) {
  return {c * rows, std::min<std::int64_t>(rows, channels - c * rows)};
}

// f(zero of the arithmetic type, null pointer to the transform)
template <class F>
auto with_transform(DType dtype, std::int64_t length, F f) {
  return with_arithmetic(dtype, [&](auto t) {
    using T = decltype(t);
    return AlongRealDft<T>::takes(length) ? f(t, static_cast<AlongRealDft<T>*>(nullptr))
                                          : f(t, static_cast<AcrossRealDft<T>*>(nullptr));
  });
}
template <class Pointer>
using Pointee = std::remove_pointer_t<Pointer>;

}  // namespace
