#include "optiq/server/page.h"

#include <algorithm>
#include <array>
#include <string>

#include "optiq/server/page_files_impl.h"

namespace optiq::server {
namespace {

constexpr std::string_view kHtml = "text/html; charset=utf-8";
constexpr std::string_view kScript = "text/javascript; charset=utf-8";
constexpr std::string_view kStyle = "text/css; charset=utf-8";

constexpr const char* kContentPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'";

} // namespace

std::span<const PageFile> page_files() {
  static const std::array files{
      PageFile{"/", kHtml, page::index_html()},
      PageFile{"/page/style.css", kStyle, page::style_css()},
      PageFile{"/page/main.js", kScript, page::main_js()},
      PageFile{"/page/icon.svg", "image/svg+xml", page::icon_svg()}};
  return files;
}

Headers page_headers() {
  return {
      {"content-security-policy", kContentPolicy},
      {"x-content-type-options", "nosniff"},
      {"referrer-policy", "no-referrer"},
      {"cross-origin-opener-policy", "same-origin"},
      {"cross-origin-resource-policy", "same-origin"},
      // A newer server's page must not run on an older one's scripts.
      {"cache-control", "no-cache"}};
}

std::optional<HttpResponse> page_response(std::string_view path) {
  const auto files = page_files();
  const auto file =
      std::find_if(files.begin(), files.end(), [&](const PageFile& f) {
        return f.path == path;
      });
  if (file == files.end()) {
    return std::nullopt;
  }
  return HttpResponse{
      .content_type = std::string(file->content_type),
      .body = std::string(file->bytes),
      .headers = page_headers()};
}

} // namespace optiq::server
