#include "optiq/server/page.h"

#include "optiq/base/error.h"
#include "optiq/server/page_files_impl.h"

namespace optiq::server {
namespace {

std::string path_of(std::string_view name) {
  return name == "index.html" ? "/" : "/page/" + std::string(name);
}

struct ContentType {
  std::string_view ending;
  const char* type;
};
constexpr ContentType kContentTypes[] = {
    {".html", "text/html; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".svg", "image/svg+xml"},
};

std::string content_type_of(std::string_view name) {
  for (const ContentType& known : kContentTypes) {
    if (name.ends_with(known.ending)) {
      return known.type;
    }
  }
  fail(
      ErrorKind::Internal,
      "[page_response] {}: no content type for this ending. Add a row.",
      name);
}

/** Loads and runs nothing but these files, talks to this server alone, and
 * makes no markup of strings (W3C CSP level 3, Trusted Types). */
constexpr const char* kContentPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'";

Headers security_headers() {
  return {
      {"content-security-policy", kContentPolicy},
      {"x-content-type-options", "nosniff"},
      {"referrer-policy", "no-referrer"},
      {"cross-origin-opener-policy", "same-origin"},
      {"cross-origin-resource-policy", "same-origin"},
      // A newer server's page must not run on an older one's scripts.
      {"cache-control", "no-cache"}};
}

} // namespace

std::optional<HttpResponse> page_response(std::string_view path) {
  for (const EmbeddedFile& file : embedded_page_files()) {
    if (path == path_of(file.name)) {
      return HttpResponse{
          .content_type = content_type_of(file.name),
          .body = std::string(file.bytes),
          .headers = security_headers()};
    }
  }
  return std::nullopt;
}

std::vector<std::string> page_paths() {
  std::vector<std::string> paths;
  for (const EmbeddedFile& file : embedded_page_files()) {
    paths.push_back(path_of(file.name));
  }
  return paths;
}

} // namespace optiq::server
