#include "optiq/base/pages.h"

#include <cstdint>

#include <sys/mman.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/system.h"

namespace optiq {
namespace {

/** madvise on the whole pages of `page` bytes inside a range. */
void advise_inside(
    void* memory,
    std::size_t bytes,
    std::uintptr_t page,
    int advice) {
  const auto start = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t first = (start + page - 1) / page * page;
  const std::uintptr_t last = (start + bytes) / page * page;
  if (first < last) {
    // Advice: everything is right without it too.
    (void)madvise(reinterpret_cast<void*>(first), last - first, advice);
  }
}

} // namespace

void advise_huge_pages(void* memory, std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  advise_inside(memory, bytes, std::uintptr_t{2} << 20, MADV_HUGEPAGE);
#else
  (void)memory;
  (void)bytes;
#endif
}

void discard_pages(void* memory, std::size_t bytes) {
  // Linux takes the pages at once; elsewhere that is only a hint.
#ifdef __linux__
  constexpr int kAdvice = MADV_DONTNEED;
#else
  constexpr int kAdvice = MADV_FREE;
#endif
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  advise_inside(memory, bytes, page, kAdvice);
}

std::shared_ptr<const void> zero_pages(std::size_t bytes) {
  void* memory = ::mmap(
      nullptr,
      bytes,
      PROT_READ,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
      -1,
      0);
  if (memory == MAP_FAILED) {
    require_ram(bytes, "zeros in the place of a matrix"); // it has the numbers
    fail(
        ErrorKind::Exhausted,
        "[zero_pages] the system refused {} bytes of address space. Raise the "
        "limit (ulimit -v)",
        bytes);
  }
  return {memory, [bytes](void* p) { ::munmap(p, bytes); }};
}

} // namespace optiq
