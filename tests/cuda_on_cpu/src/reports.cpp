// What is said about a kernel that goes wrong, and by which thread.
#include <signal.h>
#include <sys/time.h>
#include <ucontext.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <dlfcn.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu {
namespace {

std::string text(uint3 i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}
std::string who() {
  return "kernel " + kernel_name(machine().kernel) + ", block " + text(blockIdx) + ", thread " +
         text(threadIdx);
}

std::string ranges(const std::vector<std::uint32_t>& t) {
  std::string s;
  for (std::size_t i = 0; i < t.size();) {
    std::size_t j = i;
    while (j + 1 < t.size() && t[j + 1] == t[j] + 1) ++j;
    s += (s.empty() ? "" : ",") + std::to_string(t[i]) + (j > i ? "-" + std::to_string(t[j]) : "");
    i = j + 1;
  }
  return s;
}

// The return addresses on the current fiber's stack, from a frame pointer on.
std::vector<const void*> callers(const void* frame) {
  std::vector<const void*> found;
  const Range stack{reinterpret_cast<unsigned char*>(current->stack),
                    reinterpret_cast<unsigned char*>(current->stack) + stack_bytes() - 16};
  const auto* at = static_cast<void* const*>(frame);
  while (stack.has(at) && found.size() < 64) {
    found.push_back(at[1]);
    const auto* next = static_cast<void* const*>(at[0]);
    if (next <= at) break;
    at = next;
  }
  return found;
}

[[noreturn]] void abandon(const std::string& message, const std::vector<const void*>& calls) {
  report(message + trace(calls));
  machine().failed = true;
  to_main();
  __builtin_unreachable();
}

// ---- crashes and endless loops: the signal's handler notes what happened and goes on in `crashed` --------

struct Crash {
  int signal = 0;
  const void* address = nullptr;
  std::vector<const void*> calls;
} crash;

alignas(16) char crash_stack[256 << 10];
alignas(16) char signal_stack[64 << 10];
const int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM};
struct sigaction before[5];
stack_t stack_before;

void crashed() {
  std::string what;
  switch (crash.signal) {
    case SIGFPE: what = "crash: arithmetic (division by zero)"; break;
    case SIGILL: what = "crash: illegal instruction (__trap, or an unreachable end of a function)"; break;
    case SIGVTALRM:
      what = "no end: a loop waits for what never happens (this launch has taken more than its share of " +
             std::to_string(machine().seconds) + " seconds)";
      break;
    default:
      const Range stack{reinterpret_cast<unsigned char*>(current->stack) - 4096,
                        reinterpret_cast<unsigned char*>(current->stack)};
      what = stack.has(crash.address)
                 ? "crash: the thread's stack is full (a recursion, or large local arrays)"
                 : "out of bounds: access to " + describe(crash.address);
  }
  abandon(what, crash.calls);
}

void on_signal(int signal, siginfo_t* info, void* context) {
  if (!current) {  // not in a kernel: as if we had not been here
    for (int i = 0; i < 5; ++i)
      if (kSignals[i] == signal && signal != SIGVTALRM) sigaction(signal, &before[i], nullptr);
    return;
  }
  auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto frame = reinterpret_cast<const void*>(registers[REG_RBP]);
  crash.signal = signal, crash.address = info->si_addr;
  crash.calls = callers(frame);
  crash.calls.insert(crash.calls.begin(), reinterpret_cast<const char*>(registers[REG_RIP]) + 1);
  registers[REG_RIP] = reinterpret_cast<greg_t>(&crashed);
  registers[REG_RSP] = reinterpret_cast<greg_t>(crash_stack + sizeof crash_stack - 8);
  registers[REG_RBP] = 0;
}

}  // namespace

const char* name(Op op) {
  switch (op) {
    case Op::syncwarp: return "__syncwarp";
    case Op::shuffle: return "a warp shuffle";
    case Op::vote: return "a warp vote";
    case Op::match: return "a warp match";
    case Op::reduce: return "a warp reduction";
    case Op::mma: return "mma";
    case Op::ldmatrix: return "ldmatrix";
    default: return "a warp collective";
  }
}

