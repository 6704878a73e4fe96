#pragma once

#include <cstddef>
#include <memory>

namespace optiq {

/** Asks for huge pages where [memory, memory + bytes) spans whole ones of 2 MB:
 * a stream then needs a page walk per 2 MB instead of 4 KB. Advice, without
 * effect where the system has none. */
void advise_huge_pages(void* memory, std::size_t bytes);

/** Gives the whole pages inside [memory, memory + bytes) back to the system.
 * The memory stays usable; what it holds is undefined. */
void discard_pages(void* memory, std::size_t bytes);

/** Read-only bytes that are all zero. They take address space, and no memory.
 * Throws Exhausted. */
std::shared_ptr<const void> zero_pages(std::size_t bytes);

} // namespace optiq
