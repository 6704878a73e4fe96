#include "optiq/server/request_body.h"

#include <algorithm>

#include <fmt/format.h>

#include "optiq/server/request_error.h"

namespace optiq::server {
namespace {

using artifacts::Json;

// A prompt of half a million ids: 128 MB while it is read.
constexpr artifacts::JsonLimits kLimits{64u << 20, 1u << 19};
constexpr std::size_t kMaxShownNames = 16;
constexpr std::size_t kMaxShownName = 64; // bytes

bool has_zero(const Json& value) {
  if (value.is_string()) {
    return value.get_ref<const std::string&>().find('\0') != std::string::npos;
  }
  if (!value.is_structured()) {
    return false;
  }
  for (const auto& [name, item] : value.items()) {
    if (name.find('\0') != std::string::npos || has_zero(item)) {
      return true;
    }
  }
  return false;
}

/** What may stand in a header without a second thought. */
bool is_word(const std::string& name) {
  return !name.empty() && name.size() <= kMaxShownName &&
      std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return c < 0x80 && (std::isalnum(c) != 0 || c == '_' || c == '-');
      });
}

} // namespace

Json parse_body(std::string_view body, const std::string& where) {
  Json parsed;
  try {
    parsed = artifacts::parse_json(
        body, where, kLimits, artifacts::DuplicateKeys::Refuse);
  } catch (const Error& error) {
    refuse_field("", "invalid_json", error.what());
  }
  if (!parsed.is_object()) {
    refuse_field(
        "",
        "invalid_type",
        fmt::format(
            "[{}] the body: found {}, expected an object",
            where,
            artifacts::describe(parsed)));
  }
  for (const auto& [name, value] : parsed.items()) {
    if (name.find('\0') != std::string::npos || has_zero(value)) {
      refuse_field(
          name.c_str(), // up to the zero, if it is there
          "invalid_value",
          fmt::format(
              "[{}] {}: found a zero character, expected text without",
              where,
              name.c_str()));
    }
  }
  return parsed;
}

std::string ignored_members(const Json& body, const Schema& schema) {
  std::string names;
  std::size_t n_shown = 0;
  std::size_t n_others = 0;
  for (const auto& [name, value] : body.items()) {
    const bool is_known = std::any_of(
        schema.members.begin(),
        schema.members.end(),
        [&name = name](const Member& member) { return member.name == name; });
    if (is_known) {
      continue;
    }
    if (is_word(name) && n_shown < kMaxShownNames) {
      names += (names.empty() ? "" : ", ") + name;
      ++n_shown;
    } else {
      ++n_others;
    }
  }
  if (n_others > 0) {
    names += fmt::format("{}{} more", names.empty() ? "" : " and ", n_others);
  }
  return names;
}

} // namespace optiq::server
