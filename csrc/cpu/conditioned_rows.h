// Where conditioned_conv's transforms find the rows of its signals, and the spectra of its static filters.
#pragma once
#include "../conditioned_conv.h"
#include "spectral_rows.h"

namespace {

// Rows of signals: in an item's rows, or where they lie. Large outputs bypass the caches there, and are gated
// as the last pass of a transform writes them; those that stay in the caches are gated in order, from an
// item's rows, which is faster.
template <class T, class Dft>
class Signals {
 public:
  std::int64_t pitch;

  Signals(const ConditionedConv& size, const Dft& dft, const Spread& spread)
      : pitch(row_pitch<T>(size.length)),
        one_at_a_time_(dft.rows() == 1),
        past_caches_(spread.inner.threads == 1 &&
                     ::past_caches(kType, size.batch * size.channels * size.length, true)) {}

  bool in_place(const Input& a, const Input& gate) const { return lies(a) && !gate; }
  bool in_place(const Output& a, const Input& gate) const {
    return lies(a) && (!gate || (past_caches_ && lies(gate)));
  }
  void load(const Input& a, const Input& gate, const Part& part, T* rows) const {
    if (a && !in_place(a, gate)) load_rows<T>(a, gate, part, rows + part.begin, pitch);
  }
  const T* row(const Input& a, const Input& gate, Row at, const T* loaded) const {
    return in_place(a, gate) ? row_of<const T>(a, at) : loaded;
  }
  void store(const Output& a, const Input& gate, const Part& part, const T* rows) const {
    if (!in_place(a, gate)) store_loaded(a, gate, part, rows);
  }
  void store_loaded(const Output& a, const Input& gate, const Part& part, const T* rows) const {
    if (a) store_rows<T>(a, gate, part, rows + part.begin, pitch);
  }
  RealSink<T> row(const Output& a, const Input& gate, Row at, T* stored) const {
    if (!in_place(a, gate)) return {stored};
    return {row_of<T>(a, at), row_of<const T>(gate, at), nullptr, nullptr, past_caches_};
  }
  // Of one row and two gates.
  bool in_place(const Output& a, const Input& gate, const Output& b, const Input& gate_of_b) const {
    return (a || b) && (!a || in_place(a, gate)) && (!b || in_place(b, gate_of_b));
  }
  RealSink<T> row(const Output& a, const Input& gate, const Output& b, const Input& gate_of_b, Row at,
                  T* stored) const {
    if (!in_place(a, gate, b, gate_of_b)) return {stored};
    if (!a) return row(b, gate_of_b, at, stored);
    return {row_of<T>(a, at), row_of<const T>(gate, at), row_of<T>(b, at), row_of<const T>(gate_of_b, at),
            past_caches_};
  }
  // Called by a thread at its end: what it stored past the caches is ordered with what follows.
  void finish() const {
    if (past_caches_) fence();
  }

 private:
  static constexpr DType kType = std::is_same_v<T, double> ? DType::float64 : DType::float32;

  template <class Void>
  bool lies(const Array<Void>& a) const {
    return one_at_a_time_ && a && a.dtype == kType && a.position == 1;
  }

  bool one_at_a_time_, past_caches_;
};

// Rows that are needed next, asked for a few lines at a time while others are worked on. Long ones would push
// those out of the cache.
class RowsAhead {
 public:
  template <class Void>
  void add(const Array<Void>& a, Row at, std::int64_t length) {
    const std::int64_t bytes = length * bytes_of(a.dtype);
    if (!useful_ || !a || a.position != 1 || bytes > kLongest) return;
    const auto* first = static_cast<const char*>(a.data);
    rows_[std::size_t(count_++)] = {first + (at.batch * a.batch + at.channel * a.channel) * bytes_of(a.dtype),
                                    bytes};
  }
  // Useful where rows are transformed one at a time, by one thread.
  template <class Dft>
  RowsAhead(const Dft& dft, const Team& team) : useful_(dft.rows() == 1 && team.threads == 1) {}

  // Asks for a quarter of the bytes of so many pairs of vectors: of three quarters of a row and more beside a
  // transform, of a row beside a pass over frequencies. So forward, which needs four rows or five, asks until
  // it ends. Inlined by force: GCC 12 takes a function that only prefetches for one without effect.
  EQUICONV_INLINE void next(int pairs) {
    if (row_ == count_) return;
    const Lines& row = rows_[std::size_t(row_)];
    for (std::int64_t end = at_ + pairs * kVectorBytes / 2; at_ < end; at_ += 64)
      __builtin_prefetch(row.first + at_, 0, 2);
    if (at_ >= row.bytes) at_ = 0, ++row_;
  }

 private:
  static constexpr std::int64_t kLongest = 1 << 15;
  struct Lines {
    const char* first;
    std::int64_t bytes;
  };
  bool useful_;
  std::array<Lines, 8> rows_;
  int count_ = 0, row_ = 0;
  std::int64_t at_ = 0;
};

// The spectra of an item's static filters, times the transforms' scale; `rows` holds the item's rows
// meanwhile.
template <class T, class Dft>
void load_statics(const ConditionedConv& size, const Input& filter, const Item& item, const Dft& dft,
                  std::int64_t pitch, T* rows, Plane<T> z, Plane<T> other,
                  const std::vector<Plane<T>>& statics, const Team& team) {
  load_rows<T>(filter, {}, {0, item.channel, item.channels, 0, size.taps}, rows, pitch);
  for (std::int64_t c = 0; c < item.channels; ++c)
    std::fill(rows + c * pitch + size.taps, rows + c * pitch + size.length, T(0));
  const T scale = T(dft.scale() / dft.multiple());
  for (std::int64_t c = 0; c < chunks(item.channels, dft.rows()); ++c) {
    const Chunk chunk = chunk_of(c, item.channels, dft.rows());
    dft.forward(rows + chunk.first * pitch, pitch, chunk.count, z, other, team);
    dft.template each_frequency<1, 0>(
        {z}, {},
        [&](const auto& in, auto&, const auto& at) {
          auto scaled = in[0];
          scaled.re *= scale, scaled.im *= scale;
          at.put(statics[std::size_t(c)], scaled);
        },
        team);
  }
}

}  // namespace
