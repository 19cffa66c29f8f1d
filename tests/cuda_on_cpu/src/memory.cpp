// The memory that kernels use: what belongs to it, and what lies near an address that does not.
//
// The fast build puts every allocation between pages that cannot be touched. The address sanitizer and the
// race detector watch bounds themselves.
#include <cuda_runtime_api.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "internal.h"

namespace cuda_on_cpu {

Range static_shared, parameters;

#if defined(__SANITIZE_ADDRESS__)
bool guarded() { return false; }
#else
bool guarded() { return !hooks.access; }
#endif

namespace {

struct Allocation {
  std::size_t bytes;
  std::string name;
};
auto& allocations = *new std::map<const unsigned char*, Allocation>;  // global memory, by where it begins
std::uint64_t made = 0;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kGuard = 1 << 20;  // bytes that cannot be touched, before and after
constexpr unsigned char kAfter = 0xa5;   // between the end of an allocation and the end of its last page

std::size_t pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Ends, as far as `alignment` allows, where the pages that cannot be touched begin. Shared with a forked
// process, unless private.
unsigned char* allocate(std::size_t bytes, std::size_t alignment, bool shared_with_fork) {
  if (!guarded()) {
    void* p = nullptr;
    return posix_memalign(&p, alignment, bytes ? bytes : 1) ? nullptr : static_cast<unsigned char*>(p);
  }
  const std::size_t used = pages(bytes), all = used + 2 * kGuard;
  const int flags = MAP_ANONYMOUS | MAP_NORESERVE | (shared_with_fork ? MAP_SHARED : MAP_PRIVATE);
  void* map = mmap(nullptr, all, PROT_NONE, flags, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  auto* first = static_cast<unsigned char*>(map) + kGuard;
  if (used) mprotect(first, used, PROT_READ | PROT_WRITE);
  return first + (used - bytes) / alignment * alignment;
}
void release(const unsigned char* p, std::size_t bytes) {
  if (!guarded()) return std::free(const_cast<unsigned char*>(p));
  auto* first = reinterpret_cast<unsigned char*>(reinterpret_cast<std::uintptr_t>(p) / kPage * kPage);
  munmap(first - kGuard, pages(bytes) + 2 * kGuard);
}
// What may follow an allocation on its last page.
Range rest(const unsigned char* p, std::size_t bytes) {
  if (!guarded() || !bytes) return {};
  const auto* first = reinterpret_cast<unsigned char*>(reinterpret_cast<std::uintptr_t>(p) / kPage * kPage);
  return {p + bytes, first + pages(bytes)};
}

std::string relative(const unsigned char* p, Range r, const std::string& what) {
  const std::string size = std::to_string(r.size()) + " bytes of " + what;
  if (r.has(p)) return "byte " + std::to_string(p - r.lo) + " of the " + size;
  if (p >= r.hi) return std::to_string(p - r.hi) + " bytes past the end of the " + size;
  return std::to_string(r.lo - p) + " bytes before the " + size;
}

}  // namespace

// ---- shared memory ----------------------------------------------------------------------------------

unsigned char* allocate_shared(std::size_t bytes) {
  // 16 bytes is all that a kernel may rely on; counts of bank conflicts need the banks in their place.
  return bytes ? allocate(bytes, guarded() ? 16 : 1024, false) : nullptr;
}
void free_shared(unsigned char* p) {
  if (p) release(p, machine().shared_bytes);
}
Range dynamic_shared(const Block& b) { return {b.shared, b.shared + machine().shared_bytes}; }

// Static shared memory is the thread-local segment of the library that this code is part of.
void find_static_shared() {
  static thread_local char anchor[0];  // brings the segment into being, without being part of it
  asm volatile("" ::"r"(anchor) : "memory");
  static_shared = {};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void*) {
        const auto here = reinterpret_cast<ElfW(Addr)>(&find_static_shared);
        bool mine = false;
        const ElfW(Phdr)* tls = nullptr;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& p = info->dlpi_phdr[i];
          mine |= p.p_type == PT_LOAD && here - info->dlpi_addr - p.p_vaddr < p.p_memsz;
          if (p.p_type == PT_TLS) tls = &p;
        }
        if (mine && tls && info->dlpi_tls_data) {
          static_shared.lo = static_cast<unsigned char*>(info->dlpi_tls_data);
          static_shared.hi = static_shared.lo + tls->p_memsz;
        }
        return int(mine);
      },
      nullptr);
}
void poison_static_shared() {
#if !defined(__SANITIZE_ADDRESS__)
  if (static_shared.lo) std::memset(const_cast<unsigned char*>(static_shared.lo), 0xff, static_shared.size());
#endif
}
void make_resident(Block& b) {  // cooperative launches: static shared memory is swapped in and out
  Machine& m = machine();
  if (m.resident == &b) return;
  auto* lo = const_cast<unsigned char*>(static_shared.lo);
  const std::size_t n = static_shared.size();
  if (m.resident) m.resident->static_image.assign(lo, lo + n);
  if (n && b.static_image.size() == n) std::memcpy(lo, b.static_image.data(), n);
  else poison_static_shared();
  m.resident = &b;
}

