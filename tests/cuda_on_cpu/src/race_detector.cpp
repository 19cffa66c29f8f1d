// The race detector: who touched each piece of memory last, and whether a barrier lies between. Also what
// reads memory that nothing has written, or that a copy has yet to write.
#include <link.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <set>

#include "analysis.h"

namespace cuda_on_cpu {
namespace {

constexpr unsigned kGranule = 2;  // bytes per shadow cell; no kernel here stores single bytes

struct Stamp {  // who touched a cell, and when
  const void* pc = nullptr;
  std::uint64_t time = 0;
  std::uint32_t block = 0, epoch = 0, clock = 0;
  std::uint16_t tid = 0, grid_epoch = 0;
  bool atomic = false, set = false;
};
struct Cell {
  std::uint32_t generation = 0;
  bool written = false, pending = false;  // pending: destination of an unfinished cp.async
  Stamp writer, reader[2];
};
struct Region {
  const unsigned char* lo;
  std::size_t bytes;
  std::vector<Cell> cells;
};

// What has been released to whoever holds this view: per block, everything before a barrier epoch,
// and everything single threads did up to a time. Built from __threadfence followed by an atomic.
struct Release {
  std::uint32_t epoch = 0;
  std::map<std::uint16_t, std::uint64_t> thread;
};
struct View {
  std::map<std::uint32_t, Release> of;
  void merge(const View& v) {
    for (auto& [b, r] : v.of) {
      Release& mine = of[b];
      mine.epoch = std::max(mine.epoch, r.epoch);
      for (auto& [t, time] : r.thread) mine.thread[t] = std::max(mine.thread[t], time);
    }
  }
  bool covers(const Stamp& s) const {
    const auto it = of.find(s.block);
    if (it == of.end()) return false;
    if (s.epoch < it->second.epoch) return true;
    const auto t = it->second.thread.find(s.tid);
    return t != it->second.thread.end() && s.time <= t->second;
  }
};
struct Thread {
  std::array<std::uint32_t, 32> clock{};
  View view;
  std::uint64_t fence = 0;
  std::uint32_t fence_epoch = 0;
};
struct BlockState {
  std::uint32_t epoch = 1;
  std::vector<Thread> threads;
  View view;                               // shared by the block's threads since a barrier
  std::array<View, kNamedBarriers> named;  // what those who have come to a named barrier bring
  std::uint32_t generation = 0;
  std::vector<Cell> dyn, stat;
};

auto& regions = *new std::map<const unsigned char*, std::unique_ptr<Region>>;
Region* last_region = nullptr;
auto& blocks = *new std::vector<BlockState>;
std::uint32_t launch_id = 0, generation = 0;
std::uint16_t grid_epoch = 0;
std::uint64_t now_time = 0;
auto& atomics = *new std::unordered_map<const void*, View>;  // what each location has been used to publish
auto& seen = *new std::set<std::array<const void*, 3>>;

// One report per pair of instructions; returns false when already reported.
bool fresh(const void* kind, const void* a, const void* b) {
  return seen.insert({kind, std::min(a, b), std::max(a, b)}).second;
}

BlockState& state(const Block& b) { return blocks[cooperative() ? b.rank : 0]; }

bool in_library(const void* p) {  // constants and literals of the kernel's own image
  static Range image = [] {
    Range r;
    dl_iterate_phdr(
        [](dl_phdr_info* i, std::size_t, void* d) {
          auto& out = *static_cast<Range*>(d);
          const auto here = reinterpret_cast<ElfW(Addr)>(&in_library);
          ElfW(Addr) lo = ~ElfW(Addr)(0), hi = 0;
          for (int k = 0; k < i->dlpi_phnum; ++k)
            if (i->dlpi_phdr[k].p_type == PT_LOAD) {
              lo = std::min(lo, i->dlpi_addr + i->dlpi_phdr[k].p_vaddr);
              hi = std::max(hi, i->dlpi_addr + i->dlpi_phdr[k].p_vaddr + i->dlpi_phdr[k].p_memsz);
            }
          if (here >= lo && here < hi)
            out = {reinterpret_cast<unsigned char*>(lo), reinterpret_cast<unsigned char*>(hi)};
          return 0;
        },
        &r);
    return r;
  }();
  return image.has(p);
}

Region* region_of(const unsigned char* p) {
  if (last_region && p >= last_region->lo && p < last_region->lo + last_region->bytes) return last_region;
  auto it = regions.upper_bound(p);
  if (it == regions.begin()) return nullptr;
  Region* r = std::prev(it)->second.get();
  return p < r->lo + r->bytes ? last_region = r : nullptr;
}

// The cells of a piece of memory: none outside of all that kernels may use.
struct Shadow {
  Cell* cells = nullptr;
  std::size_t offset = 0, size = 0;
  bool shared = true;
  std::uint32_t generation = 0;
};
Shadow shadow_of(const unsigned char* p) {
  BlockState& s = state(*current->block);
  const Range dynamic = dynamic_shared(*current->block);
  if (dynamic.has(p)) return {s.dyn.data(), std::size_t(p - dynamic.lo), dynamic.size(), true, s.generation};
  if (static_shared.has(p))
    return {s.stat.data(), std::size_t(p - static_shared.lo), static_shared.size(), true, s.generation};
  if (Region* r = region_of(p)) return {r->cells.data(), std::size_t(p - r->lo), r->bytes, false, launch_id};
  return {};
}
template <class F>
void for_cells(const Shadow& shadow, std::size_t bytes, F f) {
  for (std::size_t i = shadow.offset / kGranule; i <= (shadow.offset + bytes - 1) / kGranule; ++i)
    f(shadow.cells[i]);
}

bool ordered(const Stamp& before, const Fiber& f, const BlockState& s) {
  if (before.grid_epoch != grid_epoch) return true;
  if (before.block != f.block->rank) return s.view.covers(before) || s.threads[f.tid].view.covers(before);
  if (before.tid == f.tid || before.epoch != s.epoch) return true;
  const Thread& thread = s.threads[f.tid];
  if (before.tid / 32 == f.tid / 32 && thread.clock[before.tid % 32] >= before.clock) return true;
  return thread.view.covers(before);
}
void race(const Fiber& f, const Stamp& before, bool before_writes, Access a, const void* p, const void* pc,
          bool shared) {
  static const char tag = 0;
  if (!fresh(&tag, before.pc, pc)) return;
  report(std::string("data race on ") + (shared ? "shared" : "global") + " memory: " + name(a) +
         " by thread " + std::to_string(f.tid) + " at " + place(pc) + " and " +
         (before.atomic   ? "atomic"
          : before_writes ? "write"
                          : "read") +
         " by thread " + std::to_string(before.tid) +
         (before.block != f.block->rank ? " of block " + std::to_string(before.block) : "") + " at " +
         place(before.pc) +
         (before.block != f.block->rank ? " are not ordered: blocks run in any order ("
                                        : " have no barrier between them (") +
         describe(p) + ")");
}

void check(Cell& c, std::uint32_t gen, Access a, const unsigned char* p, const void* pc, bool shared,
           bool async = false) {
  const Fiber& f = *current;
  BlockState& s = state(*f.block);
  if (c.generation != gen) {
    const bool keep = !shared && c.written;  // contents survive launches, stamps do not
    c = Cell{};
    c.generation = gen, c.written = keep;
  }
  if (c.pending && !async) {
    static const char tag = 0;
    if (fresh(&tag, pc, nullptr))
      report(std::string(name(a)) + " of a cp.async destination before its wait, at " + place(pc));
  }
  if (a != Access::write && !c.written && !async) {
    static const char tag = 0;
    if (fresh(&tag, pc, nullptr))
      report(std::string(name(a)) + " of " + (shared ? "shared" : "global") +
             " memory that nothing has written, at " + place(pc));
  }
  const bool atomic = a == Access::atomic;
  if (c.writer.set && !(atomic && c.writer.atomic) && !ordered(c.writer, f, s))
    race(f, c.writer, true, a, p, pc, shared);
  if (a != Access::read)
    for (const Stamp& r : c.reader)
      if (r.set && !(atomic && r.atomic) && !ordered(r, f, s)) race(f, r, false, a, p, pc, shared);
  Stamp now;
  now.pc = pc, now.time = ++now_time, now.block = f.block->rank, now.epoch = s.epoch,
  now.clock = s.threads[f.tid].clock[f.tid % 32];
  now.tid = std::uint16_t(f.tid), now.grid_epoch = grid_epoch, now.atomic = atomic, now.set = true;
  if (a == Access::read) {
    Stamp& r0 = c.reader[0];
    if (!r0.set || ordered(r0, f, s)) r0 = now;
    else c.reader[1] = now;
  } else {
    c.writer = now, c.written = true;
    c.reader[0].set = c.reader[1].set = false;
  }
}

// Acquire what others published here; publish what this thread has fenced.
void synchronise(const void* p) {
  const Block& b = *current->block;
  BlockState& s = state(b);
  Thread& t = s.threads[current->tid];
  View& v = atomics[p];
  t.view.merge(v);
  if (!t.fence) return;
  v.merge(s.view), v.merge(t.view);
  Release& r = v.of[b.rank];
  r.epoch = std::max(r.epoch, t.fence_epoch);
  r.thread[std::uint16_t(current->tid)] = t.fence;
}

}  // namespace

const char* name(Access a) { return a == Access::read ? "read" : a == Access::write ? "write" : "atomic"; }

Memory detect_races(Access a, const unsigned char* p, std::size_t bytes, const void* pc) {
  const Shadow shadow = shadow_of(p);
  const auto what = [&] {
    return std::string(name(a)) + " of " + std::to_string(bytes) + " bytes at " + place(pc);
  };
  if (!shadow.cells) {
    if (a == Access::read && in_library(p)) return Memory::constant;
    stop("out of bounds: " + what() + ", " + describe(p));
  }
  if (shadow.offset + bytes > shadow.size)
    stop("out of bounds: " + what() + ", of which " + std::to_string(shadow.offset + bytes - shadow.size) +
         " are past the end, " + describe(p));
  if (reinterpret_cast<std::uintptr_t>(p) % bytes && (bytes & (bytes - 1)) == 0 && bytes <= 16) {
    static const char tag = 0;
    if (fresh(&tag, pc, nullptr)) report("misaligned " + what() + ", " + describe(p));
  }
  for_cells(shadow, bytes, [&](Cell& c) { check(c, shadow.generation, a, p, pc, shadow.shared); });
  if (a == Access::atomic) synchronise(p);
  return shadow.shared ? Memory::shared : Memory::global;
}

// ---- what the scheduler says ----------------------------------------------------------------------------

void detector_launch(std::uint32_t count) {
  ++launch_id, grid_epoch = 0, atomics.clear();
  blocks.assign(cooperative() ? count : 1, BlockState{});
}
void detector_block(const Block& b) {
  BlockState& s = state(b);
  s.epoch = 1, s.generation = ++generation, s.view.of.clear();
  for (View& brought : s.named) brought.of.clear();
  s.threads.assign(b.fibers.size(), Thread{});
  for (std::size_t t = 0; t < s.threads.size(); ++t) s.threads[t].clock[t % 32] = 1;
  s.dyn.resize(dynamic_shared(b).size() / kGranule + 1);
  s.stat.resize(static_shared.size() / kGranule + 1);
}
void detector_block_sync(const Block& b) {
  BlockState& s = state(b);
  ++s.epoch;
  for (Thread& t : s.threads)
    if (!t.view.of.empty()) s.view.merge(t.view), t.view.of.clear();
}
void detector_named_arrive(const Block& b, int number) {
  BlockState& s = state(b);
  View& brought = s.named[std::size_t(number)];
  brought.merge(s.threads[current->tid].view);
  brought.of[b.rank].thread[std::uint16_t(current->tid)] = ++now_time;
}
void detector_named_sync(const Block& b, int number) {
  BlockState& s = state(b);
  View& brought = s.named[std::size_t(number)];
  for (const std::uint32_t t : b.named[std::size_t(number)].arrived)
    if (b.fibers[t]->state == State::wait_named && b.fibers[t]->barrier == number)
      s.threads[t].view.merge(brought);
  brought.of.clear();
}
void detector_warp_sync(const Block& b, std::uint32_t w, std::uint32_t mask) {
  BlockState& s = state(b);
  std::array<std::uint32_t, 32> top{};
  for (std::uint32_t l = 0; l < 32; ++l)
    if (mask >> l & 1u)
      for (std::size_t i = 0; i < 32; ++i) top[i] = std::max(top[i], s.threads[w * 32 + l].clock[i]);
  for (std::uint32_t l = 0; l < 32; ++l)
    if (mask >> l & 1u) s.threads[w * 32 + l].clock = top, ++s.threads[w * 32 + l].clock[l];
}
void detector_grid_sync() { ++grid_epoch; }
void detector_fence() {
  BlockState& s = state(*current->block);
  Thread& t = s.threads[current->tid];
  t.fence = ++now_time, t.fence_epoch = s.epoch;
}
void detector_copy_issued(const Copy& c) {
  for_cells(shadow_of(c.to), c.bytes, [](Cell& cell) { cell.pending = true; });
}
void detector_copy_done(const Copy& c) {
  const Shadow shadow = shadow_of(c.to);
  for_cells(shadow, c.bytes, [&](Cell& cell) {
    cell.pending = false;
    check(cell, shadow.generation, Access::write, c.to, c.pc, shadow.shared, true);
  });
}
void detector_region(const void* p, std::size_t bytes) {
  auto r = std::make_unique<Region>();
  r->lo = static_cast<const unsigned char*>(p), r->bytes = bytes, r->cells.resize(bytes / kGranule + 1);
  regions[r->lo] = std::move(r);
}
void detector_region_gone(const void* p) {
  last_region = nullptr, regions.erase(static_cast<const unsigned char*>(p));
}
void detector_host_write(const void* to, std::size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(to);
  Region* r = bytes ? region_of(p) : nullptr;
  if (!r) return;
  for (std::size_t o = std::size_t(p - r->lo), i = o / kGranule; i <= (o + bytes - 1) / kGranule; ++i)
    r->cells[i].written = true;
}
void detector_reset() { seen.clear(); }

}  // namespace cuda_on_cpu
