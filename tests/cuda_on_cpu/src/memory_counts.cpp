// The memory counts: per warp instruction, shared-memory wavefronts and global-memory sectors, and the
// fewest possible.
#include <algorithm>
#include <array>
#include <compare>
#include <cstdio>
#include <map>
#include <set>

#include "analysis.h"

namespace cuda_on_cpu {
namespace {

struct Logged {
  const void* pc;
  std::uintptr_t addr;
  std::uint8_t bytes;
  bool shared, write;
};
struct Instruction {  // cp.async is two at one place, a load and a store
  const void* pc;
  bool shared;
  auto operator<=>(const Instruction&) const = default;
};
struct Line {  // totals for one load or store instruction of one kernel
  bool shared = false, write = false;
  unsigned bytes = 0;
  std::uint64_t instructions = 0, units = 0, ideal = 0;
};

using Log = std::vector<std::vector<Logged>>;  // per thread of a block, since its warp last synchronised
auto& logs = *new std::vector<Log>;            // per block of a cooperative launch, else one
const Block* open_block = nullptr;             // the ordinary block whose log is not yet counted
std::size_t kernel = 0;                        // that runs, as its offset in this library
auto& lines = *new std::map<std::pair<std::size_t, Instruction>, Line>;  // of a kernel

Log& log_of(const Block& b) { return logs[cooperative() ? b.rank : 0]; }

// A bank serves one 4-byte word at a time, and as many lanes as want it; 8-byte accesses go in half warps,
// 16-byte ones in quarters. Ideal: 128 bytes at a time.
std::uint64_t wavefronts(const std::uintptr_t* addr, const bool* on, unsigned bytes, std::uint64_t& ideal) {
  const int lanes = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
  std::uint64_t total = 0, wanted = 0;
  for (int first = 0; first < 32; first += lanes) {
    std::array<std::vector<std::uintptr_t>, 32> bank;
    std::size_t most = 0;
    for (int l = first; l < first + lanes; ++l)
      if (on[l]) {
        wanted += bytes;
        for (unsigned o = 0; o < bytes; o += 4) {
          const std::uintptr_t word = (addr[l] + o) / 4;
          auto& v = bank[word % 32];
          if (std::find(v.begin(), v.end(), word) == v.end()) v.push_back(word);
          most = std::max(most, v.size());
        }
      }
    total += most;
  }
  ideal = (wanted + 127) / 128;
  return total;
}
std::uint64_t sectors(const std::uintptr_t* addr, const bool* on, unsigned bytes, std::uint64_t& ideal) {
  std::vector<std::uintptr_t> s, w;
  for (int l = 0; l < 32; ++l)
    if (on[l]) {
      for (std::uintptr_t a = addr[l] / 32; a <= (addr[l] + bytes - 1) / 32; ++a) s.push_back(a);
      w.push_back(addr[l]);
    }
  std::sort(s.begin(), s.end()), std::sort(w.begin(), w.end());
  const auto n = std::uint64_t(std::unique(s.begin(), s.end()) - s.begin());
  const auto distinct = std::uint64_t(std::unique(w.begin(), w.end()) - w.begin());
  ideal = (distinct * bytes + 31) / 32;
  return n;
}
struct Group {
  std::array<std::uintptr_t, 32> addr;
  bool on[32] = {};
  Logged sample;
};

}  // namespace

// The k-th execution of one instruction by each lane, since the warp last synchronised, is taken as one
// warp instruction.
void counts_warp_sync(const Block& b, std::uint32_t w) {
  Log& log_of_block = log_of(b);
  std::map<std::pair<Instruction, std::uint32_t>, Group> groups;
  for (std::uint32_t l = 0; l < 32 && w * 32 + l < log_of_block.size(); ++l) {
    std::map<Instruction, std::uint32_t> nth;
    auto& log = log_of_block[w * 32 + l];
    // The host compiler may split one vector access into neighbours; a GPU would not.
    std::size_t kept = 0;
    for (std::size_t i = 0; i < log.size(); ++i) {
      if (kept) {
        Logged& p = log[kept - 1];
        const Logged& e = log[i];
        const auto apart = static_cast<const char*>(e.pc) - static_cast<const char*>(p.pc);
        const unsigned both = unsigned(p.bytes) + e.bytes;
        if (apart > 0 && apart < 64 && p.write == e.write && p.shared == e.shared &&
            e.addr == p.addr + p.bytes && e.bytes <= p.bytes && both <= 16 &&
            p.addr % (both > 8   ? 16
                      : both > 4 ? 8
                                 : 4) ==
                0 &&
            place(p.pc) == place(e.pc)) {
          p.bytes = std::uint8_t(both);
          continue;
        }
      }
      log[kept++] = log[i];
    }
    log.resize(kept);
    for (const Logged& e : log) {
      const Instruction instruction{e.pc, e.shared};
      Group& g = groups[{instruction, nth[instruction]++}];
      g.addr[l] = e.addr, g.on[l] = true, g.sample = e;
    }
    log_of_block[w * 32 + l].clear();
  }
  for (auto& [key, g] : groups) {
    Line& line = lines[{kernel, key.first}];
    line.shared = g.sample.shared, line.write = g.sample.write, line.bytes = g.sample.bytes;
    std::uint64_t ideal = 0;
    const std::uint64_t units = g.sample.shared ? wavefronts(g.addr.data(), g.on, g.sample.bytes, ideal)
                                                : sectors(g.addr.data(), g.on, g.sample.bytes, ideal);
    ++line.instructions, line.units += units, line.ideal += ideal;
  }
}

void count_access(Access a, Memory memory, const void* p, std::size_t bytes, const void* pc) {
  auto& log = log_of(*current->block)[current->tid];
  log.push_back({pc, reinterpret_cast<std::uintptr_t>(p), std::uint8_t(bytes), memory == Memory::shared,
                 a == Access::write});
  if (log.size() > 1 << 16) log.clear();  // a warp that never synchronises
}

void counts_launch(std::uint32_t count) {
  kernel = std::size_t(static_cast<const char*>(machine().kernel) - static_cast<const char*>(library_base()));
  open_block = nullptr;
  logs.assign(cooperative() ? count : 1, {});
}
void counts_launch_end() {
  if (!cooperative() && open_block) counts_block_sync(*open_block);
  open_block = nullptr;
}
void counts_block(const Block& b) {
  if (!cooperative() && open_block) counts_block_sync(*open_block);
  open_block = &b;
  Log& log = log_of(b);
  log.resize(b.fibers.size());
  for (auto& l : log) l.clear();
}
void counts_block_sync(const Block& b) {
  for (std::uint32_t w = 0; w < b.warps.size(); ++w) counts_warp_sync(b, w);
}
void counts_named_sync(const Block& b, int number) {
  std::set<std::uint32_t> warps;
  for (const std::uint32_t t : b.named[std::size_t(number)].arrived) warps.insert(t / 32);
  for (const std::uint32_t w : warps) counts_warp_sync(b, w);
}
void counts_reset() { lines.clear(); }

}  // namespace cuda_on_cpu

// "kernel file:line memory kind bytes instructions units ideal" for each source line's accesses of one
// size, the kernel as its offset in this library. Shared: wavefronts; global: sectors.
extern "C" const char* cuda_on_cpu_memory_table() {
  using namespace cuda_on_cpu;
  std::map<std::string, std::array<std::uint64_t, 3>> merged;  // copies of one access made by unrolling
  for (auto& [key, l] : lines) {
    char row[256];
    std::snprintf(row, sizeof row, "%zx %s %s %s %u", key.first, place(key.second.pc).c_str(),
                  l.shared ? "shared" : "global", l.write ? "store" : "load", l.bytes);
    auto& [instructions, units, ideal] = merged[row];
    instructions += l.instructions, units += l.units, ideal += l.ideal;
  }
  static std::string table;
  table.clear();
  for (const auto& [row, counts] : merged) {
    table += row;
    for (const std::uint64_t count : counts) table += ' ' + std::to_string(count);
    table += '\n';
  }
  return table.c_str();
}
