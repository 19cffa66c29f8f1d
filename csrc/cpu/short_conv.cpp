// short_conv on the CPU: a few taps along the sequence, channels apart.
//
// Bound by memory: everything is read once and written once, results that will not fit past the caches. Where
// channels are contiguous, vectors run along them (short_conv_columns.h), else along the sequence
// (short_conv_rows.h). Either way a sum begins with the bias and takes its taps in ascending order, so both,
// and the step, have the same bits.
#include "short_conv.h"

#include "short_conv_columns.h"
#include "short_conv_rows.h"

namespace {

using namespace equiconv;

template <class F>
void with_kind(Epilogue epilogue, F f) {
  switch (epilogue) {
    case Epilogue::none: return f(std::integral_constant<Kind, Kind::plain>{});
    case Epilogue::gated: return f(std::integral_constant<Kind, Kind::gated>{});
    default: return f(std::integral_constant<Kind, Kind::activated>{});
  }
}

// Whether vectors run along the channels of these arrays, of which those that exist are signals.
template <class... Arrays>
bool in_columns(const ShortConv& n, const Input& x, const Arrays&... others) {
  const auto contiguous = [&](const auto& a) { return !a || a.channel == n.parts; };
  return n.channels > 1 && contiguous(x) && (contiguous(others) && ...);
}

// Calls f with the kernel of a call, along rows or columns.
template <template <class, Kind> class Rows, template <class, Kind> class Columns, class Arrays, class F>
void with_kernel(const ShortConv& n, const Arrays& a, bool columns, int threads, cpu::Parallel parallel,
                 F f) {
  const Team team{parallel, threads};
  with_kind(n.epilogue, [&](auto kind) {
    if (columns)
      with_storage(a.x.dtype, [&](auto* storage) {
        f(Columns<std::remove_pointer_t<decltype(storage)>, kind()>(n, a, team));
      });
    else with_arithmetic(a.x.dtype, [&](auto t) { f(Rows<decltype(t), kind()>(n, a, team)); });
  });
}
template <class F>
void with_forward(const ShortConv& n, const ShortConvForward& a, int threads, cpu::Parallel parallel, F f) {
  with_kernel<ForwardRows, ForwardColumns>(n, a, in_columns(n, a.x, a.y, a.product), threads, parallel, f);
}
template <class F>
void with_backward(const ShortConv& n, const ShortConvBackward& a, int threads, cpu::Parallel parallel, F f) {
  const bool columns = in_columns(n, a.x, a.grad_out, a.grad_product, a.grad_x);
  with_kernel<BackwardRows, BackwardColumns>(n, a, columns, threads, parallel, f);
}

// ---- one position --------------------------------------------------------------------------------

// Channels [begin, end) of a sample.
template <class S, Kind K>
void step_channels(const ShortConv& n, const ShortConvStep& a, std::int64_t batch, std::int64_t begin,
                   std::int64_t end) {
  using T = typename Arithmetic<S>::type;
  constexpr int W = kLanes<T>;
  const int kept = n.taps - 1;
  for (std::int64_t c = begin; c < end; c += W) {
    const int count = int(std::min<std::int64_t>(W, end - c));
    // Vectors of channels, as everywhere: a plain loop over taps might round products before it adds them.
    T taps[kMaxTaps][W] = {}, values[kMaxTaps][W] = {}, p[W] = {};
    for (int i = 0; i < count; ++i) {
      const Taps<T> of(n, a.filter, a.bias, c + i);
      const S* x = static_cast<const S*>(a.x.data) + batch * a.x.batch + (c + i) * a.x.channel;
      const S* state =
          static_cast<const S*>(a.state.data) + batch * a.state.batch + (c + i) * a.state.channel;
      S* next = static_cast<S*>(a.next.data) + batch * a.next.batch + (c + i) * a.next.channel;
      p[i] = of.bias;
      for (int j = 0; j < n.taps; ++j) {
        taps[j][i] = of.tap[j];
        values[j][i] = widen(j ? state[(kept - j) * a.state.position] : *x);
      }
      for (int k = 0; k + 1 < kept; ++k) next[k * a.next.position] = state[(k + 1) * a.state.position];
      if (kept) next[(kept - 1) * a.next.position] = *x;
    }
    Vec<T> result[1] = {load(p)};
    for (int j = 0; j < n.taps; ++j) result[0] += load(taps[j]) * load(values[j]);
    finish<K, T>(n.epilogue, result);
    store(p, result[0]);
    S* y = static_cast<S*>(a.y.data) + batch * a.y.batch;
    for (int i = 0; i < count; ++i) narrow(y + (c + i) * a.y.channel, p[i]);
  }
}

// ---- the table -----------------------------------------------------------------------------------

std::int64_t forward_scratch(const ShortConv& n, const ShortConvForward& a, int threads) {
  std::int64_t bytes = 0;
  with_forward(n, a, threads, nullptr, [&](const auto& kernel) { bytes = kernel.scratch(); });
  return bytes;
}
std::int64_t backward_scratch(const ShortConv& n, const ShortConvBackward& a, int threads) {
  std::int64_t bytes = 0;
  with_backward(n, a, threads, nullptr, [&](const auto& kernel) { bytes = kernel.scratch(); });
  return bytes;
}
void forward(const ShortConv& n, const ShortConvForward& a, void* scratch, int threads,
             cpu::Parallel parallel) {
  const FlushSubnormals flush;
  with_forward(n, a, threads, parallel, [&](const auto& kernel) { kernel.run(scratch); });
}
void backward(const ShortConv& n, const ShortConvBackward& a, void* scratch, int threads,
              cpu::Parallel parallel) {
  const FlushSubnormals flush;
  with_backward(n, a, threads, parallel, [&](const auto& kernel) { kernel.run(scratch); });
}
std::int64_t step_scratch(const ShortConv&, const ShortConvStep&, int) { return 0; }
void step(const ShortConv& n, const ShortConvStep& a, void*, int threads, cpu::Parallel parallel) {
  const FlushSubnormals flush;
  constexpr std::int64_t kEach = 4096;  // values, whatever the number of threads
  const std::int64_t pieces = (n.channels + kEach - 1) / kEach;
  const bool worth_it = n.batch * n.channels > kEach;
  const Team team{parallel, worth_it ? threads : 1};
  with_kind(n.epilogue, [&](auto kind) {
    with_storage(a.x.dtype, [&](auto* storage) {
      using S = std::remove_pointer_t<decltype(storage)>;
      if constexpr (kStreams<kind()> == 1)
        team.ranges(n.batch * pieces, [&](std::int64_t first, std::int64_t last) {
          for (std::int64_t i = first; i < last; ++i) {
            const std::int64_t begin = i % pieces * kEach;
            step_channels<S, kind()>(n, a, i / pieces, begin, std::min(begin + kEach, n.channels));
          }
        });
    });
  });
}

}  // namespace

namespace equiconv::cpu::EQUICONV_CAPABILITY {
extern const ShortConvKernels short_conv;
const ShortConvKernels short_conv = {forward_scratch, backward_scratch, step_scratch,
                                     forward,         backward,         step};
}  // namespace equiconv::cpu::EQUICONV_CAPABILITY
