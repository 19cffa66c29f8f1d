// gate on a CPU.
//
//   y              = X a,        X = x + bias,  a = act⁽ⁿ⁾(u),  u = gate + gate_bias
//   grad x         = v a,        v = grad_out        grad bias      = the sum of grad x but along the
//   channels grad gate      = v X a',     a' = act⁽ⁿ⁺¹⁾(u)    grad gate_bias = that of grad gate
//
// A unit of work is a few rows (of all axes before the channels) of a block of channels; where channels are
// not the last axis, of a part of that axis. Vectors lie along the last axis, where the result is contiguous.
// What a unit sums goes to scratch and is added over the units in their order. Units depend on the sizes
// alone, and so do the bits.
//
// What bounds it is memory: 12 bytes an element forward, 20 backward, in float32. Results that the caches
// could not hold are stored past them.
#include "gate.h"

#include <algorithm>

#include "activations.h"
#include "storage.h"
#include "team.h"

namespace {

using namespace equiconv;

constexpr std::int64_t kBlock = 1024;           // channels whose biases and sums stay in the first cache
constexpr std::int64_t kPart = 8192;            // elements of a unit at least
constexpr std::int64_t kParts = 64;             // that a sum is cut into at most
constexpr std::int64_t kTerms = 32;             // that are added before their sum is added to the total
constexpr std::int64_t kPastCaches = 16 << 20;  // bytes of a result

// ---- how a call is cut ---------------------------------------------------------------------------
struct Unit {
  std::int64_t row, row_end, channel, channel_end;
  std::int64_t at, end;  // along the last axis, where that is not the channels'
  std::int64_t part;     // of the sums
};

struct Plan {
  explicit Plan(const Gate& size) : along(size.channel == size.axes - 1) {
    const auto product = [&](int begin, int end) {
      std::int64_t n = 1;
      for (int i = begin; i < end; ++i) n *= size.size[i];
      return n;
    };
    rows = product(0, size.channel), channels = size.size[size.channel];
    middle = along ? 1 : product(size.channel + 1, size.axes - 1);
    run = along ? 1 : size.size[size.axes - 1];
    run_parts = std::clamp<std::int64_t>(run / kPart, 1, kParts);
    const std::int64_t terms = rows * middle * run;  // of a sum
    row_parts = std::min({rows, kParts / run_parts, std::max<std::int64_t>(terms / 32, 1)});
    const std::int64_t each = along ? 1 : middle * run / run_parts;
    const std::int64_t width = std::clamp<std::int64_t>(kPart / std::max<std::int64_t>(each, 1), 1, kPart);
    blocks = (channels + width - 1) / width;
  }

  std::int64_t parts() const { return row_parts * run_parts; }
  std::int64_t units() const { return parts() * blocks; }
  Unit unit(std::int64_t i) const {
    const std::int64_t part = i / blocks, block = i % blocks, r = part / run_parts, p = part % run_parts;
    return {rows * r / row_parts,
            rows * (r + 1) / row_parts,
            first_channel(block),
            first_channel(block + 1),
            run * p / run_parts,
            run * (p + 1) / run_parts,
            part};
  }

  bool along;  // the channels are the last axis
  std::int64_t rows, channels, middle, run;
  std::int64_t row_parts, run_parts, blocks;

 private:
  // Whole vectors, of any type.
  std::int64_t first_channel(std::int64_t block) const {
    const std::int64_t width = ((channels + blocks - 1) / blocks + 63) / 64 * 64;
    return std::min(channels, along ? block * width : channels * block / blocks);
  }
};

// ---- rows ------------------------------------------------------------------------------------------
// The element at `index`, which counts axes [first, end) as one.
template <class Void>
std::int64_t offset_of(const GateArray<Void>& a, const Gate& size, int first, int end, std::int64_t index) {
  std::int64_t offset = 0;
  for (int i = end - 1; i > first; --i) {
    offset += index % size.size[i] * a.stride[i];
    index /= size.size[i];
  }
  return first < end ? offset + index * a.stride[first] : 0;
}

template <class S, class T>
EQUICONV_INLINE void stream_half(S* p, Vec<T> v) {
#if defined(__AVX512F__) || defined(__AVX2__)
  if (reinterpret_cast<std::uintptr_t>(p) % (kVectorBytes / 2) == 0) {
    alignas(kVectorBytes) S all[kLanes<T>];
    store(all, v);
#if defined(__AVX512F__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), *reinterpret_cast<const __m256i*>(all));
#else
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), *reinterpret_cast<const __m128i*>(all));
#endif
    return;
  }
