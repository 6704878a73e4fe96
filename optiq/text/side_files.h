#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "optiq/artifacts/json.h"

namespace optiq::text {

/** Text of a file of a model directory, by name; nothing when it is absent. */
using SideFiles = std::function<std::optional<std::string>(const char* name)>;

/** Those of a real directory. */
SideFiles side_files_of(const std::filesystem::path& directory);

/** A file that holds a JSON object; an empty one when it is absent. `where`
 * names the directory. Throws Corrupt. */
artifacts::Json read_side_object(
    const SideFiles& files,
    const std::filesystem::path& where,
    const char* name);

} // namespace optiq::text
