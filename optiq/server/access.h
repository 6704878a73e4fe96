#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/server/http_message.h"

namespace optiq::server {

/** Who is served. */
struct AccessRules {
  /** Keys of which one must be sent; none: everybody is served. */
  std::vector<std::string> api_keys;
  /** Names in Host that are served beside IP addresses and localhost. */
  std::vector<std::string> allowed_hosts;
  /** Origins ("https://app.example") whose pages may ask beside our own. */
  std::vector<std::string> allowed_origins;
};

/** What the rules say of one request. */
struct Access {
  /** Who asks: a short hash of the key, never the key; empty without one.
   * Separates what requests may share. */
  std::string tenant;
  /** Sent in place of the endpoint's answer: a refusal, or the answer to an
   * OPTIONS request. */
  std::optional<HttpResponse> refusal;
  Headers headers; // of every answer: CORS for a listed origin
};

/**
 * Host first (a page whose name was rebound to our address sends its own name,
 * so addresses and localhost are safe and names must be listed; a unix socket
 * is out of a browser's reach), then Origin (a page of ours, or a listed one;
 * never "*"), then the key, as `Authorization: Bearer KEY` or `x-api-key: KEY`,
 * compared in a time that does not depend on it. `/` and `/page/` (the page,
 * which asks for a key), `/health` and `/ready` need none.
 */
Access check_access(const HttpRequest& request, const AccessRules& rules);

/** "localhost", addresses of 127.0.0.0/8 and ::1: only this machine reaches a
 * server that listens there. */
bool is_loopback(std::string_view host);

} // namespace optiq::server