std::string where(const Block& b) {
  std::map<std::string, std::vector<std::uint32_t>> groups;
  for (const Fiber* f : b.fibers) {
    std::string s;
    char mask[16];
    std::snprintf(mask, sizeof mask, "%08x", f->mask);
    const bool placed = f->site.file || f->site.pc;
    const std::string at = placed ? " at " + place(f->site) : "";
    switch (f->state) {
      case State::runnable: s = "running" + (placed ? ", last" + at : ""); break;
      case State::wait_block: s = "waiting for the block" + at; break;
      case State::wait_named: {
        const NamedBarrier& barrier = b.named[std::size_t(f->barrier)];
        s = "waiting at barrier " + std::to_string(f->barrier) + ", where " +
            std::to_string(barrier.arrived.size()) + " of " + std::to_string(barrier.expected) +
            " threads are" + at;
        break;
      }
      case State::wait_warp:
        s = std::string("waiting in ") + name(f->op) + " (mask " + mask + ")" + at;
        break;
      case State::wait_grid: s = "waiting for the grid" + at; break;
      case State::done: s = "returned from the kernel" + (placed ? ", last" + at : ""); break;
    }
    groups[s].push_back(f->tid);
  }
  std::string s;
  for (auto& [what, threads] : groups) s += "\n    threads " + ranges(threads) + ": " + what;
  return s;
}

void report(const std::string& message) {
  const std::string line = "cuda_on_cpu: " + message + (current ? "\n    in " + who() : "") + "\n";
  machine().reports += line;
  if (!machine().quiet) std::fputs(line.c_str(), stderr);
}

void stop(const std::string& message) { abandon(message, callers(__builtin_frame_address(0))); }

void fail(Site site, const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  abandon(std::string(message) + " at " + place(site), callers(__builtin_frame_address(0)));
}

#if defined(__SANITIZE_ADDRESS__)

void watch_for_crashes() {
  // The sanitizers report the place and end the process; the last word names the thread.
  static const auto last_word = [] {
    if (!current) return;
    const void* p = __asan_report_present() ? __asan_get_report_address() : nullptr;
    std::fprintf(stderr, "cuda_on_cpu: %s%s\n    in %s\n", p ? "out of bounds: access to " : "stopped",
                 p ? describe(p).c_str() : "", who().c_str());
  };
  __sanitizer_set_death_callback([] { last_word(); });
  if (void* ubsan = dlopen("libubsan.so.1", RTLD_LAZY | RTLD_NOLOAD))  // has its own
    if (auto set = reinterpret_cast<void (*)(void (*)())>(dlsym(ubsan, "__sanitizer_set_death_callback")))
      set([] { last_word(); });
}
void stop_watching() {}

#else

void watch_for_crashes() {
  stack_t mine{};
  mine.ss_sp = signal_stack, mine.ss_size = sizeof signal_stack;
  sigaltstack(&mine, &stack_before);
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 5; ++i) sigaction(kSignals[i], &action, &before[i]);
  const itimerval limit{{0, 0}, {machine().seconds, 0}};
  setitimer(ITIMER_VIRTUAL, &limit, nullptr);
}
void stop_watching() {
  const itimerval none{};
  setitimer(ITIMER_VIRTUAL, &none, nullptr);
  for (int i = 0; i < 5; ++i) sigaction(kSignals[i], &before[i], nullptr);
  sigaltstack(&stack_before, nullptr);
}

#endif

}  // namespace cuda_on_cpu

// What a kernel's assert() calls, in the place of the C library's.
extern "C" void __assert_fail(const char* expression, const char* file, unsigned line, const char*) noexcept {
  using namespace cuda_on_cpu;
  if (current) fail({file, int(line)}, "assertion that does not hold: %s", expression);
  std::fprintf(stderr, "%s:%u: assertion that does not hold: %s\n", file, line, expression);
  std::abort();
}
