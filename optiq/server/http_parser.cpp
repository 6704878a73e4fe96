#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>

#include <boost/beast/http/basic_parser.hpp>
#include <fmt/format.h>

#include "optiq/server/body_reader_impl.h"
#include "optiq/server/http_parser_impl.h"
#include "optiq/server/request_target.h"

namespace optiq::server {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using beast::error_code;

/** Beast's parser of a header, writing straight into an HttpRequest. */
class Collector final : public http::basic_parser<true> {
 public:
  HttpRequest request;
  std::string target;
  bool http10 = false;

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
    request.headers.emplace_back(
        lower_case({name.data(), name.size()}),
        std::string(value.data(), value.size()));
  }
  void on_header_impl(error_code& /*ec*/) override {}
  void on_body_init_impl(
      const boost::optional<std::uint64_t>& /*length*/,
      error_code& /*ec*/) override {}
  std::size_t on_body_impl(beast::string_view /*body*/, error_code& /*ec*/)
      override {
    return 0; // BodyReader's
  }
  void on_chunk_header_impl(
      std::uint64_t /*size*/,
      beast::string_view /*extensions*/,
      error_code& /*ec*/) override {}
  std::size_t on_chunk_body_impl(
      std::uint64_t /*remain*/,
      beast::string_view /*body*/,
      error_code& /*ec*/) override {
    return 0;
  }
  void on_finish_impl(error_code& /*ec*/) override {}
};

ApiError explain(const error_code& error, std::size_t max_body_bytes) {
  if (error == http::error::body_limit) {
    return body_too_large(max_body_bytes);
  }
  if (error == http::error::bad_version) {
    return {
        .status = 505,
        .message = "expected HTTP/1.0 or HTTP/1.1",
        .code = "bad_version"};
  }
  return bad_request("this is no HTTP: " + error.message());
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
  std::optional<BodyReader> body; // behind the header
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
    return refuse(too_long("the header is", max_header_bytes));
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
  const auto length = parser.content_length();
  if (!parser.chunked() && length.value_or(0) == 0) {
    return Progress::Done;
  }
  body.emplace(
      parser.chunked() ? std::nullopt : std::optional(*length),
      max_header_bytes,
      max_body_bytes);
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
  return Progress::HeaderDone;
}

RequestParser::Progress RequestParser::State::read_body(std::string& input) {
  switch (body->read(input, parser.request.body)) {
    case BodyReader::Progress::NeedsMore:
      return Progress::NeedsMore;
    case BodyReader::Progress::Done:
      return Progress::Done;
    case BodyReader::Progress::Refused:
      break;
  }
  return refuse(body->refusal());
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
  return state_->body ? state_->read_body(input) : state_->read_header(input);
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
