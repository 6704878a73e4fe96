#include "optiq/server/request_target.h"

#include <algorithm>

namespace optiq::server {
namespace {

/** Printable ASCII without what delimits a URI in text, and the fragment's
 * '#', which stays with the client. */
bool is_uri_byte(char c) {
  return c > 0x20 && c < 0x7f &&
      std::string_view("\"#<>\\^`{|}").find(c) == std::string_view::npos;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string decoded;
  decoded.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    if (text.size() - i < 3) {
      return std::nullopt;
    }
    const int high = hex_value(text[i + 1]);
    const int low = hex_value(text[i + 2]);
    if (high < 0 || low < 0 || (high == 0 && low == 0)) {
      return std::nullopt;
    }
    decoded += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return decoded;
}

/** Cuts "http://host" off the front of the absolute form. */
std::optional<std::string> take_authority(std::string_view& target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.starts_with(scheme)) {
      const std::string_view rest = target.substr(scheme.size());
      const std::size_t end = std::min(rest.find_first_of("/?"), rest.size());
      target = rest.substr(end);
      return std::string(rest.substr(0, end));
    }
  }
  return std::nullopt;
}

} // namespace

std::optional<RequestTarget> parse_request_target(std::string_view target) {
  if (!std::all_of(target.begin(), target.end(), is_uri_byte)) {
    return std::nullopt;
  }
  if (target == "*") {
    return RequestTarget{.path = "*"};
  }
  RequestTarget parsed;
  parsed.authority = take_authority(target);
  const std::size_t query = target.find('?');
  const std::string_view raw_path = target.substr(0, query);
  if (query != std::string_view::npos) {
    parsed.query = target.substr(query + 1);
  }
  if (parsed.authority) {
    if (parsed.authority->empty()) {
      return std::nullopt;
    }
    if (raw_path.empty()) { // "http://host" is "http://host/"
      parsed.path = "/";
      return parsed;
    }
  }
  auto path = percent_decoded(raw_path);
  if (!raw_path.starts_with('/') || !path) {
    return std::nullopt;
  }
  parsed.path = std::move(*path);
  return parsed;
}

} // namespace optiq::server
