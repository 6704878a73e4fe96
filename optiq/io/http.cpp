#include "optiq/io/http.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <exception>
#include <utility>

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/version.h"

namespace optiq::io {
namespace {

constexpr int kMaxRedirects = 5;
constexpr std::size_t kMaxHeaders = 200;
constexpr std::uint64_t kMaxErrorBytes = 1 << 20; // of an error page, unread
constexpr long kMinBytesPerSecond = 1024;
constexpr int kPollMilliseconds = 100;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  return text;
}

using Url = std::unique_ptr<CURLU, decltype(&curl_url_cleanup)>;

/** The URL; a second one is resolved against it. Null when it is none. */
Url parse_url(const std::string& url, const std::string& relative = {}) {
  constexpr unsigned kFlags = CURLU_DISALLOW_USER;
  Url parsed(curl_url(), curl_url_cleanup);
  if (!parsed ||
      curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), kFlags) !=
          CURLUE_OK ||
      (!relative.empty() &&
       curl_url_set(parsed.get(), CURLUPART_URL, relative.c_str(), kFlags) !=
           CURLUE_OK)) {
    parsed.reset();
  }
  return parsed;
}

std::string part(const Url& url, CURLUPart what) {
  char* text = nullptr;
  if (curl_url_get(url.get(), what, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) {
    return {};
  }
  std::string result = text;
  curl_free(text);
  return result;
}

bool is_private_ipv4(std::uint32_t a) {
  struct Block {
    std::uint32_t base;
    int bits;
  };
  // This host, private use, carrier NAT, loopback, link local; RFC 6890.
  constexpr Block kBlocks[] = {
      {0x00000000, 8},
      {0x0a000000, 8},
      {0x64400000, 10},
      {0x7f000000, 8},
      {0xa9fe0000, 16},
      {0xac100000, 12},
      {0xc0a80000, 16},
  };
  return std::any_of(std::begin(kBlocks), std::end(kBlocks), [a](Block b) {
    return (a ^ b.base) >> (32 - b.bits) == 0;
  });
}

bool is_private_ipv6(const in6_addr& address) {
  const std::uint8_t* b = address.s6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&address)) {
    return is_private_ipv4(
        std::uint32_t{b[12]} << 24 | std::uint32_t{b[13]} << 16 |
        std::uint32_t{b[14]} << 8 | b[15]);
  }
  return IN6_IS_ADDR_LOOPBACK(&address) || IN6_IS_ADDR_UNSPECIFIED(&address) ||
      IN6_IS_ADDR_LINKLOCAL(&address) || (b[0] & 0xfe) == 0xfc; // fc00::/7
}

/** Of a unix socket, which has none, "". */
std::string address_of(const curl_sockaddr& socket) {
  if (socket.family == AF_UNIX) {
    return {};
  }
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* bytes = socket.family == AF_INET6
      ? static_cast<const void*>(
            &reinterpret_cast<const sockaddr_in6&>(socket.addr).sin6_addr)
      : static_cast<const void*>(
            &reinterpret_cast<const sockaddr_in&>(socket.addr).sin_addr);
  return ::inet_ntop(socket.family, bytes, text.data(), text.size()) == nullptr
      ? ""
      : text.data();
}

/** Errors that another attempt may not meet. */
bool is_broken_connection(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return true;
    default:
      return false;
  }
}

bool is_redirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 ||
      status == 308;
}

/** What is asked for, and through what. */
void set_question(CURL* handle, const HttpRequest& request) {
  if (request.first_byte > 0) {
    curl_easy_setopt(
        handle, CURLOPT_RANGE, fmt::format("{}-", request.first_byte).c_str());
  }
  if (request.json) {
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request.json->data());
    curl_easy_setopt(
        handle,
        CURLOPT_POSTFIELDSIZE_LARGE,
        static_cast<curl_off_t>(request.json->size()));
  }
  if (!request.unix_socket.empty()) {
    curl_easy_setopt(
        handle, CURLOPT_UNIX_SOCKET_PATH, request.unix_socket.c_str());
  }
}

} // namespace