bool is_global(const void* pointer) {
  const auto* p = static_cast<const unsigned char*>(pointer);
  const auto after = allocations.upper_bound(p);
  return after != allocations.begin() && p < std::prev(after)->first + std::prev(after)->second.bytes;
}
bool is_shared(const void* p) {
  if (dynamic_shared(*current->block).has(p)) return true;
#if defined(__SANITIZE_ADDRESS__)
  return !is_global(p);  // static shared memory is anywhere in the library's data
#else
  return static_shared.has(p);
#endif
}

void* dynamic_shared_base() { return current->block->shared; }

// ---- global memory ----------------------------------------------------------------------------------

// By what is nearest: in the builds without guards anything may lie beside anything.
std::string describe(const void* pointer) {
  const auto* p = static_cast<const unsigned char*>(pointer);
  Range nearest{};
  std::string name;
  const auto distance = [&](Range r) { return r.has(p) ? 0 : p >= r.hi ? p - r.hi + 1 : r.lo - p; };
  const auto consider = [&](Range r, const std::string& what) {
    if (r.lo && (!nearest.lo || distance(r) < distance(nearest))) nearest = r, name = what;
  };
  if (current) {
    consider(dynamic_shared(*current->block), "dynamic shared memory");
    consider(static_shared, "static shared memory");
  }
  for (const auto& [begin, a] : allocations) consider({begin, begin + a.bytes}, a.name);
  return nearest.lo ? relative(p, nearest, name) : "no memory of the device";
}

void check_allocations() {
  for (const auto& [begin, a] : allocations) {
    const Range after = rest(begin, a.bytes);
    const auto* written = std::find_if(after.lo, after.hi, [](unsigned char c) { return c != kAfter; });
    if (written == after.hi) continue;
    report("something was written " + describe(written) + " by this kernel; the race build says where");
    machine().failed = true;
    std::memset(const_cast<unsigned char*>(after.lo), kAfter, after.size());
  }
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;
extern "C" {
cudaError_t cudaMalloc(void** p, size_t bytes) {
  auto* begin = allocate(bytes, 256, true);
  if (!begin) return set_error(cudaErrorMemoryAllocation);
  std::memset(begin, 0xff, bytes);
  const Range after = rest(begin, bytes);
  if (after.lo) std::memset(const_cast<unsigned char*>(after.lo), kAfter, after.size());
  allocations[begin] = {bytes, "allocation " + std::to_string(++made)};
  if (hooks.region_add) hooks.region_add(begin, bytes);
  *p = begin;
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  if (!p) return cudaSuccess;
  const auto at = allocations.find(static_cast<unsigned char*>(p));
  if (at == allocations.end()) return set_error(cudaErrorInvalidValue);
  if (hooks.region_remove) hooks.region_remove(p);
  release(at->first, at->second.bytes);
  allocations.erase(at);
  return cudaSuccess;
}
// What reports call an allocation.
void cuda_on_cpu_name(const void* p, const char* name) {
  const auto at = allocations.find(static_cast<const unsigned char*>(p));
  if (at != allocations.end()) at->second.name = name;
}
}
