// Launches: blocks one after another, the later half of many in a second process; all blocks of a
// cooperative launch together.
#include <cuda_runtime_api.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <set>

#include "internal.h"

namespace cuda_on_cpu {

Machine* const the_machine = new Machine;  // never destroyed: fibers may outlive what is static
Hooks hooks;
extern const int most_processes;  // 1 where kernels have variables of their own, which processes do not share

namespace {

auto& launched = *new std::set<const void*>;

void prepare(Block& b, std::uint32_t rank, std::uint32_t threads, std::size_t first_fiber) {
  b.rank = rank;
  b.idx = uint3{rank % gridDim.x, rank / gridDim.x % gridDim.y, rank / gridDim.x / gridDim.y};
  b.fibers.resize(threads);
  b.warps.resize((threads + 31) / 32);
  b.ready.assign((threads + 63) / 64, 0);
  for (auto& w : b.warps) w.live = w.waiting = 0, w.mixed = false;
  for (std::uint32_t t = 0; t < threads; ++t) {
    Fiber& f = fiber(first_fiber + t);
    b.fibers[t] = &f;
    f.block = &b, f.tid = t, f.state = State::runnable, f.site = {}, f.spins = 0;
    f.idx = uint3{t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
    b.warps[t / 32].live |= 1u << (t & 31);
    set_ready(b, t);
  }
  b.live = threads, b.waiting = b.waiting_grid = 0;
  for (auto& barrier : b.named) barrier.arrived.clear();
  if (const std::size_t bytes = machine().shared_bytes) {
    if (!b.shared && !(b.shared = allocate_shared(bytes))) std::abort();
    std::memset(b.shared, 0xff, bytes);
  }
  if (hooks.block_begin) hooks.block_begin(b);
}

void run_together(std::uint32_t count, std::uint32_t threads) {
  auto& blocks = machine().blocks;
  while (blocks.size() < count) blocks.push_back(std::make_unique<Block>());
  for (std::uint32_t r = 0; r < count; ++r) prepare(*blocks[r], r, threads, std::size_t(r) * threads);
  seed_random(0);
  run_from_main(*pick(*blocks[0], 0));
}

void run_block(std::uint32_t rank, std::uint32_t threads) {
  Machine& m = machine();
  if (m.blocks.empty()) m.blocks.push_back(std::make_unique<Block>());
  seed_random(rank);
  poison_static_shared();
  prepare(*m.blocks[0], rank, threads, 0);
  run_from_main(*pick(*m.blocks[0], m.order == Order::reverse ? 0 : threads - 1));
}

using Ranks = std::vector<std::uint32_t>;

// The later half in a process of its own. Of what goes wrong, only the first counts, as if they had
// run one after another.
void run_in_two_processes(const Ranks& ranks, std::size_t next, std::uint32_t threads) {
  Machine& m = machine();
  const std::size_t half = next + (ranks.size() - next) / 2;
  int ends[2];
  const bool piped = pipe(ends) == 0;
  const pid_t child = piped ? fork() : -1;
  const std::size_t end = child > 0 ? half : ranks.size();
  if (child == 0) {
    m.reports.clear(), m.quiet = true, next = half;
    watch_for_crashes();  // a child begins without the timer
  }
  for (; next < end && !m.failed; ++next) run_block(ranks[next], threads);
  if (child == 0) {
    m.reports += m.failed ? 'F' : 'S';
    std::size_t sent = 0;
    while (sent < m.reports.size()) {
      const ssize_t n = write(ends[1], m.reports.data() + sent, m.reports.size() - sent);
      if (n <= 0) _exit(1);
      sent += std::size_t(n);
    }
    _exit(0);
  }
  if (!piped) return;
  close(ends[1]);
  std::string said;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) said.append(buffer, std::size_t(n));
  close(ends[0]);
  if (child < 0) return;
  int status = 0;
  waitpid(child, &status, 0);
  if (m.failed) return;
  if (said.empty()) {
    report("a process of the emulator ended early");
    m.failed = true;
    return;
  }
  m.failed = said.back() == 'F';
  said.pop_back();
  m.reports += said;
  std::fputs(said.c_str(), stderr);
}

void run_one_by_one(std::uint32_t count, std::uint32_t threads) {
  Machine& m = machine();
  Ranks ranks(count);
  for (std::uint32_t i = 0; i < count; ++i) ranks[i] = m.order == Order::reverse ? count - 1 - i : i;
  if (m.order == Order::random || m.order == Order::warp) {
    seed_random(count);
    for (std::uint32_t i = count; i > 1; --i) std::swap(ranks[i - 1], ranks[next_random() % i]);
  }
  const auto start = std::chrono::steady_clock::now();
  const bool alone = !guarded() || std::min(m.processes, most_processes) < 2;
  for (std::uint32_t i = 0; i < count && !m.failed; ++i) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    if (!alone && i && spent.count() > 0.02 && spent.count() / i * (count - i) > 0.05)
      return run_in_two_processes(ranks, i, threads);
    run_block(ranks[i], threads);
  }
}

}  // namespace

