#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "optiq/server/http_message.h"

namespace optiq::server {

/** How a response goes over a connection. */
struct ResponseFraming {
  bool http10 = false; // the request's version
  bool keep_alive = true;
  bool head = false; // to HEAD: without its body
};

/** Header and body (RFC 9112). Bytes in values that would end their line become
 * spaces. */
std::string format_response(
    const HttpResponse& response,
    const std::string& id,
    const ResponseFraming& framing);

/** The header of an event stream: chunked, or up to the end of an HTTP/1.0
 * connection. */
std::string format_stream_header(
    const Headers& headers,
    const std::string& id,
    const ResponseFraming& framing);

/** One chunk (RFC 9112, 7.1) of bytes, which are not none. */
std::string format_chunk(std::string_view bytes);

inline constexpr std::string_view kLastChunk = "0\r\n\r\n";
/** A comment of a stream: it is alive, and says nothing. */
inline constexpr std::string_view kStreamComment = ": keep-alive\n\n";

} // namespace optiq::server
