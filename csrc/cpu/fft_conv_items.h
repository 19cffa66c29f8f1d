// What forward and backward of fft_conv share: how filters and rows lie in their ring, and how the work is
// cut into items and spread over threads.
#pragma once
#include <algorithm>
#include <optional>

#include "arena.h"
#include "direct.h"
#include "row_transform.h"
#include "rows.h"

namespace {

using namespace equiconv;

struct Row {
  std::int64_t batch, channel;
};
template <class Pointee, class Void>
Pointee* row_of(const Array<Void>& a, Row at) {
  return pointer<Pointee>(a, at.batch, at.channel, 0);
}
inline Input as_input(const Output& a) { return {a.data, a.dtype, a.batch, a.channel, a.position}; }

// The filters of an item: that of its c-th channel is row (first.batch, first.channel + c).
struct Filters {
  Input rows;
  Row first;
  Row operator[](std::int64_t c) const { return {first.batch, first.channel + c}; }
};

// How rows are transformed, and how filters lie in the ring.
template <class T>
struct Convolution {
  static constexpr std::int64_t kDirectLength = 112,
                                kDirectTaps = 48;  // measured on AVX-512: one core, 1M elements
  static constexpr std::int64_t kReuse = 1 << 18;  // points of spectra worth keeping

  FftConv size;
  bool direct, two_sided;  // two_sided: the filter has taps at negative lags, its polynomial is complex
  std::int64_t centre;     // the tap at lag 0
  std::optional<RowTransform<T>> transform;
  std::int64_t points, pitch;   // of a row, and between rows of a tile (not a power of two apart)
  std::int64_t before, padded;  // direct: what is kept free before a padded signal, and its whole length

  explicit Convolution(const FftConv& n) : size(n) {
    direct = n.length <= kDirectLength || n.taps <= kDirectTaps;
    two_sided = n.mode != Mode::causal;
    centre = n.mode == Mode::bidirectional ? (n.taps - 1) / 2 : 0;
    if (!direct) transform.emplace(n.length, n.mode == Mode::circular);
    points = direct ? n.length : transform->points();
    pitch = (points + 2 * kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    before = n.taps;
    padded = direct ? n.length + 2 * n.taps + 8 * kLanes<T> : 0;
  }
  std::int64_t filter_row() const { return direct ? size.taps : pitch; }
  std::int64_t vectors() const { return direct ? 0 : transform->vectors(); }
  std::int64_t leaves() const { return direct ? 1 : transform->even_points() / Plan<T>::kLeaf; }

  // Filters made as (taps, channels), as a network does, are turned a tile at a time, as signals are.
  bool turns(const Input& filter, std::int64_t group) const {
    return group > 1 && lie_of(filter) == Lie::tiles;
  }
  std::int64_t turned_pitch() const { return (size.taps + 2 * kLanes<T> - 1) / kLanes<T> * kLanes<T>; }
  // The filters of `channels` channels from `first` on: turned into `rows`, or left where they lie.
  Filters turned(const Input& filter, std::int64_t group, Row first, std::int64_t channels, T* rows,
                 const Team& team) const {
    if (!turns(filter, group)) return {filter, first};
    team.ranges(size.taps, [&](std::int64_t begin, std::int64_t end) {
      load_rows<T>(filter, {}, {first.batch, first.channel, channels, begin, end}, rows + begin,
                   turned_pitch());
    });
    return {{rows, std::is_same_v<T, double> ? DType::float64 : DType::float32, 0, turned_pitch(), 1},
            {0, 0}};
  }
  // A filter's taps as a contiguous row.
  void load_taps(const Input& filter, Row at, T* taps) const {
    load_rows<T>(filter, {}, {at.batch, at.channel, 1, 0, size.taps}, taps, 0);
  }
  // A filter to the blocks of its polynomial; re and im are scratch.
  void read_filter(const Input& filter, Row at, T* re, T* im, Complex<T>* out, const Team& team) const {
    if (!two_sided && filter.position == 1)
      return with_arithmetic_storage<T>(filter.dtype, [&](auto* storage) {
        using S = std::remove_pointer_t<decltype(storage)>;
        transform->read_from(GatedRow<T, S>{row_of<const S>(filter, at), nullptr, size.taps}, out, team);
      });
    load_rows<T>(filter, {}, {at.batch, at.channel, 1, centre, size.taps}, re, 0);
    std::fill(re + size.taps - centre, re + points, T(0));
    if (!two_sided) return transform->read(re, nullptr, out, team);
    std::fill(im, im + points, T(0));
    if (size.mode == Mode::bidirectional) {
      load_rows<T>(filter, {}, {at.batch, at.channel, 1, 0, centre}, im + points - centre, 0);
      for (std::int64_t t = points - centre; t < points; ++t) im[t] = -im[t];
    } else {
      transform->fold(re);
      const std::int64_t n = transform->even_length();
      for (std::int64_t j = 1; j < n; ++j) im[transform->even_points() - n + j] = -re[j];
    }
    transform->read(re, im, out, team);
  }
  // The gradient of the filter's polynomial, to that of its taps, in place.
  void gather_taps(T* re, const T* im) const {
    if (size.mode == Mode::bidirectional) {
      std::copy_backward(re, re + size.taps - centre, re + size.taps);
      for (std::int64_t j = 0; j < centre; ++j) re[j] = -im[points - centre + j];
    } else if (size.mode == Mode::circular) {
      const std::int64_t n = transform->even_length();
      for (std::int64_t j = 1; j < n; ++j) re[j] -= im[transform->even_points() - n + j];
      transform->unfold(re);
    }
  }
  // Whether rows can be transformed from and to where they lie: positions contiguous, nothing to fold.
  bool in_place(std::initializer_list<Input> signals) const {
    return !direct && !transform->folds() && std::all_of(signals.begin(), signals.end(), [](const Input& a) {
      return !a || lie_of(a) == Lie::rows;
    });
  }
  template <class S>
  GatedRow<T, S> signal(const Input& a, const Input& gate, Row at) const {
    return {row_of<const S>(a, at), row_of<const S>(gate, at), size.length};
  }
  // A signal to its blocks: from where it lies, or from the row it was loaded into.
  void read_signal(bool in_place, const Input& a, const Input& gate, Row at, T* row, Complex<T>* out,
                   const Team& team) const {
    if (in_place)
      return with_arithmetic_storage<T>(a.dtype, [&](auto* storage) {
        transform->read_from(signal<std::remove_pointer_t<decltype(storage)>>(a, gate, at), out, team);
      });
    std::fill(row + size.length, row + points, T(0));
    transform->fold(row);
    transform->read(row, nullptr, out, team);
  }
  void write_signal(const Complex<T>* in, T* row, bool with_skip, T skip, const Team& team) const {
    transform->write(in, row, nullptr, with_skip, skip, team);
    transform->unfold(row);
  }
  // A row with what lies beyond its ends, for slide: zeros, or its own period.
  const T* pad(const T* row, T* out) const {
    const std::int64_t n = size.length;
    T* at = out + before;
    std::copy(row, row + n, at);
    if (size.mode == Mode::circular) {
      for (std::int64_t t = -before; t < 0; ++t) at[t] = row[n + t < 0 ? t % n + (t % n ? n : 0) : n + t];
      for (std::int64_t t = n; t < padded - before; ++t) at[t] = at[t - n];
    } else {
      std::fill(out, at, T(0));
      std::fill(at + n, out + padded, T(0));
    }
    return at;
  }
};

// How items are spread: over threads if there are enough of them, else one by one, each by all threads.
struct Spread {
  Team outer, inner;
  std::int64_t slots, rows;  // items in flight, and rows in flight within an item

