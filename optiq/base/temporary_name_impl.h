#pragma once

#include <filesystem>
#include <string>
#include <vector>

/** Names "<prefix><pid>-<n>" of files and folders that are not done yet: who
 * made one shows, so that those of the dead can be removed. */
namespace optiq {

/** Prefix of the temporaries of a file. */
std::string temporary_prefix(const std::filesystem::path& file);

/** Different on every call. */
std::string unique_name(const std::string& prefix);

/** Entries of `folder` with such a name whose process is another one and is
 * gone, sorted. */
std::vector<std::filesystem::path> leftovers(
    const std::filesystem::path& folder,
    const std::string& prefix);

} // namespace optiq
