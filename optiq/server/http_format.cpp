#include <array>
#include <ctime>

#include <boost/beast/http/status.hpp>
#include <fmt/format.h>

#include "optiq/server/http_format_impl.h"

namespace optiq::server {
namespace {

/** "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, 5.6.7); made of numbers, for
 * strftime follows the locale. */
std::string http_date() {
  constexpr std::array<const char*, 7> kDays = {
      "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array<const char*, 12> kMonths = {
      "Jan",
      "Feb",
      "Mar",
      "Apr",
      "May",
      "Jun",
      "Jul",
      "Aug",
      "Sep",
      "Oct",
      "Nov",
      "Dec"};
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  return fmt::format(
      "{}, {:02} {} {} {:02}:{:02}:{:02} GMT",
      kDays.at(static_cast<std::size_t>(utc.tm_wday)),
      utc.tm_mday,
      kMonths.at(static_cast<std::size_t>(utc.tm_mon)),
      utc.tm_year + 1900,
      utc.tm_hour,
      utc.tm_min,
      utc.tm_sec);
}

void append_field(
    std::string& text,
    std::string_view name,
    std::string_view value) {
  text += name;
  text += ": ";
  for (const char c : value) {
    text += c == '\r' || c == '\n' || c == '\0' ? ' ' : c;
  }
  text += "\r\n";
}

/** Status line and the fields that every response has. */
std::string begin_header(
    int status,
    const std::string& id,
    const ResponseFraming& framing) {
  const auto reason = boost::beast::http::obsolete_reason(
      boost::beast::http::int_to_status(static_cast<unsigned>(status)));
  std::string text = fmt::format(
      "HTTP/1.1 {} {}\r\n",
      status,
      std::string_view(reason.data(), reason.size()));
  append_field(text, "date", http_date());
  append_field(text, "x-request-id", id);
  if (!framing.keep_alive) {
    append_field(text, "connection", "close");
  } else if (framing.http10) {
    append_field(text, "connection", "keep-alive");
  }
  return text;
}

} // namespace

std::string format_response(
    const HttpResponse& response,
    const std::string& id,
    const ResponseFraming& framing) {
  std::string text = begin_header(response.status, id, framing);
  if (!response.content_type.empty()) {
    append_field(text, "content-type", response.content_type);
  }
  const bool has_body = response.status != 204 && response.status != 304;
  if (has_body) {
    append_field(text, "content-length", std::to_string(response.body.size()));
  }
  for (const auto& [name, value] : response.headers) {
    append_field(text, name, value);
  }
  text += "\r\n";
  if (has_body && !framing.head) {
    text += response.body;
  }
  return text;
}

std::string format_stream_header(
    const Headers& headers,
    const std::string& id,
    const ResponseFraming& framing) {
  std::string text = begin_header(200, id, framing);
  append_field(text, "content-type", "text/event-stream");
  append_field(text, "cache-control", "no-store");
  // Of nginx: pass events on as they come.
  append_field(text, "x-accel-buffering", "no");
  if (!framing.http10) {
    append_field(text, "transfer-encoding", "chunked");
  }
  for (const auto& [name, value] : headers) {
    append_field(text, name, value);
  }
  return text + "\r\n";
}

std::string format_chunk(std::string_view bytes) {
  std::string chunk = fmt::format("{:x}\r\n", bytes.size());
  chunk += bytes;
  chunk += "\r\n";
  return chunk;
}

} // namespace optiq::server
