#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "optiq/server/http_message.h"

namespace optiq::server {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080; // 0: any free one
  std::string unix_socket; // a path; instead of host and port
  std::size_t max_header_bytes = 16u << 10;
  std::size_t max_body_bytes = 64u << 20;
  std::size_t max_connections = 4096;
  std::size_t max_unsent_bytes = 4u << 20; // of one stream, then it is cut
  std::chrono::milliseconds header_timeout{10'000};
  std::chrono::milliseconds body_timeout{60'000};
  std::chrono::milliseconds idle_timeout{75'000}; // keep-alive
  std::chrono::milliseconds write_timeout{
      60'000}; // of a peer that takes nothing
  std::chrono::milliseconds comment_interval{15'000};
};

/** What was answered, for the access log. */
struct HttpAccess {
  std::string id, peer, method, target;
  int status = 0;
  std::size_t bytes_sent = 0;
  double seconds = 0; // from the last byte of the request to the end
  bool gone = false; // the peer left before the end
};

class HttpLoop;

/**
 * An HTTP/1.1 server with keep-alive and server-sent events on one thread, that
 * of run (RFC 9112; HTML, "Server-sent events"). Requests that are no HTTP, or
 * too large, it answers itself. A peer that closes its side has gone, for
 * nothing tells it from one that closed both: an answer that is not at once
 * there is dropped.
 */
class HttpServer {
 public:
  /** Binds and listens. Throws Denied or InvalidInput naming the address. */
  HttpServer(HttpServerOptions options, HttpHandler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /** Called on the thread of run. Set before it. */
  void set_access_log(std::function<void(const HttpAccess&)> log);
  /** Asked on the thread of run about a request whose body has not been read:
   * what it returns is the answer, and the body stays unread. Set before run.
   */
  void set_gate(
      std::function<std::optional<HttpResponse>(const HttpRequest&)> gate);
  /** The port that it listens on; 0 with a unix socket. */
  int port() const;
  /** Serves until stop has ended everything. */
  void run();
  /** From any thread: accepts nobody more, lets answers that have begun end,
   * closes what is left after `grace`. run returns then. */
  void stop(std::chrono::milliseconds grace);
  /** From any thread: on the thread of run, soon. */
  void post(std::function<void()> call);

 private:
  std::shared_ptr<HttpLoop> loop_; // replies know it weakly
};

} // namespace optiq::server
