#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "optiq/server/error_response.h"
#include "optiq/server/http_message.h"

namespace optiq::server {

/**
 * Reads one request from bytes as they come (RFC 9112): Beast parses its
 * header, and what two readers could understand differently is refused here: a
 * folded or bare line, more than one Host or Content-Length, both a length and
 * a transfer coding, a coding that is not exactly "chunked".
 */
class RequestParser {
 public:
  RequestParser(std::size_t max_header_bytes, std::size_t max_body_bytes);
  ~RequestParser();
  RequestParser(RequestParser&&) noexcept;
  RequestParser& operator=(RequestParser&&) noexcept;

  enum class Progress {
    NeedsMore,
    HeaderDone, // and a body follows; once
    Done,
    Refused, // see refusal()
  };

  /** Takes what belongs to the request off the front of `input`. */
  Progress read(std::string& input);
  /** The status and words for what cannot be read on. */
  const ApiError& refusal() const;

  /** Complete but for the body after HeaderDone. */
  HttpRequest& request();
  const std::string& target() const; // as sent
  bool is_head() const; // HEAD, which the request calls GET
  bool is_http10() const;
  /** The client waits for "100 Continue" before it sends the body. */
  bool expects_continue() const;
  bool keep_alive() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace optiq::server
