// cp.async: what a copy writes is garbage until its thread has waited for the copy's group.
#include <cstring>

#include "internal.h"

namespace cuda_on_cpu {

void cp_async(void* shared, const void* global, std::size_t bytes, std::size_t read) {
  const void* const pc = __builtin_return_address(0);
  const Site site{nullptr, 0, pc};
  if (bytes != 4 && bytes != 8 && bytes != 16) fail(site, "cp.async of %zu bytes", bytes);
  if (read > bytes) fail(site, "cp.async reads %zu of %zu bytes", read, bytes);
  Fiber& f = *current;
  if (!is_shared(shared)) fail(site, "cp.async writes to %p, which is not in shared memory", shared);
  if (read && is_shared(global)) fail(site, "cp.async reads from %p, which is in shared memory", global);
  if (reinterpret_cast<std::uintptr_t>(shared) % bytes ||
      (read && reinterpret_cast<std::uintptr_t>(global) % bytes))
    fail(site, "cp.async of %zu bytes is misaligned (to %p, from %p)", bytes, shared, global);
  f.copies.push_back(
      {static_cast<unsigned char*>(shared), static_cast<const unsigned char*>(global), bytes, read, pc});
  ++f.open_group;
  if (hooks.async_issue) hooks.async_issue(f.copies.back());
  std::memset(shared, 0xff, bytes);
  if (read) {  // fails now if it must
    const volatile unsigned char* last = static_cast<const unsigned char*>(global) + read - 1;
    (void)*last;
  }
}

void cp_async_commit_group() {
  Fiber& f = *current;
  f.groups.push_back(f.open_group);
  f.open_group = 0;
}

void cp_async_wait_group(std::size_t pending) {
  Fiber& f = *current;
  std::size_t done = 0;
  while (f.groups.size() > pending) {
    for (std::uint32_t i = 0; i < f.groups.front(); ++i) {
      const Copy& c = f.copies[done++];
      if (c.read) std::memcpy(c.to, c.from, c.read);
      std::memset(c.to + c.read, 0, c.bytes - c.read);
      if (hooks.async_done) hooks.async_done(c);
    }
    f.groups.erase(f.groups.begin());
  }
  f.copies.erase(f.copies.begin(), f.copies.begin() + std::ptrdiff_t(done));
}

}  // namespace cuda_on_cpu
