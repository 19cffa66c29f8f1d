// long_conv_step on the CPU: relaxed convolution, a vector of channels at a time.
//
// Channels are next to each other everywhere, so a vector of them is a column of positions, which goes
// through all of a call's tokens by itself: threads share columns and never meet. A token takes the taps
// within its group of kGroup positions. Where a group ends, the largest aligned block of inputs behind is
// convolved with the taps that reach as many positions ahead: below kBlock product by product, kGroup sums in
// registers; from there on by a transform of as many points, the inputs' alone, for that of the taps was made
// once. Of a product in C[x]/(x^w - i) the imaginary part is what lies w positions ahead, free of what wraps
// around.
#include "long_conv_step.h"

#include "arena.h"
#include "ring_across.h"
#include "storage.h"
#include "team.h"

namespace {

using namespace equiconv;

constexpr int kGroup = 8;

template <class T>
constexpr int kLineLanes = kLineBytes / int(sizeof(T));

// Where a prepared filter keeps what belongs to a vector of its channels.
template <class T>
struct FilterView {
  static constexpr int W = kLanes<T>;

  const StepFilter* size;
  T* data;  // const where it is only read

  SplitRoots<T>* roots() const { return reinterpret_cast<SplitRoots<T>*>(data); }
  T* taps(std::int64_t vector) const { return data + size->roots() + vector * W; }  // `pitch` apart
  std::int64_t pitch() const { return size->pitch(kLineLanes<T>); }
  T* spectrum(std::int64_t vector, std::int64_t width) const {
    return data + size->roots() + kBlock * pitch() + 2 * W * (vector * size->points() + width - kBlock);
  }
  std::int64_t vectors() const { return (size->channels + W - 1) / W; }
};

// ---- a column ------------------------------------------------------------------------------------------

template <class T>
struct Column {
  static constexpr int W = kLanes<T>;
  using V = Vec<T>;

  T* buffer;  // of position 0
  const T* taps;
  std::int64_t pitch, rows;

  T* row(std::int64_t position) const { return buffer + position * pitch; }
  const T* tap(std::int64_t lag) const { return taps + lag * pitch; }

  // The sum at `position`, in whose place u is left.
  EQUICONV_INLINE V token(std::int64_t position, V u) const {
    V sum = load(row(position)) + load(taps) * u;
    for (int j = 1; j <= int(position % kGroup); ++j) sum += load(tap(j)) * load(row(position - j));
    store(row(position), u);
    return sum;
  }

  // The `width` inputs behind `here`, to as many sums ahead.
  void square_of_products(std::int64_t here, std::int64_t width) const {
    for (std::int64_t ahead = 0; ahead < width; ahead += kGroup) {
      V sums[kGroup];
#pragma GCC unroll 8
      for (int i = 0; i < kGroup; ++i) sums[i] = load(row(here + ahead + i));
      for (std::int64_t behind = kGroup; behind <= width; behind += kGroup) {
        const T* inputs = row(here - behind);
        const T* first = tap(ahead + behind - (kGroup - 1));
        V u[kGroup];
#pragma GCC unroll 8
        for (int i = 0; i < kGroup; ++i) u[i] = load(inputs + i * pitch);
#pragma GCC unroll 16
        for (int lag = 0; lag < 2 * kGroup - 1; ++lag) {
          const V now = load(first + lag * pitch);
#pragma GCC unroll 8
          for (int i = 0; i < kGroup; ++i) {
            const int from = i + kGroup - 1 - lag;  // i - from = lag - (kGroup - 1)
            if (from >= 0 && from < kGroup) sums[i] += now * u[from];
          }
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < kGroup; ++i) store(row(here + ahead + i), sums[i]);
    }
  }

  void square_of_spectra(std::int64_t here, std::int64_t width, const FilterView<T>& filter,
                         const T* spectrum, T* scratch) const {
    const T* inputs = row(here - width);
    T* sums = row(here);
    const std::int64_t left = rows - here;
    RingAcross<T>(filter.roots())
        .multiply(
            scratch, width, spectrum, [&](std::int64_t j) { return load(inputs + j * pitch); },
            [&](std::int64_t j, V sum) {
              if (j < left) store(sums + j * pitch, load(sums + j * pitch) + sum);
            });
  }
};

// ---- the call ------------------------------------------------------------------------------------------

// The width of the square that ends before `here`; 0: there is none.
inline std::int64_t square_width(const LongConvStep& n, std::int64_t here) {
  const std::int64_t width = here & -here;
  if (width < kGroup || here >= n.rows) return 0;
  return width < kBlock ? width : std::min(width, n.filter.widest);
}

// Vectors that go through arithmetic, roughly, for one column.
inline std::int64_t work(const LongConvStep& n) {
  std::int64_t total = 0;
  const auto add = [&](std::int64_t here) {
    if (const std::int64_t width = square_width(n, here))
      total += width < kBlock ? width * width : 4 * width * (63 - __builtin_clzll(std::uint64_t(width)));
  };
  if (!n.tokens) add(n.position);
  for (std::int64_t t = 1; t <= n.tokens; ++t) total += kGroup, add(n.position + t);
  return total;
}
inline std::int64_t widest_square(const LongConvStep& n) {
  std::int64_t widest = n.tokens ? 0 : square_width(n, n.position);
  for (std::int64_t t = 1; t <= n.tokens; ++t) widest = std::max(widest, square_width(n, n.position + t));
  return widest < kBlock ? 0 : widest;
}

template <class S>
class Steps {
  using T = typename Arithmetic<S>::type;
  static constexpr int W = kLanes<T>;
  using V = Vec<T>;

