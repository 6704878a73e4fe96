#pragma once

#include <filesystem>

/** Places that no result may take. Paths are resolved (resolve_output). */
namespace optiq {

/** Throws InvalidInput when a folder at `target` would be `source`, hold it or
 * the goal of a link in it, or lie in it, other than at `place_in_source`. */
void require_apart(
    const std::filesystem::path& target,
    const std::filesystem::path& source,
    const std::filesystem::path& place_in_source);

/** Throws InvalidInput when `target` is or holds the root, the home folder or
 * the working folder. */
void require_nobodys_place(const std::filesystem::path& target);

} // namespace optiq