Origin origin_of(const std::string& url) {
  const Url parsed = parse_url(url);
  Origin origin;
  if (parsed) {
    origin = {
        lower(part(parsed, CURLUPART_SCHEME)),
        lower(part(parsed, CURLUPART_HOST)),
        part(parsed, CURLUPART_PORT)};
  }
  if (!parsed || (origin.scheme != "https" && origin.scheme != "http")) {
    fail(
        ErrorKind::InvalidInput,
        "[origin_of] found '{}', expected an https address without user name",
        url);
  }
  return origin;
}

bool is_loopback(const std::string& host) {
  in_addr v4{};
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    return ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET;
  }
  return host == "localhost" || host == "[::1]";
}

bool is_private_address(const std::string& address) {
  in_addr v4{};
  in6_addr v6{};
  if (::inet_pton(AF_INET, address.c_str(), &v4) == 1) {
    return is_private_ipv4(ntohl(v4.s_addr));
  }
  return ::inet_pton(AF_INET6, address.c_str(), &v6) != 1 ||
      is_private_ipv6(v6);
}

std::string HttpHead::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string() : found->second;
}

/** One GET with its redirects, and what libcurl's callbacks need of it. */
struct HttpClient::Transfer {
  CURL* handle = nullptr;
  CURLM* multi = nullptr;
  const Head* on_head = nullptr;
  const Body* on_body = nullptr;
  std::uint64_t max_bytes = 0;
  std::uint64_t received = 0;
  bool head_seen = false;
  bool is_first_hop = true;
  bool is_post = false;
  bool* home_is_public = nullptr;
  std::string refused_address;
  HttpHead head;
  HttpResult result;
  std::exception_ptr thrown;

  /** Runs a step of a callback; an exception must not pass through C. */
  template <typename Step>
  bool guard(Step&& step) {
    try {
      step();
      return true;
    } catch (...) {
      thrown = std::current_exception();
      return false;
    }
  }

  void take_header(std::string_view line) {
    if (line.starts_with("HTTP/")) { // also after "100 Continue"
      head.headers.clear();
      return;
    }
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || head.headers.size() > kMaxHeaders) {
      return;
    }
    constexpr std::string_view kBlanks = " \t\r\n";
    std::string value(line.substr(colon + 1));
    value.erase(0, std::min(value.find_first_not_of(kBlanks), value.size()));
    value.erase(value.find_last_not_of(kBlanks) + 1);
    // Values reach messages, and messages a terminal.
    std::replace_if(
        value.begin(),
        value.end(),
        [](unsigned char c) { return c < ' '; },
        '?');
    head.headers[lower(std::string(line.substr(0, colon)))] = value;
  }

  /** Completes the head when the body starts, or ends without a byte. */
  void finish_head() {
    if (head_seen) {
      return;
    }
    head_seen = true;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &head.status);
    if (is_first_hop) {
      result.first = head;
    }
    result.last = head;
    if (!is_redirect(head.status)) {
      (*on_head)(result);
    }
  }

  void take_body(std::span<const std::byte> bytes) {
    finish_head();
    const bool is_wanted = head.status >= 200 && head.status < 300;
    const std::uint64_t limit = is_wanted ? max_bytes : kMaxErrorBytes;
    received += bytes.size();
    if (received > limit) {
      fail(
          ErrorKind::Corrupt,
          "[HttpClient::send] {}: found a body of more than {} bytes, expected "
          "at most that",
          head.url,
          limit);
    }
    if (is_wanted || is_post) {
      (*on_body)(bytes);
    }
  }
};

