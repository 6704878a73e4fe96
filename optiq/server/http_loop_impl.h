#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "optiq/server/http_server.h"
#include "optiq/server/listener_impl.h"

namespace optiq::server {

class Connection;

/** What HttpServer is made of: the listening sockets, the connections with
 * their deadlines, and the loop that runs them on one thread. */
class HttpLoop : public std::enable_shared_from_this<HttpLoop> {
 public:
  HttpLoop(HttpServerOptions options, HttpHandler handler);
  ~HttpLoop();
  HttpLoop(const HttpLoop&) = delete;
  HttpLoop& operator=(const HttpLoop&) = delete;

  int port() const;
  void run();
  void stop(std::chrono::milliseconds grace);
  /** After run it calls at once: no thread is left to do it. */
  void post(std::function<void()> call);
  /** Closes everything; for the end, when nobody runs it. */
  void close_all();

  std::function<void(const HttpAccess&)> access_log;
  std::function<std::optional<HttpResponse>(const HttpRequest&)> gate;

  // For connections, on the thread of run.
  const HttpServerOptions& options() const;
  void handle(HttpRequest request, const std::shared_ptr<HttpReply>& reply);
  bool is_stopping() const;
  std::string next_request_id();
  std::vector<char>& read_buffer();
  void remove(Connection& connection);

 private:
  using Clock = std::chrono::steady_clock;

  /** Some of which may be closed while one walks over them. */
  std::vector<std::shared_ptr<Connection>> open_connections() const;
  void wait_for_peers(boost::asio::posix::stream_descriptor& listening);
  void accept_peers(boost::asio::posix::stream_descriptor& listening);
  void add(Accepted accepted);
  void schedule_tick();
  void tick();
  void close_listener();
  void begin_stop(std::chrono::milliseconds grace);

  const HttpServerOptions options_;
  const HttpHandler handler_;
  // Before all that refers to it: handlers that it still holds at the end own
  // connections.
  boost::asio::io_context io_{1};
  std::optional<Listener> listener_;
  int port_ = 0;
  std::vector<boost::asio::posix::stream_descriptor> listening_;
  boost::asio::steady_timer ticker_{io_};
  std::chrono::milliseconds tick_interval_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  std::vector<char> read_buffer_; // of whoever reads
  bool accepting_paused_ = false;
  std::optional<Clock::time_point> stop_at_;
  std::uint32_t id_prefix_;
  std::uint32_t last_id_ = 0;
  std::mutex post_mutex_; // guards ended_
  bool ended_ = false;
};

} // namespace optiq::server
