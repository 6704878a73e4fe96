#include "optiq/server/access.h"

#include <algorithm>
#include <array>

#include <arpa/inet.h>
#include <fmt/format.h>

#include "optiq/base/hash.h"
#include "optiq/server/error_response.h"

namespace optiq::server {
namespace {

constexpr std::string_view kOpenPaths[] = {"/", "/health", "/ready"};
constexpr std::string_view kPageFolder = "/page/";

/** The page asks for the key, so whoever has none gets its files. */
bool is_open(std::string_view path) {
  return path.starts_with(kPageFolder) ||
      std::find(std::begin(kOpenPaths), std::end(kOpenPaths), path) !=
      std::end(kOpenPaths);
}

bool is_port(std::string_view text) {
  return text.size() <= 5 && std::all_of(text.begin(), text.end(), [](char c) {
           return c >= '0' && c <= '9';
         });
}

/** "Example.org:8080" -> "example.org", "[::1]:80" -> "::1"; nothing of what is
 * no host (RFC 9110, 7.2). */
std::optional<std::string> name_of_host(std::string_view host) {
  const bool bracketed = host.starts_with('[');
  const std::size_t end = host.find(bracketed ? ']' : ':');
  if (bracketed && end == std::string_view::npos) {
    return std::nullopt;
  }
  const std::string_view name =
      bracketed ? host.substr(1, end - 1) : host.substr(0, end);
  const std::string_view rest = end == std::string_view::npos
      ? std::string_view()
      : host.substr(bracketed ? end + 1 : end);
  const bool has_port = rest.starts_with(':') && is_port(rest.substr(1));
  if (name.empty() || (!rest.empty() && !has_port)) {
    return std::nullopt;
  }
  return lower_case(name);
}

bool is_address(const std::string& name) {
  std::array<unsigned char, sizeof(in6_addr)> address{};
  return inet_pton(AF_INET, name.c_str(), address.data()) == 1 ||
      inet_pton(AF_INET6, name.c_str(), address.data()) == 1;
}

bool is_localhost(std::string_view name) {
  return name == "localhost" || name.ends_with(".localhost"); // RFC 6761, 6.3
}

bool is_listed(const std::vector<std::string>& list, const std::string& name) {
  return std::any_of(list.begin(), list.end(), [&](const std::string& item) {
    return lower_case(item) == name;
  });
}

bool is_host_served(const HttpRequest& request, const AccessRules& rules) {
  const auto host = request.header("host");
  if (!host || request.peer == "unix") {
    return true; // no browser
  }
  const auto name = name_of_host(*host);
  return name &&
      (is_address(*name) || is_localhost(*name) ||
       is_listed(rules.allowed_hosts, *name));
}

/** The page that asks is one that this server sent. */
bool is_own_origin(const HttpRequest& request, const std::string& origin) {
  const auto host = request.header("host");
  return host &&
      (origin == "http://" + lower_case(*host) ||
       origin == "https://" + lower_case(*host)); // behind a proxy with TLS
}

/** Takes the same time wherever they differ. */
bool equal_in_constant_time(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) {
    return false; // both are digests
  }
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^
        static_cast<unsigned>(static_cast<unsigned char>(b[i]));
  }
  return difference == 0;
}

/** The keys that the request offers. */
std::vector<std::string> offered_keys(const HttpRequest& request) {
  std::vector<std::string> keys;
  if (auto key = request.header("x-api-key")) {
    keys.push_back(std::move(*key));
  }
  constexpr std::string_view kScheme = "bearer ";
  if (const auto value = request.header("authorization");
      value && lower_case(value->substr(0, kScheme.size())) == kScheme) {
    const std::size_t start = value->find_first_not_of(' ', kScheme.size());
    keys.push_back(value->substr(std::min(start, value->size())));
  }
  return keys;
}

/** The digest of the offered key that is one of the rules'. */
std::optional<std::string> accepted_digest(
    const HttpRequest& request,
    const AccessRules& rules) {
  std::optional<std::string> accepted;
  for (const std::string& offered : offered_keys(request)) {
    const std::string digest = Sha256().update(offered).hex_digest();
    for (const std::string& key : rules.api_keys) {
      if (equal_in_constant_time(digest, Sha256().update(key).hex_digest())) {
        accepted = digest;
      }
    }
  }
  return accepted;
}

HttpResponse refuse_host(const HttpRequest& request) {
  return error_response(
      {.status = 403,
       .message = fmt::format(
           "Host '{}' is not served: a page elsewhere may have taken the name. "
           "Use the address, or start the server with --allowed-host NAME",
           request.header("host").value_or("")),
       .code = "host_not_allowed"});
}

HttpResponse refuse_origin(const std::string& origin) {
  return error_response(
      {.status = 403,
       .message = fmt::format(
           "pages of '{}' may not ask here. Start the server with "
           "--allowed-origin ORIGIN to let them",
           origin),
       .code = "origin_not_allowed"});
}

HttpResponse refuse_key() {
  HttpResponse response = error_response(
      {.status = 401,
       .message = "no valid API key. Send it as 'Authorization: Bearer KEY' or "
                  "'x-api-key: KEY'",
       .code = "invalid_api_key"});
  response.headers.emplace_back("www-authenticate", "Bearer");
  return response;
}

/** What a listed origin's pages may send and read (Fetch, "CORS protocol"). */
void allow_origin(const std::string& origin, Headers& headers) {
  headers.emplace_back("access-control-allow-origin", origin);
  headers.emplace_back(
      "access-control-expose-headers", "x-request-id, retry-after");
}

HttpResponse answer_options(const HttpRequest& request, bool listed_origin) {
  HttpResponse response{.status = 204, .content_type = ""};
  constexpr const char* kMethods = "GET, HEAD, POST, DELETE, OPTIONS";
  response.headers.emplace_back("allow", kMethods);
  if (listed_origin) {
    response.headers.emplace_back("access-control-allow-methods", kMethods);
    response.headers.emplace_back("access-control-max-age", "600");
    if (const auto wanted = request.header("access-control-request-headers")) {
      response.headers.emplace_back("access-control-allow-headers", *wanted);
    }
  }
  return response;
}

} // namespace

bool is_loopback(std::string_view host) {
  const std::string name(host);
  in_addr address{};
  return is_localhost(lower_case(name)) || name == "::1" ||
      (inet_pton(AF_INET, name.c_str(), &address) == 1 &&
       (ntohl(address.s_addr) >> 24) == 127);
}

Access check_access(const HttpRequest& request, const AccessRules& rules) {
  Access access;
  if (!is_host_served(request, rules)) {
    access.refusal = refuse_host(request);
    return access;
  }
  const auto origin = request.header("origin");
  const bool own_origin = origin && is_own_origin(request, lower_case(*origin));
  const bool listed_origin =
      origin && is_listed(rules.allowed_origins, lower_case(*origin));
  if (!rules.allowed_origins.empty()) {
    access.headers.emplace_back("vary", "origin");
  }
  if (listed_origin) {
    allow_origin(*origin, access.headers);
  } else if (origin && !own_origin) {
    access.refusal = refuse_origin(*origin);
    return access;
  }
  if (request.method == "OPTIONS") {
    access.refusal = answer_options(request, listed_origin);
    return access;
  }
  if (rules.api_keys.empty()) {
    return access;
  }
  if (const auto digest = accepted_digest(request, rules)) {
    access.tenant = digest->substr(0, 16);
  } else if (!is_open(request.path)) {
    access.refusal = refuse_key();
  }
  return access;
}

} // namespace optiq::server
