#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "optiq/server/error_response.h"

namespace optiq::server {

/** Lines end in CR LF, none continues the one before, and no other control
 * character but the tab occurs. */
bool has_plain_lines(std::string_view lines);

ApiError bad_request(std::string message);
/** `what` is longer than a header may be. */
ApiError too_long(std::string_view what, std::size_t limit);
ApiError body_too_large(std::size_t limit);

/**
 * Reads a request's body from bytes as they come: of a known length, or in
 * chunks (RFC 9112, 7.1). What becomes of it does not depend on the pieces in
 * which it comes, for which Beast's reader of chunks was not made. A chunk's
 * line and all trailers have max_header_bytes at most. Extensions and trailers
 * are dropped: nothing that they could say is to be trusted.
 */
class BodyReader {
 public:
  /** `length`: bytes, within max_body_bytes; none: chunks. */
  BodyReader(
      std::optional<std::uint64_t> length,
      std::size_t max_header_bytes,
      std::size_t max_body_bytes);

  enum class Progress { NeedsMore, Done, Refused };

  /** Takes what belongs to the body off the front of `input`. */
  Progress read(std::string& input, std::string& body);
  /** The status and words for what was Refused. */
  const ApiError& refusal() const {
    return *refused_;
  }

 private:
  enum class Expected { Size, Data, EndOfData, Trailers, Nothing };

  /** Read what is expected at the front of `rest`; bytes taken, 0: it is not
   * all there, or refused. */
  std::size_t read_size(std::string_view rest, std::size_t body_bytes);
  std::size_t read_data(std::string_view rest, std::string& body);
  std::size_t read_end_of_data(std::string_view rest);
  std::size_t read_trailers(std::string_view rest);
  std::size_t read_next(std::string_view rest, std::string& body);
  /** Bytes up to `end` and with it; 0: it is not there yet, or `what` is too
   * long and refused. */
  std::size_t length_with(
      std::string_view end,
      std::string_view rest,
      std::string_view what);
  std::size_t refuse(ApiError error);

  std::size_t max_header_bytes_;
  std::size_t max_body_bytes_;
  bool in_chunks_;
  Expected expected_;
  std::uint64_t left_ = 0; // of the data
  std::optional<ApiError> refused_;
};

} // namespace optiq::server