#endif
  store(p, v);
}

// A row of a strided array, as vectors: `count` elements from `at` on, zeros after them; or, where it is
// contiguous, a `whole` one.
template <class S>
struct Read {
  using T = typename Arithmetic<S>::type;
  const S* first;
  std::int64_t stride;

  template <bool whole>
  EQUICONV_INLINE Vec<T> vector(std::int64_t at, std::int64_t count) const {
    if constexpr (whole) return load(first + at);
    else return some(at, int(std::min<std::int64_t>(count, kLanes<T>)));
  }

 private:
  __attribute__((noinline)) Vec<T> some(std::int64_t at, int count) const {
    if (stride == 0 && count == kLanes<T>) return splat(T(widen(*first)));
    T all[kLanes<T>] = {};
    for (int i = 0; i < count; ++i) all[i] = widen(first[(at + i) * stride]);
    return load(all);
  }
};

template <class S>
struct Write {
  using T = typename Arithmetic<S>::type;
  S* first;
  std::int64_t stride;
  bool past_caches;
  explicit operator bool() const { return first != nullptr; }

  template <bool whole>
  EQUICONV_INLINE void vector(std::int64_t at, std::int64_t count, Vec<T> v) const {
    if constexpr (!whole) some(at, int(std::min<std::int64_t>(count, kLanes<T>)), v);
    else if (!past_caches) store(first + at, v);
    else if constexpr (sizeof(S) == sizeof(T)) stream<S, T>(first + at, v);
    else stream_half<S, T>(first + at, v);
  }

 private:
  __attribute__((noinline)) void some(std::int64_t at, int count, Vec<T> v) const {
    for (int i = 0; i < count; ++i) narrow(first + (at + i) * stride, v[i]);
  }
};

// f(whole, at, count) for the vectors in [begin, end): `whole`, a constant, as far as rows are contiguous. No
// call is made there, and constants stay in registers.
template <class T, class F>
EQUICONV_INLINE void for_vectors(std::int64_t begin, std::int64_t end, bool contiguous, const F& f) {
  std::int64_t i = begin;
  if (contiguous)
    for (; i + kLanes<T> <= end; i += kLanes<T>) f(std::true_type{}, i, kLanes<T>);
  for (; i < end; i += kLanes<T>) f(std::false_type{}, i, end - i);
}

// A block of a bias, converted. Where there is none, -0, which changes nothing.
template <class T>
struct Bias {
  alignas(64) T value[kBlock];

  Bias(const GateBias& bias, std::int64_t begin, std::int64_t end) {
    const std::int64_t count = end - begin, vectors = (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    std::fill_n(value, vectors, T(-0.0));
    with_arithmetic_storage<T>(bias.dtype, [&](auto* storage) {
      if (!bias) return;
      using B = std::remove_pointer_t<decltype(storage)>;
      const B* from = static_cast<const B*>(bias.data) + begin * bias.stride;
      for (std::int64_t i = 0; i < count; ++i) value[i] = widen(from[i * bias.stride]);
    });
  }
};

// What goes along with the vectors of a row: a vector for each, where channels are lanes, or one for all.
template <class T>
struct Along {
  T* first;
  std::int64_t mask;  // all ones or 0
  EQUICONV_INLINE T* at(std::int64_t i) const { return first + (i & mask); }
};

// ---- the walk through a call, which forward and backward share ---------------------------------------
template <class S>
class Walk {
 public:
  using T = typename Arithmetic<S>::type;