 public:
  Steps(const LongConvStep& n, const LongConvStepTensors& a)
      : n_(n), a_(a), filter_{&n_.filter, static_cast<T*>(const_cast<void*>(a.filter))} {}

  void run(void* scratch, int threads, cpu::Parallel parallel) const {
    constexpr std::int64_t kWorth = 1000000;  // vectors, about 0.7 ms, for which to wake another thread
    const std::int64_t columns = n_.batch * filter_.vectors();
    const int useful = int(std::min<std::int64_t>({threads, columns, 1 + columns * work(n_) / kWorth}));
    const std::int64_t widest = widest_square(n_);
    const Team team{parallel, useful};
    team(useful, [&](std::int64_t slot) {
      T* points = static_cast<T*>(scratch) + slot * widest * 2 * W;
      // Samples that share a filter follow each other: its spectrum is in cache.
      for (std::int64_t i = columns * slot / useful; i < columns * (slot + 1) / useful; ++i)
        column(i % n_.batch, i / n_.batch, points);
    });
  }

 private:
  void column(std::int64_t batch, std::int64_t vector, T* points) const {
    const std::int64_t first = vector * W;
    const Lanes lanes{batch + first / n_.channels, first % n_.channels,
                      int(std::min<std::int64_t>(W, n_.filter.channels - first))};
    const std::int64_t pitch = filter_.pitch();
    const Column<T> column{static_cast<T*>(a_.buffer) + batch * n_.rows * pitch + first, filter_.taps(vector),
                           pitch, n_.rows};
    for (std::int64_t t = 0; t < n_.tokens; ++t) {
      V u = read(a_.x, lanes, t);
      if (a_.pre_gate) u = u * read(a_.pre_gate, lanes, t);
      V y = column.token(n_.position + t, u);
      if (a_.post_gate) y = y * read(a_.post_gate, lanes, t);
      write(y, lanes, t);
      square(column, n_.position + t + 1, vector, points);
    }
    if (!n_.tokens) square(column, n_.position, vector, points);
  }
  void square(const Column<T>& column, std::int64_t here, std::int64_t vector, T* points) const {
    const std::int64_t width = square_width(n_, here);
    if (!width) return;
    if (width < kBlock) column.square_of_products(here, width);
    else column.square_of_spectra(here, width, filter_, filter_.spectrum(vector, width), points);
  }

