#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/server/http_message.h"

/**
 * The page to chat in: static files inside the library, page/index.html at "/"
 * and the others at "/page/<name>". They need no key (what the page asks of the
 * server does): POST /v1/chat/completions and GET /v1/optiq/model
 * (server/description.h).
 */
namespace optiq::server {

/** The answer to a GET of a file of the page; none for any other path. */
std::optional<HttpResponse> page_response(std::string_view path);

/** Every path with an answer. */
std::vector<std::string> page_paths();

} // namespace optiq::server