  explicit Walk(const Gate& size) : size_(size), plan_(size) {
    std::int64_t bytes = sizeof(S);
    for (int i = 0; i < size.axes; ++i) bytes *= size.size[i];
    past_caches_ = bytes >= kPastCaches;
  }

  const Plan& plan() const { return plan_; }

  // f(unit) for all units, each with channels of one block only.
  template <class F>
  void units(const Team& team, F f) const {
    team(plan_.units(), [&](std::int64_t i) {
      Unit unit = plan_.unit(i);
      const std::int64_t end = unit.channel_end;
      for (; unit.channel < end; unit.channel = unit.channel_end) {
        unit.channel_end = std::min(unit.channel + kBlock, end);
        f(unit);
      }
      if (past_caches_) fence();
    });
  }

  // A place in a unit: vectors begin at (row, channel, middle, at).
  struct Place {
    std::int64_t row, channel, middle, at, count;
  };
  template <class F>
  EQUICONV_INLINE void places(const Unit& u, std::int64_t row, F f) const {
    const std::int64_t channels = u.channel_end - u.channel;
    for (std::int64_t c = 0; c < (plan_.along ? 1 : channels); ++c)
      for (std::int64_t m = 0; m < plan_.middle; ++m)
        f(Place{row, u.channel + c, m, u.at, plan_.along ? channels : u.end - u.at});
  }

  // Biases or sums of a unit's channels, at one of its places; `one` has room for a vector.
  Along<const T> along(const T* channels, T* one, std::int64_t channel) const {
    if (plan_.along) return {channels, -1};
    store(one, splat(channels[channel]));
    return {one, 0};
  }

  Read<S> read(const GateInput& a, const Place& p) const {
    return {static_cast<const S*>(a.data) + offset(a, p), a.stride[size_.axes - 1]};
  }
  Write<S> write(const GateOutput& a, const Place& p) const {
    if (!a) return {nullptr, 1, false};
    return {static_cast<S*>(a.data) + offset(a, p), a.stride[size_.axes - 1], past_caches_};
  }

 private:
  template <class Void>
  std::int64_t offset(const GateArray<Void>& a, const Place& p) const {
    const int last = size_.axes - 1;
    return offset_of(a, size_, 0, size_.channel, p.row) + p.channel * a.stride[size_.channel] +
           offset_of(a, size_, size_.channel + 1, last, p.middle) + (plan_.along ? 0 : p.at * a.stride[last]);
  }

  Gate size_;
  Plan plan_;
  bool past_caches_;
};

// ---- forward ---------------------------------------------------------------------------------------
template <class S, class Act>
void forward(const Gate& size, const GateForward& a, const Act& act, const Team& team) {
  using T = typename Arithmetic<S>::type;
  const Walk<S> walk(size);
  walk.units(team, [&](const Unit& unit) {
    const Bias<T> bias(a.bias, unit.channel, unit.channel_end),
        gate_bias(a.gate_bias, unit.channel, unit.channel_end);
    alignas(64) T one[2][kLanes<T>];
    for (std::int64_t row = unit.row; row < unit.row_end; ++row)
      walk.places(unit, row, [&](const auto& place) {
        const Read<S> x = walk.read(a.x, place), gate = walk.read(a.gate, place);
        const Write<S> y = walk.write(a.y, place);
        const std::int64_t channel = place.channel - unit.channel;
        const auto b = walk.along(bias.value, one[0], channel),
                   c = walk.along(gate_bias.value, one[1], channel);
        const bool contiguous = x.stride == 1 && gate.stride == 1 && y.stride == 1;
        for_vectors<T>(0, place.count, contiguous, [=](auto whole, std::int64_t i, std::int64_t left) {
          const Vec<T> u = gate.template vector<whole>(i, left) + load(c.at(i));
          const Vec<T> v = x.template vector<whole>(i, left) + load(b.at(i));
          y.template vector<whole>(i, left, v * act(u).value);
        });
      });
  });
}

// ---- backward ----------------------------------------------------------------------------------------

// What a unit adds up for its channels: the terms of a few rows, then their sums.
template <class T>
struct Sums {
  alignas(64) T some[kBlock];
  T* total;
  std::int64_t channels;