HttpClient::HttpClient(Origin home, std::string token, std::string ca_file)
    : home_(std::move(home)),
      token_(std::move(token)),
      ca_file_(std::move(ca_file)) {
  if (std::any_of(token_.begin(), token_.end(), [](unsigned char c) {
        return c <= ' ' || c >= 0x7f;
      })) {
    fail(
        ErrorKind::InvalidInput,
        "[HttpClient] the token holds a space, a control or a non-ASCII "
        "character, expected one word. Check HF_TOKEN and the token file");
  }
  if (!token_.empty() && home_.scheme == "http" && !is_loopback(home_.host)) {
    fail(
        ErrorKind::Denied,
        "[HttpClient] http://{}: the token would travel in clear text. Use "
        "https, or go without the token",
        home_.host);
  }
  CURL* handle = curl_easy_init();
  handle_ = std::shared_ptr<void>(handle, curl_easy_cleanup);
  CURLM* multi = curl_multi_init();
  multi_ = std::shared_ptr<void>(multi, curl_multi_cleanup);
  if (handle == nullptr || multi == nullptr) {
    throw std::bad_alloc();
  }
}

HttpClient::~HttpClient() = default;

std::vector<std::string> HttpClient::header_lines(
    const HttpRequest& request,
    const Origin& origin) const {
  std::vector<std::string> lines;
  if (!token_.empty() && origin == home_) {
    lines.push_back("Authorization: Bearer " + token_);
  }
  if (request.json) {
    lines.emplace_back("Content-Type: application/json");
    lines.emplace_back("Expect:"); // no round trip before the body
  }
  if (!request.if_match.empty() && origin == request.if_match_origin) {
    lines.push_back("If-Match: " + request.if_match);
  }
  return lines;
}

void HttpClient::set_options(Transfer& transfer, const HttpRequest& request) {
  CURL* const handle = handle_.get();
  curl_easy_reset(handle);
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle, CURLOPT_UNRESTRICTED_AUTH, 0L);
  curl_easy_setopt(
      handle,
      CURLOPT_PROTOCOLS_STR,
      home_.scheme == "http" ? "http,https" : "https");
  curl_easy_setopt(
      handle, CURLOPT_USERAGENT, fmt::format("optiq/{}", kVersion).c_str());
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT, request.connect_timeout_s);
  curl_easy_setopt(handle, CURLOPT_TIMEOUT, request.total_timeout_s);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, kMinBytesPerSecond);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, request.stall_timeout_s);
  if (!ca_file_.empty()) {
    curl_easy_setopt(handle, CURLOPT_CAINFO, ca_file_.c_str());
  }
  curl_easy_setopt(handle, CURLOPT_BUFFERSIZE, 512L * 1024);
  set_question(handle, request);
  using Write = std::size_t (*)(char*, std::size_t, std::size_t, void*);
  const Write on_header = [](char* data, std::size_t, std::size_t n, void* at) {
    auto& self = *static_cast<Transfer*>(at);
    return self.guard([&] { self.take_header({data, n}); }) ? n : 0;
  };
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, &transfer);
  const Write on_bytes = [](char* data, std::size_t, std::size_t n, void* at) {
    auto& self = *static_cast<Transfer*>(at);
    const auto bytes = std::as_bytes(std::span(data, n));
    return self.guard([&] { self.take_body(bytes); }) ? n : 0;
  };
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_bytes);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  using Open = curl_socket_t (*)(void*, curlsocktype, curl_sockaddr*);
  const Open open_socket = [](void* at, curlsocktype, curl_sockaddr* address) {
    auto& self = *static_cast<Transfer*>(at);
    const std::string text = address_of(*address);
    const bool is_private = is_private_address(text);
    if (self.is_first_hop) {
      *self.home_is_public = *self.home_is_public || !is_private;
    } else if (is_private && *self.home_is_public) {
      self.refused_address = text;
      return CURL_SOCKET_BAD;
    }
    return ::socket(
        address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  };
  curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  curl_easy_setopt(handle, CURLOPT_OPENSOCKETDATA, &transfer);
}

std::string HttpClient::redirect_target(const HttpHead& head) const {
  const std::string location = head.header("location");
  const Url target = parse_url(head.url, location);
  const std::string scheme =
      target ? lower(part(target, CURLUPART_SCHEME)) : std::string();
  if (location.empty() ||
      (scheme != "https" && (scheme != "http" || home_.scheme != "http"))) {
    fail(
        ErrorKind::Denied,
        "[HttpClient::send] {}: redirects to '{}', expected an {} address",
        head.url,
        location,
        home_.scheme == "http" ? "http or https" : "https");
  }
  char* text = nullptr;
  curl_url_get(target.get(), CURLUPART_URL, &text, 0);
  std::string url = text == nullptr ? "" : text;
  curl_free(text);
  return url;
}

