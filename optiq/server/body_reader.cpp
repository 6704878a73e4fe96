#include <algorithm>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "optiq/server/body_reader_impl.h"
#include "optiq/server/http_message.h"

namespace optiq::server {
namespace {

constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kBlankLine = "\r\n\r\n";

/** The size that a chunk's line begins with: hexadecimal digits, up to the
 * line's end or an extension. */
std::optional<std::uint64_t> size_of_chunk(std::string_view line) {
  const std::string_view digits = line.substr(0, line.find_first_of(" \t;"));
  const std::string_view rest = line.substr(digits.size());
  const std::size_t extension = rest.find_first_not_of(" \t");
  if (extension != std::string_view::npos && rest[extension] != ';') {
    return std::nullopt;
  }
  std::uint64_t size = 0;
  const char* end = digits.data() + digits.size();
  const auto [behind, error] = std::from_chars(digits.data(), end, size, 16);
  return digits.empty() || digits.front() == '-' || behind != end ||
          error != std::errc{}
      ? std::nullopt
      : std::optional(size);
}

/** Whether a quoted text in an extension ends on its line. */
bool has_whole_quotes(std::string_view line) {
  bool is_quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"') {
      is_quoted = !is_quoted;
    } else if (is_quoted && line[i] == '\\') {
      ++i;
    }
  }
  return !is_quoted;
}

/** Fields of a name and a colon each, none of which says where the request
 * ends. */
bool are_trailers(std::string_view lines) {
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find(kLineEnd));
    const std::size_t colon = line.find(':');
    if (colon == 0 || colon == std::string_view::npos ||
        line.substr(0, colon).find_first_of(" \t") != std::string_view::npos) {
      return false;
    }
    const std::string name = lower_case(line.substr(0, colon));
    if (name == "content-length" || name == "transfer-encoding") {
      return false;
    }
    lines.remove_prefix(line.size() + kLineEnd.size());
  }
  return true;
}

} // namespace

bool has_plain_lines(std::string_view lines) {
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const char c = lines[i];
    if (c == '\r') {
      const bool line_ends = i + 1 < lines.size() && lines[i + 1] == '\n';
      const bool folds =
          i + 2 < lines.size() && (lines[i + 2] == ' ' || lines[i + 2] == '\t');
      if (!line_ends || folds) {
        return false;
      }
      ++i;
    } else if ((c >= 0 && c < ' ' && c != '\t') || c == 0x7f) {
      return false;
    }
  }
  return true;
}

ApiError bad_request(std::string message) {
  return {.status = 400, .message = std::move(message), .code = "bad_request"};
}

ApiError too_long(std::string_view what, std::size_t limit) {
  return {
      .status = 431,
      .message = fmt::format("{} longer than {} bytes", what, limit),
      .code = "header_too_large"};
}

ApiError body_too_large(std::size_t limit) {
  return {
      .status = 413,
      .message = fmt::format("the body is longer than {} bytes", limit),
      .code = "body_too_large"};
}

BodyReader::BodyReader(
    std::optional<std::uint64_t> length,
    std::size_t max_header_bytes,
    std::size_t max_body_bytes)
    : max_header_bytes_(max_header_bytes),
      max_body_bytes_(max_body_bytes),
      in_chunks_(!length.has_value()),
      expected_(in_chunks_ ? Expected::Size : Expected::Data),
      left_(length.value_or(0)) {}

BodyReader::Progress BodyReader::read(std::string& input, std::string& body) {
  std::size_t taken = 0;
  while (expected_ != Expected::Nothing && !refused_) {
    const std::size_t more =
        read_next(std::string_view(input).substr(taken), body);
    if (more == 0) {
      break;
    }
    taken += more;
  }
  input.erase(0, taken);
  if (refused_) {
    return Progress::Refused;
  }
  return expected_ == Expected::Nothing ? Progress::Done : Progress::NeedsMore;
}

std::size_t BodyReader::read_next(std::string_view rest, std::string& body) {
  switch (expected_) {
    case Expected::Size:
      return read_size(rest, body.size());
    case Expected::Data:
      return read_data(rest, body);
    case Expected::EndOfData:
      return read_end_of_data(rest);
    case Expected::Trailers:
      return read_trailers(rest);
    case Expected::Nothing:
      break;
  }
  return 0;
}

std::size_t BodyReader::read_size(
    std::string_view rest,
    std::size_t body_bytes) {
  const std::size_t length = length_with(kLineEnd, rest, "a chunk's line is");
  if (length == 0) {
    return 0;
  }
  const std::string_view line = rest.substr(0, length - kLineEnd.size());
  const std::optional<std::uint64_t> size = size_of_chunk(line);
  if (!size || !has_plain_lines(line) || !has_whole_quotes(line)) {
    return refuse(bad_request("this is no line before a chunk"));
  }
  if (*size > max_body_bytes_ - body_bytes) {
    return refuse(body_too_large(max_body_bytes_));
  }
  left_ = *size;
  expected_ = left_ > 0 ? Expected::Data : Expected::Trailers;
  return length;
}

std::size_t BodyReader::read_data(std::string_view rest, std::string& body) {
  const std::string_view data = rest.substr(0, left_);
  body += data;
  left_ -= data.size();
  if (left_ == 0) {
    expected_ = in_chunks_ ? Expected::EndOfData : Expected::Nothing;
  }
  return data.size();
}

std::size_t BodyReader::read_end_of_data(std::string_view rest) {
  if (rest.size() < kLineEnd.size()) {
    return 0;
  }
  if (!rest.starts_with(kLineEnd)) {
    return refuse(bad_request("a chunk is longer than its line says"));
  }
  expected_ = Expected::Size;
  return kLineEnd.size();
}

std::size_t BodyReader::read_trailers(std::string_view rest) {
  if (rest.starts_with(kLineEnd)) {
    expected_ = Expected::Nothing;
    return kLineEnd.size();
  }
  const std::size_t length = length_with(kBlankLine, rest, "trailers are");
  if (length == 0) {
    return 0;
  }
  const std::string_view lines = rest.substr(0, length - kLineEnd.size());
  if (!has_plain_lines(lines) || !are_trailers(lines)) {
    return refuse(bad_request("a trailer is no field, or one of the header"));
  }
  expected_ = Expected::Nothing;
  return length;
}

std::size_t BodyReader::length_with(
    std::string_view end,
    std::string_view rest,
    std::string_view what) {
  const std::size_t at = rest.find(end);
  const bool is_there = at != std::string_view::npos;
  const std::size_t length = is_there ? at + end.size() : rest.size();
  if (length > max_header_bytes_) {
    return refuse(too_long(what, max_header_bytes_));
  }
  return is_there ? length : 0;
}

std::size_t BodyReader::refuse(ApiError error) {
  refused_ = std::move(error);
  return 0;
}

} // namespace optiq::server