  Sums(T* total, std::int64_t channels) : total(total), channels(channels) {
    std::fill_n(some, kBlock, T(0));
    if (total) std::fill_n(total, channels, T(0));
  }
  void add_up() {
    if (!total) return;
    for (std::int64_t c = 0; c < channels; ++c) total[c] += some[c], some[c] = T(0);
  }
};

template <class S, class Act>
class Backward {
  using T = typename Arithmetic<S>::type;
  using Place = typename Walk<S>::Place;
  static constexpr std::int64_t W = kLanes<T>;

 public:
  Backward(const Gate& size, const GateBackward& a, const Act& act, void* scratch)
      : walk_(size), a_(a), act_(act), parts_(static_cast<T*>(scratch)) {}

  void run(const Team& team) const {
    const Plan& plan = walk_.plan();
    walk_.units(team, [&](const Unit& unit) {
      const std::int64_t channels = unit.channel_end - unit.channel;
      const Bias<T> bias(a_.bias, unit.channel, unit.channel_end),
          gate_bias(a_.gate_bias, unit.channel, unit.channel_end);
      Sums<T> of_x(a_.grad_bias ? part(0, unit.part) + unit.channel : nullptr, channels),
          of_gate(a_.grad_gate_bias ? part(1, unit.part) + unit.channel : nullptr, channels);
      alignas(64) T one[2][W];
      for (std::int64_t row = unit.row; row < unit.row_end; ++row) {
        walk_.places(unit, row, [&](const Place& place) {
          const std::int64_t channel = place.channel - unit.channel;
          const auto b = walk_.along(bias.value, one[0], channel),
                     c = walk_.along(gate_bias.value, one[1], channel);
          if (plan.along) return vectors(place, 0, place.count, b, c, {of_x.some, -1}, {of_gate.some, -1});
          for (std::int64_t begin = 0; begin < place.count; begin += kRun) {
            alignas(64) T lanes[2][W] = {};
            vectors(place, begin, std::min(begin + kRun, place.count), b, c, {lanes[0], 0}, {lanes[1], 0});
            of_x.some[channel] += sum<T>(load(lanes[0]));
            of_gate.some[channel] += sum<T>(load(lanes[1]));
          }
        });
        if ((row + 1 - unit.row) % kTerms == 0 || row + 1 == unit.row_end) of_x.add_up(), of_gate.add_up();
      }
    });
    if (a_.grad_bias) add_parts(a_.grad_bias, part(0, 0), plan, team);
    if (a_.grad_gate_bias) add_parts(a_.grad_gate_bias, part(1, 0), plan, team);
  }

 private:
  static constexpr std::int64_t kRun = 64 * W;  // elements whose lanes are summed at a time

  T* part(int which, std::int64_t part) const {
    const Plan& plan = walk_.plan();
    return parts_ + (which * plan.parts() + part) * plan.channels;
  }