  // The channels of a column, from `channel` of `sample` on; where samples have filters of their own, from
  // some of the samples after it too.
  struct Lanes {
    std::int64_t sample, channel;
    int count;
  };
  template <class Void>
  static auto at(const Array<Void>& a, std::int64_t sample, std::int64_t channel, std::int64_t t) {
    using Pointer = std::conditional_t<std::is_const_v<Void>, const S*, S*>;
    return static_cast<Pointer>(a.data) + sample * a.batch + channel * a.channel + t * a.position;
  }
  template <class Void>
  bool together(const Array<Void>& a, const Lanes& lanes) const {
    return a.channel == 1 && (lanes.channel + lanes.count <= n_.channels || a.batch == n_.channels);
  }
  template <class Void, class F>
  void each(const Array<Void>& a, const Lanes& lanes, std::int64_t t, F f) const {
    std::int64_t sample = lanes.sample, channel = lanes.channel;
    for (int i = 0; i < lanes.count; ++i) {
      f(i, at(a, sample, channel, t));
      if (++channel == n_.channels) ++sample, channel = 0;
    }
  }
  V read(const Input& a, const Lanes& lanes, std::int64_t t) const {
    if (together(a, lanes)) {
      const S* p = at(a, lanes.sample, lanes.channel, t);
      return lanes.count == W ? load(p) : load_some<T>(p, lanes.count);
    }
    T values[W] = {};
    each(a, lanes, t, [&](int i, const S* p) { values[i] = widen(*p); });
    return load(values);
  }
  void write(V y, const Lanes& lanes, std::int64_t t) const {
    if (together(a_.y, lanes)) {
      S* p = at(a_.y, lanes.sample, lanes.channel, t);
      return lanes.count == W ? store(p, y) : store_some<T>(p, y, lanes.count);
    }
    T values[W];
    store(values, y);
    each(a_.y, lanes, t, [&](int i, S* p) { narrow(p, values[i]); });
  }

  LongConvStep n_;
  LongConvStepTensors a_;
  FilterView<T> filter_;
};

// ---- the filter ----------------------------------------------------------------------------------------

template <class T>
void prepare_as(const StepFilter& size, const Input& taps, std::int64_t count, T* prepared,
                const Team& team) {
  constexpr int W = kLanes<T>;
  const FilterView<T> filter{&size, prepared};
  RingAcross<T>::fill(filter.roots(), size.widest);
  team(filter.vectors(), [&](std::int64_t vector) {
    const auto tap = [&](std::int64_t channel, std::int64_t j) {
      return channel < size.channels && j < count
                 ? static_cast<const T*>(taps.data)[channel * taps.channel + j * taps.position]
                 : T(0);
    };
    for (int j = 0; j < kBlock; ++j)
      for (int i = 0; i < W; ++i) filter.taps(vector)[j * filter.pitch() + i] = tap(vector * W + i, j);
    for (std::int64_t width = kBlock; width <= size.widest; width *= 2) {
      T* spectrum = filter.spectrum(vector, width);
      for (std::int64_t j = 0; j < width; ++j)
        for (int i = 0; i < W; ++i) {  // divided by width, a power of two, which the way back is not
          spectrum[2 * j * W + i] = tap(vector * W + i, j) / T(width);
          spectrum[(2 * j + 1) * W + i] = tap(vector * W + i, j + width) / T(width);
        }
      RingAcross<T>(filter.roots()).spectrum(spectrum, width);
    }
  });
}

// ---- the table -----------------------------------------------------------------------------------------

std::int64_t step_scratch(const LongConvStep& n, const LongConvStepTensors& a, int threads) {
  return threads * widest_square(n) * 2 *
         (a.dtype == DType::float64 ? kLanes<double> : kLanes<float>)*bytes_of(a.dtype);
}
void step(const LongConvStep& n, const LongConvStepTensors& a, void* scratch, int threads,
          cpu::Parallel parallel) {
  const FlushSubnormals flush;
  with_storage(n.tokens ? a.x.dtype : a.dtype, [&](auto* storage) {
    Steps<std::remove_pointer_t<decltype(storage)>>(n, a).run(scratch, threads, parallel);
  });
}
std::int64_t filter_scratch(const StepFilter&, const StepTaps&, int) { return 0; }
void filter(const StepFilter& size, const StepTaps& a, void*, int threads, cpu::Parallel parallel) {
  const FlushSubnormals flush;
  with_arithmetic(a.taps.dtype, [&](auto t) {
    prepare_as(size, a.taps, a.count, static_cast<decltype(t)*>(a.prepared), Team{parallel, threads});
  });
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const LongConvStepKernels long_conv_step;
const LongConvStepKernels long_conv_step = {step_scratch, step, filter_scratch, filter};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
