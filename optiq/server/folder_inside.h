#pragma once

#include <filesystem>
#include <string>

namespace optiq::server {

/** Whether a path is another one, or below it; both absolute and normal. */
bool lies_in(
    const std::filesystem::path& path,
    const std::filesystem::path& folder);

/**
 * The folder that a client names, canonical: `path` is below `root` (which is
 * canonical) or relative to it. Throws Denied where it leads out of the root,
 * by "..", by a link, or by a link among its own entries, and NotFound where no
 * folder is. Outside of the root nothing is looked at but what links point to.
 */
std::filesystem::path folder_inside(
    const std::filesystem::path& root,
    const std::string& path);

} // namespace optiq::server
