#include "optiq/io/hub/id.h"

#include <algorithm>
#include <cctype>
#include <string_view>

namespace optiq::io {
namespace {

constexpr std::size_t kMaxRepo = 96; // as the hub limits it
constexpr std::size_t kMaxName = 255; // of a file, on every file system

bool is_word(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' ||
        c == '_' || c == '.';
  });
}

// "--" joins the parts of an id in the names of cache folders.
bool is_repo_part(std::string_view text) {
  return is_word(text) && text.front() != '-' && text.front() != '.' &&
      text.back() != '-' && text.back() != '.' &&
      text.find("--") == std::string_view::npos &&
      text.find("..") == std::string_view::npos;
}

enum class Org { Needed, Optional };

bool is_repo(std::string_view repo, Org org) {
  const std::size_t slash = repo.find('/');
  if (repo.size() > kMaxRepo) {
    return false;
  }
  if (slash == std::string_view::npos) {
    return org == Org::Optional && is_repo_part(repo);
  }
  return is_repo_part(repo.substr(0, slash)) &&
      is_repo_part(repo.substr(slash + 1));
}

std::optional<HubId> parse_id(const std::string& text, Org org) {
  HubId id;
  const std::size_t at = text.find('@');
  const std::size_t colon = text.find(':');
  if (colon != std::string::npos && at != std::string::npos && colon < at) {
    return std::nullopt;
  }
  id.repo = text.substr(0, std::min(at, colon));
  if (at != std::string::npos) {
    id.revision = text.substr(at + 1, colon - at - 1);
    const bool is_ref =
        std::all_of(id.revision.begin(), id.revision.end(), [](char c) {
          return std::isalnum(static_cast<unsigned char>(c)) ||
              std::string_view("-_./+").find(c) != std::string_view::npos;
        });
    if (!is_ref || !is_safe_relative_path(id.revision)) {
      return std::nullopt;
    }
  }
  if (colon != std::string::npos) {
    id.file = text.substr(colon + 1);
    if (!is_safe_relative_path(id.file) || !id.file.ends_with(".gguf")) {
      return std::nullopt;
    }
  }
  return is_repo(id.repo, org) ? std::optional(id) : std::nullopt;
}

} // namespace

std::string HubId::text() const {
  std::string result = repo;
  if (revision != "main") {
    result += "@" + revision;
  }
  return file.empty() ? result : result + ":" + file;
}

bool is_hex(const std::string& text, std::size_t n_digits) {
  return text.size() == n_digits &&
      text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool is_commit(const std::string& revision) {
  return is_hex(revision, 40);
}

bool is_safe_relative_path(const std::string& path) {
  std::string_view rest = path;
  while (true) {
    const std::size_t slash = rest.find('/');
    const std::string_view name = rest.substr(0, slash);
    const bool is_plain =
        std::none_of(name.begin(), name.end(), [](unsigned char c) {
          return c < 0x20 || c == 0x7f || c == '\\';
        });
    if (name.empty() || name == "." || name == ".." || !is_plain ||
        name.size() > kMaxName) {
      return false;
    }
    if (slash == std::string_view::npos) {
      return true;
    }
    rest.remove_prefix(slash + 1);
  }
}

std::optional<HubId> parse_hub_id(const std::string& text) {
  return parse_id(text, Org::Needed);
}

std::optional<HubId> parse_cached_id(const std::string& text) {
  return parse_id(text, Org::Optional);
}

} // namespace optiq::io
