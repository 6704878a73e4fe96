#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace optiq::artifacts {

/** JSON that keeps the order of keys. */
using Json = nlohmann::ordered_json;

/**
 * Parses JSON of untrusted origin: at most 200 levels deep, no duplicate
 * checks. Throws Corrupt, naming `where` and the position.
 */
Json parse_json(std::string_view text, const std::string& where);

/** Reads and parses a file of at most max_bytes. */
Json read_json_file(
    const std::filesystem::path& path,
    std::size_t max_bytes = 256u << 20);

/** Value at `key` converted to T; throws Corrupt naming where, key, and the
 * type found. */
template <typename T>
T required(const Json& object, const char* key, const std::string& where);

/** As `required`, but `fallback` when the key is absent or null. */
template <typename T>
T optional_or(
    const Json& object,
    const char* key,
    const std::string& where,
    T fallback);

} // namespace optiq::artifacts
