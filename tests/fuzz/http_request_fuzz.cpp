// "<step><bytes>": a request as it comes from a socket, whole and in pieces of
// <step> bytes, and whether it may be served.
#include <algorithm>

#include "fuzz/fuzz_support.h"

#include "optiq/server/access.h"
#include "optiq/server/http_parser_impl.h"

namespace optiq::fuzz {
namespace {

using server::HttpRequest;
using server::RequestParser;
using Progress = RequestParser::Progress;

constexpr std::size_t kMaxHeaderBytes = 1024;
constexpr std::size_t kMaxBodyBytes = 2000;

struct Parsed {
  RequestParser parser{kMaxHeaderBytes, kMaxBodyBytes};
  Progress progress = Progress::NeedsMore;
  std::size_t used = 0; // bytes, where it is done
};

Parsed parse(std::string_view bytes, std::size_t step) {
  Parsed parsed;
  std::string input;
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    input += bytes.substr(at, step);
    do {
      parsed.progress = parsed.parser.read(input);
    } while (parsed.progress == Progress::HeaderDone);
    if (parsed.progress != Progress::NeedsMore) {
      parsed.used = std::min(at + step, bytes.size()) - input.size();
      break;
    }
    require(
        input.size() <= kMaxHeaderBytes, "what waits to be parsed is bounded");
  }
  return parsed;
}

void check_request(const HttpRequest& request, bool http10) {
  require(
      request.path.starts_with('/') || request.path == "*", "a path is one");
  require(request.path.find('\0') == std::string::npos, "a path has no byte 0");
  require(request.body.size() <= kMaxBodyBytes, "a body is within its limit");
  std::size_t hosts = 0;
  std::size_t lengths = 0;
  for (const auto& [name, value] : request.headers) {
    require(
        std::none_of(
            name.begin(),
            name.end(),
            [](char c) { return c <= ' ' || (c >= 'A' && c <= 'Z'); }),
        "a name is a token in lower case");
    require(
        value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos,
        "a value is one line");
    hosts += name == "host" ? 1 : 0;
    lengths += name == "content-length" || name == "transfer-encoding" ? 1 : 0;
  }
  require(hosts == 1 || (http10 && hosts == 0), "a request has one host");
  require(lengths <= 1, "a request has one end");
}

void check_answerable(const HttpRequest& request) {
  const server::AccessRules rules{
      .api_keys = {"key"}, .allowed_origins = {"https://app.example"}};
  const server::Access access = server::check_access(request, rules);
  const auto key = request.header("x-api-key");
  const auto bearer = request.header("authorization");
  require(
      access.tenant.empty() || (key && *key == "key") ||
          (bearer && bearer->ends_with("key")),
      "a tenant showed the key");
}

} // namespace
} // namespace optiq::fuzz

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq::fuzz;
  if (size == 0) {
    return 0;
  }
  const std::size_t step = data[0] == 0 ? 1 : data[0];
  const std::string_view bytes = as_text(data + 1, size - 1);
  Parsed whole = parse(bytes, std::max<std::size_t>(bytes.size(), 1));
  Parsed pieces = parse(bytes, step);
  require(whole.progress == pieces.progress, "pieces are read as the whole is");
  if (whole.progress == Progress::Refused) {
    require(whole.parser.refusal().status >= 400, "a refusal has a status");
    return 0;
  }
  if (whole.progress != Progress::Done) {
    return 0;
  }
  const HttpRequest& request = whole.parser.request();
  const HttpRequest& other = pieces.parser.request();
  require(
      whole.used == pieces.used && request.path == other.path &&
          request.headers == other.headers && request.body == other.body,
      "pieces are read as the whole is");
  check_request(request, whole.parser.is_http10());
  check_answerable(request);
  return 0;
}