  Spread(std::int64_t items, std::int64_t group, int threads, cpu::Parallel parallel) {
    if (items >= threads) outer = {parallel, threads};
    else inner = {parallel, threads};
    slots = outer.threads, rows = group >= inner.threads ? inner.threads : 1;
  }
  // f(row, slot of the row, team for the row) for every row of an item
  template <class F>
  void each_row(std::int64_t count, F f) const {
    if (rows == 1) {
      for (std::int64_t c = 0; c < count; ++c) f(c, 0, inner);
    } else {
      inner(rows, [&](std::int64_t i) {
        for (std::int64_t c = count * i / rows; c < count * (i + 1) / rows; ++c) f(c, i, Team{});
      });
    }
  }
};

// A group of channels over a run of batch entries.
struct Item {
  std::int64_t batch, batch_end, channel, channels;

  // The row that follows the c-th of a batch entry.
  Row after(const Item& next, std::int64_t at, std::int64_t c) const {
    if (c + 1 < channels) return {at, channel + c + 1};
    if (at + 1 < batch_end) return {at + 1, channel};
    return {next.batch, next.channel};
  }
  // The c-th slice, of as many as there are channels, of the tile at `batch` and of the tile after it.
  Part slice(std::int64_t at, std::int64_t c, std::int64_t length) const {
    return {at, channel, channels, length * c / channels, length * (c + 1) / channels};
  }
  Part slice_after(const Item& next, std::int64_t at, std::int64_t c, std::int64_t length) const {
    Part part = slice(at + 1, c, length);
    if (at + 1 == batch_end)
      part.batch = next.batch, part.channel = next.channel, part.channels = next.channels;
    return part;
  }
};
struct Items {
  std::int64_t batch, channels, group, runs;  // runs: into how many pieces the batch is cut
  std::int64_t groups() const { return (channels + group - 1) / group; }
  std::int64_t count() const { return groups() * runs; }
  Item operator[](std::int64_t i) const {  // past the end: the last one again
    i = std::min(i, count() - 1);
    const std::int64_t run = i / groups(), channel = i % groups() * group;
    return {batch * run / runs, batch * (run + 1) / runs, channel, std::min(group, channels - channel)};
  }
};

}  // namespace
