// Which thread runs next.
#include <cstdlib>
#include <string>

#include "internal.h"

namespace cuda_on_cpu {
namespace {

Fiber* first_from(Block& b, std::uint32_t start) {  // next ready thread, cyclic, from `start`
  const std::uint32_t words = std::uint32_t(b.ready.size());
  std::uint32_t w = start >> 6;
  std::uint64_t bits = b.ready[w] & (~0ull << (start & 63));
  for (std::uint32_t i = 0; i <= words; ++i) {
    if (bits) return b.fibers[(w << 6) + std::uint32_t(__builtin_ctzll(bits))];
    w = w + 1 == words ? 0 : w + 1;
    bits = b.ready[w];
  }
  return nullptr;
}
Fiber* last_before(Block& b, std::uint32_t end) {
  const std::uint32_t words = std::uint32_t(b.ready.size());
  std::uint32_t w = end >> 6;
  std::uint64_t bits = b.ready[w] & ((1ull << (end & 63)) - 1);
  for (std::uint32_t i = 0; i <= words; ++i) {
    if (bits) return b.fibers[(w << 6) + 63u - std::uint32_t(__builtin_clzll(bits))];
    w = w == 0 ? words - 1 : w - 1;
    bits = b.ready[w];
  }
  return nullptr;
}

}  // namespace

// forward, reverse, random:SEED or warp:SEED
void set_schedule(const char* text) {
  const std::string s(text), name = s.substr(0, s.find(':'));
  Machine& m = machine();
  m.order = name == "reverse"  ? Order::reverse
            : name == "random" ? Order::random
            : name == "warp"   ? Order::warp
                               : Order::forward;
  m.seed = s.size() > name.size() ? std::strtoull(s.c_str() + name.size() + 1, nullptr, 0) : 0;
  m.launches = 0;
}

// A block's random order depends on nothing but the seed, the launch and the block.
void seed_random(std::uint64_t block) {
  Machine& m = machine();
  m.random = 0x9e3779b97f4a7c15ull ^ (m.seed * 0xbf58476d1ce4e5b9ull) ^ (m.launches * 0x94d049bb133111ebull) ^
             ((block + 1) * 0xd6e8feb86659fd93ull);
  if (!m.random) m.random = 1;
  for (int i = 0; i < 8; ++i) next_random();
}
std::uint64_t next_random() {
  std::uint64_t& x = machine().random;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return x;
}

void set_ready(Block& b, std::uint32_t t) { b.ready[t >> 6] |= 1ull << (t & 63); }
void clear_ready(Block& b, std::uint32_t t) { b.ready[t >> 6] &= ~(1ull << (t & 63)); }

Fiber* pick(Block& b, std::uint32_t after) {
  const std::uint32_t n = std::uint32_t(b.fibers.size());
  switch (machine().order) {
    case Order::forward: return first_from(b, after + 1 < n ? after + 1 : 0);
    case Order::reverse: return last_before(b, after);
    case Order::random: return first_from(b, std::uint32_t(next_random() % n));
    case Order::warp: {  // stay in this warp while it can run, so warps drift far apart
      const std::uint32_t w = after >> 5, word = w >> 1, shift = (w & 1) * 32;
      if (const std::uint32_t bits = std::uint32_t(b.ready[word] >> shift)) {
        const std::uint32_t r = std::uint32_t(next_random()) & 31u;
        const std::uint32_t rotated = (bits >> r) | (r ? bits << (32 - r) : 0);
        return b.fibers[w * 32 + ((r + std::uint32_t(__builtin_ctz(rotated))) & 31u)];
      }
      return first_from(b, std::uint32_t(next_random() % n) & ~31u);
    }
  }
  return nullptr;
}

void reschedule() {
  Machine& m = machine();
  Fiber& self = *current;
  Block& b = *self.block;
  if (Fiber* f = pick(b, self.tid)) return switch_to(self, *f);
  std::uint32_t live = 0;
  for (auto& other : m.blocks) live += other->live;
  if (live == 0) return to_main();
  if (m.cooperative) {
    for (int round = 0; round < 2; ++round) {
      for (auto& other : m.blocks)
        if (Fiber* f = pick(*other, 0)) return switch_to(self, *f);
      if (!try_release_grid()) break;
    }
    std::string all;
    for (auto& other : m.blocks)
      if (other->live) all += "\n  block " + std::to_string(other->rank) + ":" + where(*other);
    stop("deadlock: no thread of the grid can make progress" + all);
  }
  stop("deadlock: no thread of the block can make progress" + where(b));
}

void maybe_reschedule() {
  if (machine().order == Order::random || machine().order == Order::warp) reschedule();
}

}  // namespace cuda_on_cpu
