#pragma once

// What one template takes: the CPU time of this process and the most memory
// that is allocated at one time. Defines `operator new`, so a test program
// includes it once.

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <ctime>
#include <new>
#include <string>

#include "optiq/base/error.h"
#include "optiq/text/chat_template.h"

namespace optiq::text {

struct Allocated {
  std::size_t now = 0;
  std::size_t most = 0;
};
inline Allocated allocated;

struct Measured {
  double seconds = 0;
  std::size_t bytes = 0;
  bool is_exhausted = false;
};

/** Parses and renders; any Error is an answer, another exception is not. */
inline Measured measure(
    const std::string& source,
    const RenderBudget& budget,
    const artifacts::Json& variables) {
  Measured measured;
  allocated.most = allocated.now;
  const std::size_t before = allocated.now;
  const std::clock_t start = std::clock();
  try {
    ChatTemplate::parse(source, "hostile.jinja").render(variables, budget);
  } catch (const Error& error) {
    measured.is_exhausted = error.kind() == ErrorKind::Exhausted;
  }
  measured.seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  measured.bytes = allocated.most - before;
  return measured;
}

} // namespace optiq::text

// Each block begins with its size, in as much room as keeps the alignment.
constexpr std::size_t kSizeRoom = alignof(std::max_align_t);

void* operator new(std::size_t size) {
  void* block = std::malloc(size + kSizeRoom);
  if (block == nullptr) {
    throw std::bad_alloc();
  }
  *static_cast<std::size_t*>(block) = size;
  auto& allocated = optiq::text::allocated;
  allocated.now += size;
  allocated.most =
      allocated.now > allocated.most ? allocated.now : allocated.most;
  return static_cast<char*>(block) + kSizeRoom;
}

// Of std::stable_sort's buffer; a sanitizer's own would not begin with a size.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void operator delete(void* at) noexcept {
  if (at != nullptr) {
    void* block = static_cast<char*>(at) - kSizeRoom;
    optiq::text::allocated.now -= *static_cast<std::size_t*>(block);
    std::free(block);
  }
}

void operator delete(void* at, std::size_t) noexcept {
  operator delete(at);
}