/** Runs the prepared transfer to its end, as curl_easy_perform, which would
 * leave no moment to stop it. Returns a CURLcode. */
int HttpClient::drive(Transfer& transfer, const HttpRequest& request) {
  CURLM* const multi = multi_.get();
  if (curl_multi_add_handle(multi, transfer.handle) != CURLM_OK) {
    throw std::bad_alloc(); // its only reason for a new handle
  }
  const std::unique_ptr<Transfer, void (*)(Transfer*)> removal(
      &transfer,
      [](Transfer* t) { curl_multi_remove_handle(t->multi, t->handle); });
  for (int n_running = 1; n_running > 0;) {
    if (request.on_wait) {
      request.on_wait();
    }
    const CURLMcode code = curl_multi_perform(multi, &n_running);
    if (code != CURLM_OK ||
        (n_running > 0 &&
         curl_multi_poll(multi, nullptr, 0, kPollMilliseconds, nullptr) !=
             CURLM_OK)) {
      return CURLE_RECV_ERROR;
    }
  }
  int n_left = 0;
  const CURLMsg* const message = curl_multi_info_read(multi, &n_left);
  return message == nullptr ? CURLE_RECV_ERROR : message->data.result;
}

std::optional<std::string> HttpClient::perform(
    Transfer& transfer,
    const HttpRequest& request) {
  set_options(transfer, request);
  const std::string& url = transfer.head.url;
  std::array<char, CURL_ERROR_SIZE> detail{};
  curl_easy_setopt(transfer.handle, CURLOPT_ERRORBUFFER, detail.data());
  curl_easy_setopt(transfer.handle, CURLOPT_URL, url.c_str());
  std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> list(
      nullptr, curl_slist_free_all);
  for (const std::string& line : header_lines(request, origin_of(url))) {
    list.reset(curl_slist_append(list.release(), line.c_str()));
  }
  curl_easy_setopt(transfer.handle, CURLOPT_HTTPHEADER, list.get());
  const auto code = static_cast<CURLcode>(drive(transfer, request));
  if (transfer.thrown) {
    std::rethrow_exception(transfer.thrown);
  }
  if (!transfer.refused_address.empty()) {
    fail(
        ErrorKind::Denied,
        "[HttpClient::send] {}: redirected to {}, an address of a private "
        "network, expected a public one",
        url,
        transfer.refused_address);
  }
  if (code == CURLE_OK) {
    transfer.finish_head();
    return std::nullopt;
  }
  std::string reason =
      detail[0] != '\0' ? detail.data() : curl_easy_strerror(code);
  if (!is_broken_connection(code)) {
    fail(ErrorKind::Io, "[HttpClient::send] {}: {}", url, reason);
  }
  return reason;
}

HttpResult HttpClient::send(
    const HttpRequest& request,
    std::uint64_t max_bytes,
    const Head& on_head,
    const Body& on_body) {
  Transfer transfer;
  transfer.handle = handle_.get();
  transfer.multi = multi_.get();
  transfer.on_head = &on_head;
  transfer.on_body = &on_body;
  transfer.max_bytes = max_bytes;
  transfer.home_is_public = &home_is_public_;
  transfer.is_post = request.json.has_value();
  std::string url = request.url;
  for (int hop = 0; hop <= kMaxRedirects; ++hop) {
    transfer.is_first_hop = hop == 0;
    transfer.head_seen = false;
    transfer.received = 0;
    transfer.head = {.status = 0, .headers = {}, .url = url};
    transfer.result.broken = perform(transfer, request);
    if (transfer.result.broken || transfer.is_post ||
        !is_redirect(transfer.head.status)) {
      return std::move(transfer.result);
    }
    url = redirect_target(transfer.head);
  }
  fail(
      ErrorKind::Denied,
      "[HttpClient::send] {}: found more than {} redirects",
      request.url,
      kMaxRedirects);
}

} // namespace optiq::io
