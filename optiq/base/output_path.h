#pragma once

#include <filesystem>

namespace optiq {

/**
 * Where a path that the user named leads: absolute, without links, "." and
 * "..", the same place for whoever checks it and whoever writes it. Links are
 * followed as the system does, also one whose end is not there yet. The end of
 * the path may be absent. Throws InvalidInput (an empty path, ".." behind what
 * is not there), NotFound (a file where a folder is needed), Denied, Io.
 */
std::filesystem::path resolve_output(const std::filesystem::path& named);

/** Whether resolved `path` is resolved `folder` or lies in it. */
bool is_within(
    const std::filesystem::path& path,
    const std::filesystem::path& folder);

} // namespace optiq
