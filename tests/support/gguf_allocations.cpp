// Replaces operator new for this test program to remember the largest request.
#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/support/gguf_bytes.h"

namespace {

std::atomic<size_t> largest{0};

void* allocate(size_t size) {
  size_t seen = largest.load();
  while (size > seen && !largest.compare_exchange_weak(seen, size)) {
  }
  return std::malloc(size > 0 ? size : 1);
}

void* allocate_or_throw(size_t size) {
  if (void* memory = allocate(size)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// All forms, for a sanitizer checks that a pointer is freed the way it was made.
void* operator new(size_t size) {
  return allocate_or_throw(size);
}
void* operator new[](size_t size) {
  return allocate_or_throw(size);
}
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return allocate(size);
}
void* operator new[](size_t size, const std::nothrow_t&) noexcept {
  return allocate(size);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t) noexcept {
  std::free(memory);
}

namespace dsctl::tests {

size_t take_largest_allocation() {
  return largest.exchange(0);
}

}  // namespace dsctl::tests
