// Stands in for <cooperative_groups/reduce.h>. Sums are made in the order of the lanes: a GPU's order is
// its own.
#pragma once
#include <cooperative_groups.h>

namespace cooperative_groups {

template <class T>
struct plus {
  T operator()(T a, T b) const { return a + b; }
};
template <class T>
struct less {
  T operator()(T a, T b) const { return b < a ? b : a; }
};
template <class T>
struct greater {
  T operator()(T a, T b) const { return a < b ? b : a; }
};
template <class T>
struct bit_and {
  T operator()(T a, T b) const { return a & b; }
};
template <class T>
struct bit_or {
  T operator()(T a, T b) const { return a | b; }
};
template <class T>
struct bit_xor {
  T operator()(T a, T b) const { return a ^ b; }
};

template <class Group, class T, class F>
T reduce(const Group& group, T v, F f, CUDA_ON_CPU_SITE) {
  return group.reduced(v, f, site_file, site_line);
}

}  // namespace cooperative_groups
