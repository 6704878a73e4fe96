#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace optiq::server {

/** What a request line asks for. */
struct RequestTarget {
  std::string path; // percent-decoded; "*" of OPTIONS
  std::string query; // behind '?', as sent
  /** Of the absolute form: it takes the place of Host. */
  std::optional<std::string> authority;
};

/**
 * Reads a request target in origin form ("/v1/models?x=1"), absolute form
 * ("http://host/v1/models") or "*" (RFC 9112, 3.2). Nothing for any other, for
 * bytes that a URI has not (RFC 3986, 3.3), and for escapes that are no byte or
 * a NUL.
 */
std::optional<RequestTarget> parse_request_target(std::string_view target);

} // namespace optiq::server
