#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

/** What MappedFile and OutputFile tell and ask the guard of mappings. */
namespace optiq {

struct MappingSlot;

/** Whole pages that were mapped of a file. The slot is good until it is given
 * back. */
MappingSlot* register_mapping(
    std::span<const std::byte> pages,
    const std::filesystem::path& path);

/** Before the pages are unmapped. */
void unregister_mapping(MappingSlot* slot);

/** Lets go of the pages in memory of all mappings that are registered. They
 * come from their files again as they are touched, also while this runs. */
void drop_mapped_pages();

/** Throws Io naming the mapped file that these bytes are of, if they are. For
 * bytes that the system could not read (EFAULT). */
void fail_if_mapped(std::span<const std::byte> bytes);

} // namespace optiq
