#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>

#include "optiq/server/access.h"
#include "optiq/server/http_server.h"
#include "optiq/server/service.h"

namespace optiq::server {

/** Endpoints behind an HTTP server, which runs on a thread of its own. */
class Server {
 public:
  /** Listens. Until `open` every answer is 503, so that a port in use is found,
   * and probes are answered, before a model is loaded. Throws as HttpServer. */
  Server(
      HttpServerOptions options,
      AccessRules rules,
      std::function<void(const HttpAccess&)> access_log);
  /** Cuts what is open. */
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  /** From now on the service answers. Once. */
  void open(std::unique_ptr<Service> service);
  /** Accepts nobody more, has the service drain for `grace`, and returns when
   * all that it sent has arrived, or a second after that. Once. */
  void close(std::chrono::milliseconds grace);

 private:
  void handle(HttpRequest request, std::shared_ptr<HttpReply> reply);

  std::unique_ptr<Service> service_; // after open
  std::atomic<Service*> opened_{nullptr};
  HttpServer http_;
  std::thread thread_; // of http_
};

} // namespace optiq::server