  void vectors(const Place& place, std::int64_t begin, std::int64_t end, Along<const T> bias,
               Along<const T> gate_bias, Along<T> of_x, Along<T> of_gate) const {
    const Read<S> grad_out = walk_.read(a_.grad_out, place), x = walk_.read(a_.x, place),
                  gate = walk_.read(a_.gate, place);
    const Write<S> grad_x = walk_.write(a_.grad_x, place), grad_gate = walk_.write(a_.grad_gate, place);
    const bool sums = a_.grad_bias || a_.grad_gate_bias;
    const bool contiguous = grad_out.stride == 1 && x.stride == 1 && gate.stride == 1 && grad_x.stride == 1 &&
                            grad_gate.stride == 1;
    for_vectors<T>(begin, end, contiguous, [=, act = act_](auto whole, std::int64_t i, std::int64_t left) {
      const Vec<T> u = gate.template vector<whole>(i, left) + load(gate_bias.at(i));
      const Vec<T> v = x.template vector<whole>(i, left) + load(bias.at(i));
      const Vec<T> g = grad_out.template vector<whole>(i, left);
      const Values<T> at = act(u);
      Vec<T> to_x = g * at.value, to_gate = g * v * at.next;
      if (grad_x) grad_x.template vector<whole>(i, left, to_x);
      if (grad_gate) grad_gate.template vector<whole>(i, left, to_gate);
      if (!sums) return;
      if (left < W) to_x = first(to_x, left), to_gate = first(to_gate, left);
      store(of_x.at(i), load(of_x.at(i)) + to_x);
      store(of_gate.at(i), load(of_gate.at(i)) + to_gate);
    });
  }
  // A bias that is infinite makes NaNs of the lanes after a row's end too.
  static Vec<T> first(Vec<T> v, std::int64_t count) {
    for (std::int64_t i = count; i < W; ++i) v[i] = T(0);
    return v;
  }

  void add_parts(const GradGateBias& to, const T* first, const Plan& plan, const Team& team) const {
    with_arithmetic_storage<T>(to.dtype, [&](auto* storage) {
      auto* out = static_cast<decltype(storage)>(to.data);
      team.ranges(plan.channels, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t c = begin; c < end; ++c) {
          T total = 0;
          for (std::int64_t p = 0; p < plan.parts(); ++p) total += first[p * plan.channels + c];
          narrow(out + c * to.stride, total);
        }
      });
    });
  }

  Walk<S> walk_;
  GateBackward a_;
  Act act_;
  T* parts_;
};

// ---- the table -----------------------------------------------------------------------------------------

// Calls f with null pointers of the stored type and with the activation, or its derivatives, as a constant.
template <class F>
void with_types(const Gate& size, DType dtype, F f) {
  with_storage(dtype, [&](auto* storage) {
    using T = typename Arithmetic<std::remove_pointer_t<decltype(storage)>>::type;
    if (size.order) return f(storage, Derivatives<T>(size.activation, size.order));
    switch (size.activation) {
      case Activation::identity: return f(storage, Activated<T, Activation::identity>{});
      case Activation::sigmoid: return f(storage, Activated<T, Activation::sigmoid>{});
      case Activation::silu: return f(storage, Activated<T, Activation::silu>{});
      case Activation::gelu: return f(storage, Activated<T, Activation::gelu>{});
      case Activation::relu: return f(storage, Activated<T, Activation::relu>{});
      case Activation::tanh: return f(storage, Activated<T, Activation::tanh>{});
    }
  });
}

std::int64_t forward_scratch(const Gate&, const GateForward&, int) { return 0; }
std::int64_t backward_scratch(const Gate& size, const GateBackward& a, int) {
  if (!a.grad_bias && !a.grad_gate_bias) return 0;
  const Plan plan(size);
  return 2 * plan.parts() * plan.channels * (a.x.dtype == DType::float64 ? 8 : 4);
}
void forward(const Gate& size, const GateForward& a, void*, int threads, cpu::Parallel parallel) {
  const FlushSubnormals flush;
  with_types(size, a.x.dtype, [&](auto* storage, const auto& act) {
    forward<std::remove_pointer_t<decltype(storage)>>(size, a, act, Team{parallel, threads});
  });
}
void backward(const Gate& size, const GateBackward& a, void* scratch, int threads, cpu::Parallel parallel) {
  const FlushSubnormals flush;
  with_types(size, a.x.dtype, [&]<class S, class Act>(S*, const Act& act) {
    Backward<S, Act>(size, a, act, scratch).run(Team{parallel, threads});
  });
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const GateKernels gate;
const GateKernels gate = {forward_scratch, backward_scratch, forward, backward};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
