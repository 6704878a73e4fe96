#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "optiq/server/http_message.h"

/**
 * The page to chat in: a few static files inside the library. It needs no key
 * to be read (what it asks the server does), and asks of the server
 * POST /v1/chat/completions and GET /v1/optiq/model (server/description.h).
 */
namespace optiq::server {

struct PageFile {
  std::string_view path; // "/", "/page/main.js"
  std::string_view content_type;
  std::string_view bytes;
};

std::span<const PageFile> page_files();

/** What every answer with a file of the page carries: a Content-Security-Policy
 * that loads and runs nothing but these files, talks to this server alone and
 * makes no markup of strings (W3C CSP 3, Trusted Types). */
Headers page_headers();

/** The answer to a GET of a path of the page; none for any other path. */
std::optional<HttpResponse> page_response(std::string_view path);

} // namespace optiq::server
