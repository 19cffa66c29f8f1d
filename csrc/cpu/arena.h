// Scratch memory, handed out in pieces.
#pragma once
#include <cstdint>

namespace {

// Hands out 64-byte aligned pieces of a buffer; from a null buffer it only measures.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(std::int64_t count) {
    const std::int64_t at = used_;
    used_ += (count * std::int64_t(sizeof(T)) + 63) / 64 * 64;
    return reinterpret_cast<T*>(base_ + at);
  }
  std::int64_t used() const { return used_; }

 private:
  char* base_;
  std::int64_t used_ = 0;
};

}  // namespace
