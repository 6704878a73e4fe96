#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace optiq::artifacts {

/** JSON that keeps the order of keys. */
using Json = nlohmann::ordered_json;

/** What a JSON object that names a key twice means. */
enum class DuplicateKeys {
  KeepLast, // as Python's json reads it
  Refuse,
};

/**
 * How large a JSON text may be. Beside its text a value takes up to 256 bytes
 * of memory (three bytes of "[]," a hundred), so bytes alone bound nothing.
 */
struct JsonLimits {
  std::size_t max_bytes = 0; // of the text; of the strings of one member
  std::size_t max_values = 0; // of the text; of one member
};

/** Of config.json and its like, of one line of JSONL: ten times what published
 * models have. */
inline constexpr JsonLimits kConfigJson{16u << 20, 1u << 18};
/** Of a list with an entry per tensor or file of a model. */
inline constexpr JsonLimits kListJson{64u << 20, 1u << 20};
/** Of one tensor's entry in the header of a weights file, or its metadata. */
inline constexpr JsonLimits kMemberJson{16u << 20, 1u << 16};

/**
 * Parses JSON of untrusted origin: at most 200 levels deep, in time and memory
 * linear in its length. Throws Corrupt, naming `where` and the position, also
 * beyond the limits.
 */
Json parse_json(
    std::string_view text,
    const std::string& where,
    const JsonLimits& limits = kConfigJson,
    DuplicateKeys duplicates = DuplicateKeys::KeepLast);

/** Gets a member of an object when it is complete. */
using JsonMember = std::function<void(const std::string& name, Json&& value)>;

/**
 * Parses an object of untrusted origin member by member, so that its memory is
 * that of the text and of one member. A name that occurs twice inside a member
 * is refused; to compare the names of the members is up to `on_member`, who
 * keeps them. Throws as parse_json, also for what is no object, and what
 * `on_member` throws.
 */
void parse_json_members(
    std::string_view text,
    const std::string& where,
    const JsonLimits& of_a_member,
    const JsonMember& on_member);

/** Reads and parses a file. */
Json read_json_file(
    const std::filesystem::path& path,
    const JsonLimits& limits = kConfigJson);

/**
 * The text of a JSON file, newline at the end, always valid JSON. Numbers that
 * JSON cannot write become {"__float__": "Infinity"} (or "-Infinity", "NaN"),
 * as mlx-lm writes them; a string that is not UTF-8 (a path may be) has its
 * other bytes as "\xe9".
 */
std::string dump_json(const Json& value, int indent);

/** Undoes the tagging of dump_json. Throws Corrupt for an unknown tag. */
void decode_tagged_floats(Json& value, const std::string& where);

/** For messages: the value as JSON when it is a short scalar, else "a list",
 * "an object" or "a long string". */
std::string describe(const Json& value);

namespace detail {

[[noreturn]] void fail_missing(
    const std::string& where,
    const char* key,
    const std::string& expected);
[[noreturn]] void fail_type(
    const std::string& where,
    const char* key,
    const Json& found,
    const std::string& expected);

template <typename T>
inline constexpr bool kIsVector = false;
template <typename T>
inline constexpr bool kIsVector<std::vector<T>> = true;

/** What messages say of T. */
template <typename T>
std::string expected_name() {
  if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_integral_v<T>) {
    return "an integer from " + std::to_string(std::numeric_limits<T>::min()) +
        " to " + std::to_string(std::numeric_limits<T>::max());
  } else if constexpr (std::is_floating_point_v<T>) {
    return "a number";
  } else if constexpr (kIsVector<T>) {
    return "a list, each item " + expected_name<typename T::value_type>();
  } else {
    static_assert(std::is_same_v<T, std::string>);
    return "a string";
  }
}

/** The value as a T, or nothing when it is of another type or range. */
template <typename T>
std::optional<T> convert(const Json& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value.is_boolean() ? std::optional(value.get<bool>()) : std::nullopt;
  } else if constexpr (std::is_integral_v<T>) {
    if (value.is_number_unsigned()) {
      const auto number = value.get<std::uint64_t>();
      return std::in_range<T>(number) ? std::optional(static_cast<T>(number))
                                      : std::nullopt;
    }
    if (value.is_number_integer()) {
      const auto number = value.get<std::int64_t>();
      return std::in_range<T>(number) ? std::optional(static_cast<T>(number))
                                      : std::nullopt;
    }
    return std::nullopt;
  } else if constexpr (std::is_floating_point_v<T>) {
    return value.is_number() ? std::optional(value.get<T>()) : std::nullopt;
  } else if constexpr (kIsVector<T>) {
    if (!value.is_array()) {
      return std::nullopt;
    }
    T items;
    for (const Json& item : value) {
      auto converted = convert<typename T::value_type>(item);
      if (!converted) {
        return std::nullopt;
      }
      items.push_back(std::move(*converted));
    }
    return items;
  } else {
    return value.is_string() ? std::optional(value.get<std::string>())
                             : std::nullopt;
  }
}

} // namespace detail

/** Value at `key` converted to T (bool, an integer, a floating type, string or
 * a vector of these); throws Corrupt naming where, key, and the value found. */
template <typename T>
T required(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) {
    detail::fail_missing(where, key, detail::expected_name<T>());
  }
  auto value = detail::convert<T>(*found);
  if (!value) {
    detail::fail_type(where, key, *found, detail::expected_name<T>());
  }
  return std::move(*value);
}

/** As `required`, but `fallback` when the key is absent or null. */
template <typename T>
T optional_or(
    const Json& object,
    const char* key,
    const std::string& where,
    T fallback) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) {
    return fallback;
  }
  return required<T>(object, key, where);
}

/** The object at `key`; throws Corrupt as `required`. */
const Json&
required_object(const Json& object, const char* key, const std::string& where);

} // namespace optiq::artifacts
