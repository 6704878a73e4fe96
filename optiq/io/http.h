#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace optiq::io {

/** Scheme, host and port of a URL, as what may share a secret. */
struct Origin {
  std::string scheme; // "https", "http"
  std::string host; // lower case
  std::string port; // with the default of the scheme filled in

  bool operator==(const Origin&) const = default;
};

/** Throws InvalidInput for what is no http(s) URL or carries a password. */
Origin origin_of(const std::string& url);

/** Whether the host of a URL is this machine: "localhost", an IPv4 address of
 * 127.0.0.0/8 or "[::1]". Other names may resolve to anything. */
bool is_loopback(const std::string& host);

/** Whether an IP address is of this machine or a private network. */
bool is_private_address(const std::string& address);

/** The head of an answer. */
struct HttpHead {
  long status = 0;
  /** Names in lower case. */
  std::map<std::string, std::string> headers;
  std::string url; // that gave it

  /** The value, or "". */
  std::string header(const std::string& name) const;
};

struct HttpRequest {
  std::string url;
  std::uint64_t first_byte = 0; // > 0: asks for the rest from there
  std::string if_match; // an ETag; sent to `if_match_origin` only
  Origin if_match_origin;
  long connect_timeout_s = 10;
  /** Fewer than 1 KiB a second for so long is a broken connection. */
  long stall_timeout_s = 60; // 0: never
  long total_timeout_s = 0; // of the whole answer; 0: as long as bytes come
  /** What is posted, in place of a GET. */
  std::optional<std::string> json;
  /** The socket through which the URL's host is reached, or "". */
  std::string unix_socket;
  /** Called several times a second until the answer is there; may throw, which
   * ends the transfer. */
  std::function<void()> on_wait;
};

struct HttpResult {
  HttpHead first; // of the address asked
  HttpHead last; // after all redirects
  /** What broke the connection; absent when the answer came to its end. */
  std::optional<std::string> broken;
};

/**
 * GET and POST over https, and over http only where `home` is http itself. The
 * bearer token goes to `home` and nowhere else; each redirect is checked, at
 * most five are followed, and none leads from a public address to a private
 * one.
 */
class HttpClient {
 public:
  /** May throw; that ends the transfer, and send throws it on. */
  using Body = std::function<void(std::span<const std::byte>)>;
  using Head = std::function<void(const HttpResult&)>;

  /** `ca_file`: certificate authorities instead of the system's, or "". */
  HttpClient(Origin home, std::string token, std::string ca_file);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /**
   * Asks once. `on_head` sees the answer before its body, which `on_body` takes
   * in pieces; of an error only where something was posted, and what is posted
   * is not redirected. A broken connection is a result; a refused redirect or
   * certificate, and a body beyond `max_bytes`, are Errors.
   */
  HttpResult send(
      const HttpRequest& request,
      std::uint64_t max_bytes,
      const Head& on_head,
      const Body& on_body);

 private:
  struct Transfer;
  void set_options(Transfer& transfer, const HttpRequest& request);
  std::optional<std::string> perform(
      Transfer& transfer,
      const HttpRequest& request);
  int drive(Transfer& transfer, const HttpRequest& request);
  std::vector<std::string> header_lines(
      const HttpRequest& request,
      const Origin& origin) const;
  std::string redirect_target(const HttpHead& head) const;

  Origin home_;
  std::string token_;
  std::string ca_file_;
  bool home_is_public_ = false; // a public address has answered for it
  std::shared_ptr<void> handle_; // CURL
  std::shared_ptr<void> multi_; // CURLM: holds the connections
};

} // namespace optiq::io
