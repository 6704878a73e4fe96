#include "optiq/server/page.h"

#include <algorithm>
#include <array>
#include <string>

#include "optiq/server/page_files_impl.h"

namespace optiq::server {
namespace {

constexpr std::string_view kHtml = "text/html; charset=utf-8";
constexpr std::string_view kScript = "text/javascript; charset=utf-8";
constexpr std::string_view kImage = "image/svg+xml";
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
      PageFile{"/page/icon.svg", kImage, page::icon_svg()},
      PageFile{"/page/main.js", kScript, page::main_js()},
      PageFile{"/page/api.js", kScript, page::api_js()},
      PageFile{
          "/page/conversation_list.js", kScript, page::conversation_list_js()},
      PageFile{"/page/dom.js", kScript, page::dom_js()},
      PageFile{"/page/drawers.js", kScript, page::drawers_js()},
      PageFile{"/page/events.js", kScript, page::events_js()},
      PageFile{"/page/format.js", kScript, page::format_js()},
      PageFile{"/page/inline.js", kScript, page::inline_js()},
      PageFile{"/page/live.js", kScript, page::live_js()},
      PageFile{"/page/markdown.js", kScript, page::markdown_js()},
      PageFile{"/page/model_view.js", kScript, page::model_view_js()},
      PageFile{"/page/settings.js", kScript, page::settings_js()},
      PageFile{"/page/store.js", kScript, page::store_js()},
      PageFile{"/page/transcript.js", kScript, page::transcript_js()}};
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