int lane() { return int(current->tid & 31); }
bool cooperative() { return machine().cooperative; }
void note(Access a, const void* p, std::size_t bytes, const void* pc) {
  if (hooks.access) hooks.access(a, p, bytes, pc);
}

cudaError_t set_error(cudaError_t e) {
  if (e != cudaSuccess) machine().error = e;
  return e;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, Thunk thunk, void* args,
                   std::size_t args_bytes) {
  Machine& m = machine();
  const dim3 grid = config.gridDim, block = config.blockDim;
  const std::uint64_t threads = 1ull * block.x * block.y * block.z, count = 1ull * grid.x * grid.y * grid.z;
  if (current) stop("launch from inside a kernel");
  if (!threads || threads > 1024 || block.z > 64 || !count || count > 0xffffffffu || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535)
    return set_error(cudaErrorInvalidConfiguration);
  if (config.dynamicSmemBytes > dynamic_shared_limit(kernel)) return set_error(cudaErrorInvalidValue);
  m.cooperative = false;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    if (config.attrs[i].id == cudaLaunchAttributeCooperative)
      m.cooperative = config.attrs[i].val.cooperative != 0;
    else if (config.attrs[i].id != cudaLaunchAttributeIgnore) {
      report("launch attribute " + std::to_string(config.attrs[i].id) + " is not emulated");
      return set_error(cudaErrorNotSupported);
    }
  }
  int multiprocessors = 0;
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0);
  if (m.cooperative && count > std::uint64_t(multiprocessors))
    return set_error(cudaErrorCooperativeLaunchTooLarge);

  find_static_shared();
  parameters = {static_cast<unsigned char*>(args), static_cast<unsigned char*>(args) + args_bytes};
  gridDim = grid, blockDim = block;
  m.kernel = kernel, m.thunk = thunk, m.args = args, m.shared_bytes = config.dynamicSmemBytes;
  m.failed = false, m.resident = nullptr;
  ++m.launches;
  launched.insert(kernel);
  make_fibers(m.cooperative ? threads * count : threads);
  if (hooks.launch) hooks.launch(std::uint32_t(count), std::uint32_t(threads));
  watch_for_crashes();
  if (m.cooperative) run_together(std::uint32_t(count), std::uint32_t(threads));
  else run_one_by_one(std::uint32_t(count), std::uint32_t(threads));
  stop_watching();
  current = nullptr;
  if (hooks.launch_end) hooks.launch_end();
  for (auto& b : m.blocks) free_shared(b->shared);
  m.blocks.clear();
  check_allocations();
  if (!m.failed) return cudaSuccess;
  forget_fibers();
  return set_error(cudaErrorLaunchFailure);
}

}  // namespace cuda_on_cpu

// The kernels that have run, as offsets into this library.
extern "C" const char* cuda_on_cpu_launched() {
  static std::string text;
  text.clear();
  for (const void* kernel : cuda_on_cpu::launched) {
    char offset[32];
    std::snprintf(offset, sizeof offset, "%zx\n",
                  std::size_t(static_cast<const char*>(kernel) -
                              static_cast<const char*>(cuda_on_cpu::library_base())));
    text += offset;
  }
  return text.c_str();
}
