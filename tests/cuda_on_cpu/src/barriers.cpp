// Where threads meet: barriers of the block and of the grid, and what the lanes of a warp do together.
#include <cstring>

#include "internal.h"

namespace cuda_on_cpu {
namespace {

void release_block(Block& b) {
  const Fiber* first = nullptr;
  int count = 0, all = 1, any = 0;
  for (const Fiber* f : b.fibers) {
    if (f->state != State::wait_block) continue;
    if (!first) first = f;
    else if (!same_place(f->site, first->site))
      stop("divergent barrier: threads of one block wait at different barriers" + where(b));
    count += f->predicate != 0, all &= f->predicate != 0, any |= f->predicate != 0;
  }
  if (b.live != b.fibers.size())
    stop("barrier reached by some threads after others returned from the kernel" + where(b));
  b.barrier_result = count | all << 30 | any << 29;
  for (Fiber* f : b.fibers)
    if (f->state == State::wait_block) f->state = State::runnable, set_ready(b, f->tid);
  b.waiting = 0;
  if (hooks.block_sync) hooks.block_sync(b);
}

void finish_collective(Block& b, std::uint32_t w, std::uint32_t need, Op op, Combine combine) {
  Warp& warp = b.warps[w];
  if ((op == Op::mma || op == Op::ldmatrix) && need != 0xffffffffu)
    stop(std::string(name(op)) + " needs all 32 lanes of the warp" + where(b));
  Slot *in = warp.slots[warp.front], *out = warp.slots[warp.front ^ 1];
  if (combine) combine(need, in, out);
  else if (need == warp.live && !warp.mixed) warp.front ^= 1;  // publish the inputs by swapping
  else
    for (std::uint32_t bits = need; bits; bits &= bits - 1)
      out[__builtin_ctz(bits)] = in[__builtin_ctz(bits)];
  for (std::uint32_t bits = need; bits; bits &= bits - 1) {
    Fiber& f = *b.fibers[w * 32 + std::uint32_t(__builtin_ctz(bits))];
    f.state = State::runnable, f.met = need;
  }
  b.ready[w >> 1] |= std::uint64_t(need) << (w & 1) * 32;
  warp.waiting &= ~need;
  if (!warp.waiting) warp.mixed = false;
  if (op == Op::syncwarp && hooks.warp_sync) hooks.warp_sync(b, w, need);
}

// If every lane of `mask` waits in the same collective, run it and free them.
bool try_release_warp(Block& b, std::uint32_t w, std::uint32_t mask, Combine combine) {
  Warp& warp = b.warps[w];
  const std::uint32_t need = mask & warp.live;
  if (!need || (warp.waiting & need) != need) return false;
  Op op = warp.op;
  if (warp.mixed) {
    const Fiber* first = nullptr;
    for (std::uint32_t bits = need; bits; bits &= bits - 1) {
      const Fiber* f = b.fibers[w * 32 + std::uint32_t(__builtin_ctz(bits))];
      if (f->mask != mask) return false;
      if (!first) first = f, op = f->op;
      else if (f->op != first->op || !same_place(f->site, first->site))
        stop("divergent warp collective: lanes named in one mask meet at different operations" + where(b));
    }
  }
  finish_collective(b, w, need, op, combine);
  return true;
}

}  // namespace

int block_barrier(BarrierOp op, int predicate, Site site) {
  Fiber& self = *current;
  Block& b = *self.block;
  self.site = site, self.predicate = predicate, self.state = State::wait_block, self.spins = 0;
  clear_ready(b, self.tid);
  if (++b.waiting == b.live) {
    release_block(b);
    maybe_reschedule();
  } else {
    reschedule();
  }
  const int r = b.barrier_result;
  return op == BarrierOp::count ? r & 0xfffffff : op == BarrierOp::all ? r >> 30 & 1 : r >> 29 & 1;
}

// Whole warps meet: whoever of a warp comes later is waited for.
void named_barrier(int number, int threads, bool waits) {
  const Site site{nullptr, 0, __builtin_return_address(0)};
  Fiber& self = *current;
  Block& b = *self.block;
  if (number < 1 || number >= kNamedBarriers)
    fail(site, "barrier %d: a block has those from 1 to 15", number);
  NamedBarrier& barrier = b.named[std::size_t(number)];
  if (threads < 32 || threads % 32 || std::size_t(threads) > (b.fibers.size() + 31) / 32 * 32)
    fail(site, "barrier %d of %d threads: not a number of the block's whole warps", number, threads);
  if (!barrier.arrived.empty() && barrier.expected != std::uint32_t(threads))
    fail(site, "barrier %d of %d threads, where others have come to one of %u", number, threads,
         barrier.expected);
  barrier.expected = std::uint32_t(threads);
  barrier.arrived.push_back(self.tid);
  if (hooks.named_arrive) hooks.named_arrive(b, number);
  self.site = site, self.spins = 0;
  if (waits) self.state = State::wait_named, self.barrier = number, clear_ready(b, self.tid);
  if (barrier.arrived.size() < barrier.expected) return waits ? reschedule() : maybe_reschedule();
  if (hooks.named_sync) hooks.named_sync(b, number);
  for (Fiber* f : b.fibers)
    if (f->state == State::wait_named && f->barrier == number)
      f->state = State::runnable, set_ready(b, f->tid);
  barrier.arrived.clear();
  maybe_reschedule();
}

void grid_barrier(Site site) {
  Fiber& self = *current;
  if (!machine().cooperative) fail(site, "grid sync in a kernel that was not launched cooperatively");
  self.site = site, self.state = State::wait_grid, self.spins = 0;
  clear_ready(*self.block, self.tid);
  ++self.block->waiting_grid;
  reschedule();
}

// Nobody can run: if all wait for the grid, free them.
bool try_release_grid() {
  Machine& m = machine();
  std::uint32_t threads = 0, live = 0, at_grid = 0;
  const Block* missing = nullptr;
  for (auto& b : m.blocks) {
    threads += std::uint32_t(b->fibers.size()), live += b->live, at_grid += b->waiting_grid;
    if (b->live != b->fibers.size()) missing = b.get();
  }
  if (!at_grid || at_grid != live) return false;
  if (live != threads)
    stop("grid barrier reached by some threads after others returned\n  block " +
         std::to_string(missing->rank) + ":" + where(*missing));
  for (auto& b : m.blocks) {
    b->waiting_grid = 0;
    for (Fiber* f : b->fibers)
      if (f->state == State::wait_grid) f->state = State::runnable, set_ready(*b, f->tid);
  }
  if (hooks.grid_sync) hooks.grid_sync();
  return true;
}

const Slot* warp_collective(Op op, std::uint32_t mask, const void* in, std::size_t bytes, Combine combine,
                            Site site) {
  Fiber& self = *current;
  Block& b = *self.block;
  const std::uint32_t w = self.tid / 32, l = self.tid & 31;
  if (!(mask >> l & 1u))
    fail(site, "lane %u calls %s with mask %08x, which does not name it", l, name(op), mask);
  Warp& warp = b.warps[w];
  if (!warp.waiting) {
    warp.mask = mask, warp.op = op, warp.site = site;
  } else if (warp.mixed || warp.mask != mask || warp.op != op || warp.site.line != site.line ||
             warp.site.file != site.file || warp.site.pc != site.pc) {
    warp.mixed = true;
    for (std::uint32_t bits = warp.waiting; bits; bits &= bits - 1) {
      const std::uint32_t o = std::uint32_t(__builtin_ctz(bits));
      const Fiber* f = b.fibers[w * 32 + o];
      if (f->mask != mask && ((f->mask >> l & 1u) || (mask >> o & 1u)))
        fail(site, "lane %u calls %s with mask %08x while lane %u waits in %s with mask %08x", l, name(op),
             mask, o, name(f->op), f->mask);
    }
  }
  warp.waiting |= 1u << l;
  if (bytes) std::memcpy(warp.slots[warp.front][l].b, in, bytes);
  self.op = op, self.mask = mask, self.site = site, self.state = State::wait_warp, self.spins = 0;
  clear_ready(b, self.tid);
  if (try_release_warp(b, w, mask, combine)) maybe_reschedule();
  else reschedule();
  return b.warps[w].slots[b.warps[w].front ^ 1];
}

std::uint32_t met_lanes() { return current->met; }

void end_of_thread() {
  Fiber& self = *current;
  Block& b = *self.block;
  self.state = State::done;
  self.copies.clear(), self.groups.clear(), self.open_group = 0;
  clear_ready(b, self.tid);
  --b.live;
  const std::uint32_t w = self.tid / 32;
  b.warps[w].live &= ~(1u << (self.tid & 31));
  for (std::uint32_t bits = b.warps[w].live; bits; bits &= bits - 1) {  // complete without us?
    const Fiber* f = b.fibers[w * 32 + std::uint32_t(__builtin_ctz(bits))];
    if (f->state == State::wait_warp && (f->mask >> (self.tid & 31) & 1u) &&
        try_release_warp(b, w, f->mask, nullptr))
      break;
  }
  if (b.live && b.waiting == b.live) release_block(b);
  reschedule();
}

// A thread that does nothing but atomics may wait for another: let the others run now and then.
void spin() {
  Fiber& self = *current;
  if (++self.spins < 32) return;
  self.spins = 0;
  if (Fiber* f = pick(*self.block, self.tid); f && f != &self) return switch_to(self, *f);
  if (machine().cooperative)
    for (auto& other : machine().blocks)
      if (Fiber* f = other.get() == self.block ? nullptr : pick(*other, 0)) return switch_to(self, *f);
}

}  // namespace cuda_on_cpu
