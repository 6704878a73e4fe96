#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>

#include <boost/beast/http/basic_parser.hpp>
#include <fmt/format.h>

#include "optiq/server/http_parser_impl.h"
#include "optiq/server/request_target.h"

namespace optiq::server {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using beast::error_code;

/** Beast's parser, writing straight into an HttpRequest. Trailers are dropped:
 * nothing that they could say is to be trusted. */
class Collector final : public http::basic_parser<true> {
 public:
  HttpRequest request;
  std::string target;
  bool http10 = false;
  bool in_header = true;

 private:
  void on_request_impl(
      http::verb /*method*/,
      beast::string_view method,
      beast::string_view sent_target,
      int version,
      error_code& /*ec*/) override {
    request.method.assign(method.data(), method.size());
    target.assign(sent_target.data(), sent_target.size());
    http10 = version == 10;
  }
  void on_response_impl(int, beast::string_view, int, error_code&) override {}
  void on_field_impl(
      http::field /*field*/,
      beast::string_view name,
      beast::string_view value,
      error_code& /*ec*/) override {
    if (in_header) {
      request.headers.emplace_back(
          lower_case({name.data(), name.size()}),
          std::string(value.data(), value.size()));
    }
  }
  void on_header_impl(error_code& /*ec*/) override {
    in_header = false;
  }
  void on_body_init_impl(
      const boost::optional<std::uint64_t>& /*length*/,
      error_code& /*ec*/) override {}
  std::size_t on_body_impl(beast::string_view body, error_code& /*ec*/)
      override {
    request.body.append(body.data(), body.size());
    return body.size();
  }
  void on_chunk_header_impl(
      std::uint64_t /*size*/,
      beast::string_view /*extensions*/,
      error_code& /*ec*/) override {}
  std::size_t on_chunk_body_impl(
      std::uint64_t /*remain*/,
      beast::string_view body,
      error_code& ec) override {
    return on_body_impl(body, ec);
  }
  void on_finish_impl(error_code& /*ec*/) override {}
};

ApiError bad_request(std::string message) {
  return {.status = 400, .message = std::move(message), .code = "bad_request"};
}

ApiError header_too_large(std::size_t limit) {
  return {
      .status = 431,
      .message = fmt::format("the header is longer than {} bytes", limit),
      .code = "header_too_large"};
}

ApiError explain(const error_code& error, std::size_t max_body_bytes) {
  if (error == http::error::body_limit) {
    return {
        .status = 413,
        .message =
            fmt::format("the body is longer than {} bytes", max_body_bytes),
        .code = "body_too_large"};
  }
  if (error == http::error::bad_version) {
    return {
        .status = 505,
        .message = "expected HTTP/1.0 or HTTP/1.1",
        .code = "bad_version"};
  }
  return bad_request("this is no HTTP: " + error.message());
}

/** Lines end in CR LF, none continues the one before, and no other control
 * character but the tab occurs. */
bool has_plain_lines(std::string_view header) {
  for (std::size_t i = 0; i < header.size(); ++i) {
    const char c = header[i];
    if (c == '\r') {
      const bool line_ends = i + 1 < header.size() && header[i + 1] == '\n';
      const bool folds = i + 2 < header.size() &&
          (header[i + 2] == ' ' || header[i + 2] == '\t');
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

/** Whether bytes behind a chunk begin with the whole line of another one, but
 * the last, which Beast reads with its trailers. */
bool begin_with_chunk_line(std::string_view bytes) {
  if (bytes.starts_with("\r\n")) {
    bytes.remove_prefix(2);
  }
  const std::string_view size = bytes.substr(0, bytes.find_first_of(";\r"));
  return bytes.find("\r\n") != std::string_view::npos &&
      size.find_first_not_of('0') != std::string_view::npos;
}

std::size_t count_fields(const HttpRequest& request, std::string_view name) {
  return static_cast<std::size_t>(std::count_if(
      request.headers.begin(), request.headers.end(), [&](const auto& field) {
        return field.first == name;
      }));
}

/** What is wrong with how the request says where it ends, and for whom it is
 * (RFC 9112, 6.3 and 3.2). */
std::optional<ApiError> check_framing(const HttpRequest& request, bool http10) {
  const std::size_t n_hosts = count_fields(request, "host");
  if (n_hosts > 1 || (n_hosts == 0 && !http10)) {
    return bad_request(
        fmt::format("found {} Host fields, expected one", n_hosts));
  }
  const std::size_t n_lengths = count_fields(request, "content-length");
  const std::size_t n_codings = count_fields(request, "transfer-encoding");
  if (n_lengths + n_codings > 1) {
    return bad_request(
        "expected one Content-Length or one Transfer-Encoding, found more");
  }
  if (n_lengths == 1) {
    const std::string length = *request.header("content-length");
    if (length.find_first_not_of("0123456789") != std::string::npos) {
      return bad_request("Content-Length is no number");
    }
  }
  if (n_codings == 0) {
    return std::nullopt;
  }
  if (http10) {
    return bad_request("HTTP/1.0 has no Transfer-Encoding");
  }
  const std::string coding = *request.header("transfer-encoding");
  if (lower_case(coding) != "chunked") {
    return ApiError{
        .status = 501,
        .message = "of transfer codings only 'chunked' is read",
        .code = "unknown_transfer_coding"};
  }
  return std::nullopt;
}

void set_host(HttpRequest& request, const std::string& authority) {
  for (auto& [name, value] : request.headers) {
    if (name == "host") {
      value = authority;
      return;
    }
  }
  request.headers.emplace_back("host", authority);
}

} // namespace

struct RequestParser::State {
  std::size_t max_header_bytes;
  std::size_t max_body_bytes;
  Collector parser;
  std::size_t scanned = 0; // of the header, for its end
  bool head = false;
  bool waits_for_continue = false;
  ApiError refusal;

  Progress refuse(ApiError error) {
    refusal = std::move(error);
    return Progress::Refused;
  }

  Progress read_header(std::string& input);
  Progress check_header();
  Progress read_body(std::string& input);
};

RequestParser::Progress RequestParser::State::read_header(std::string& input) {
  if (scanned == 0) {
    std::size_t empty = 0; // lines before the request (RFC 9112, 2.2)
    while (input.compare(empty, 2, "\r\n") == 0) {
      empty += 2;
    }
    input.erase(0, empty);
  }
  const std::size_t end = input.find("\r\n\r\n", scanned);
  const std::size_t length = end == std::string::npos ? input.size() : end + 4;
  if (length > max_header_bytes) {
    return refuse(header_too_large(max_header_bytes));
  }
  if (end == std::string::npos) {
    scanned = input.size() < 3 ? 0 : input.size() - 3;
    return Progress::NeedsMore;
  }
  if (!has_plain_lines(std::string_view(input).substr(0, length))) {
    return refuse(bad_request(
        "a line of the header is folded, or has a control character"));
  }
  error_code error;
  parser.put(boost::asio::const_buffer(input.data(), length), error);
  if (error) {
    return refuse(explain(error, max_body_bytes));
  }
  input.erase(0, length);
  return check_header();
}

RequestParser::Progress RequestParser::State::check_header() {
  HttpRequest& request = parser.request;
  auto target = parse_request_target(parser.target);
  if (!target || (target->path == "*" && request.method != "OPTIONS")) {
    return refuse(bad_request("the request's target is no path"));
  }
  if (auto error = check_framing(request, parser.http10)) {
    return refuse(std::move(*error));
  }
  request.path = std::move(target->path);
  request.query = std::move(target->query);
  if (target->authority) {
    set_host(request, *target->authority);
  }
  head = request.method == "HEAD";
  if (head) {
    request.method = "GET";
  }
  if (parser.is_done()) {
    return Progress::Done;
  }
  if (const auto expected = request.header("expect");
      expected && !parser.http10) {
    if (lower_case(*expected) != "100-continue") {
      return refuse(
          {.status = 417,
           .message = "of expectations only '100-continue' is met",
           .code = "unknown_expectation"});
    }
    waits_for_continue = true;
  }
  parser.eager(true); // chunk after chunk in one call
  return Progress::HeaderDone;
}

/** Beast takes a chunk's line or the trailers at once: whether these are too
 * long must not depend on the pieces in which they come, so it never sees more
 * than they may have. */
RequestParser::Progress RequestParser::State::read_body(std::string& input) {
  std::size_t taken = 0;
  Progress progress = Progress::NeedsMore;
  while (progress == Progress::NeedsMore && taken < input.size()) {
    const std::size_t window = std::min(input.size() - taken, max_header_bytes);
    error_code error;
    const std::size_t used = parser.put(
        boost::asio::const_buffer(input.data() + taken, window), error);
    taken += used;
    if (error && error != http::error::need_more) {
      progress = refuse(explain(error, max_body_bytes));
    } else if (parser.is_done()) {
      progress = Progress::Done;
    } else if (used == 0 && window == max_header_bytes) {
      progress = refuse(header_too_large(max_header_bytes));
    } else if (used == 0) {
      // Beast seeks the end of a quoted extension behind the line's end, and
      // counts the chunk's size against the limit whenever it does.
      if (begin_with_chunk_line(std::string_view(input).substr(taken))) {
        progress = refuse(bad_request("a chunk's extension does not end"));
      }
      break;
    }
  }
  input.erase(0, taken);
  return progress;
}

RequestParser::RequestParser(
    std::size_t max_header_bytes,
    std::size_t max_body_bytes)
    : state_(std::make_unique<State>()) {
  state_->max_header_bytes = max_header_bytes;
  state_->max_body_bytes = max_body_bytes;
  state_->parser.header_limit(static_cast<std::uint32_t>(max_header_bytes));
  state_->parser.body_limit(max_body_bytes);
}

RequestParser::~RequestParser() = default;
RequestParser::RequestParser(RequestParser&&) noexcept = default;
RequestParser& RequestParser::operator=(RequestParser&&) noexcept = default;

RequestParser::Progress RequestParser::read(std::string& input) {
  return state_->parser.is_header_done() ? state_->read_body(input)
                                         : state_->read_header(input);
}

const ApiError& RequestParser::refusal() const {
  return state_->refusal;
}

HttpRequest& RequestParser::request() {
  return state_->parser.request;
}

const std::string& RequestParser::target() const {
  return state_->parser.target;
}

bool RequestParser::is_head() const {
  return state_->head;
}

bool RequestParser::is_http10() const {
  return state_->parser.http10;
}

bool RequestParser::expects_continue() const {
  return state_->waits_for_continue;
}

bool RequestParser::keep_alive() const {
  return state_->parser.is_header_done() && state_->parser.keep_alive();
}

} // namespace optiq::server
