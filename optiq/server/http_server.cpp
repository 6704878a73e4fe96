#include "optiq/server/http_server.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include "optiq/server/connection_impl.h"
#include "optiq/server/error_response.h"
#include "optiq/server/http_loop_impl.h"

namespace optiq::server {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::milliseconds;

constexpr std::size_t kReadBytes = 64u << 10;
/** Peers taken in one go, before those that are there get their turn. */
constexpr int kMaxAccepts = 64;

/** Often enough for the shortest deadline. */
milliseconds choose_tick(const HttpServerOptions& options) {
  const milliseconds shortest = std::min(
      {options.header_timeout,
       options.body_timeout,
       options.idle_timeout,
       options.write_timeout,
       options.comment_interval});
  return std::clamp(shortest / 4, milliseconds(5), milliseconds(250));
}

/** To one peer too many. What does not fit into its socket's buffer is lost,
 * which is empty. */
void refuse_connection(asio::io_context& io, const Accepted& accepted) {
  asio::generic::stream_protocol::socket socket(
      io, asio::generic::stream_protocol(accepted.family, 0), accepted.fd);
  const std::string response = format_response(
      error_response(
          {.status = 503,
           .message = "too many connections",
           .code = "too_many_connections"}),
      "-",
      {.keep_alive = false});
  error_code ignored; // it is closed in any case
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(response), ignored);
  socket.shutdown(asio::socket_base::shutdown_send, ignored);
}

} // namespace

HttpLoop::HttpLoop(HttpServerOptions options, HttpHandler handler)
    : options_(std::move(options)),
      handler_(std::move(handler)),
      tick_interval_(choose_tick(options_)),
      read_buffer_(kReadBytes),
      id_prefix_(std::random_device{}()) {
  if (options_.unix_socket.empty()) {
    listener_.emplace(options_.host, options_.port);
  } else {
    listener_.emplace(options_.unix_socket);
  }
  port_ = listener_->port();
  for (const int fd : listener_->fds()) {
    listening_.emplace_back(io_, fd);
  }
}

HttpLoop::~HttpLoop() {
  close_all();
}

void HttpLoop::close_all() {
  close_listener();
  for (const auto& connection : open_connections()) {
    connection->drop();
  }
}

void HttpLoop::close_listener() {
  for (auto& listening : listening_) {
    listening.release(); // the listener closes it
  }
  listening_.clear();
  listener_.reset();
}

int HttpLoop::port() const {
  return port_;
}

void HttpLoop::run() {
  for (auto& listening : listening_) {
    wait_for_peers(listening);
  }
  schedule_tick();
  io_.run();
  {
    const std::lock_guard lock(post_mutex_);
    ended_ = true;
  }
  io_.restart();
  io_.poll(); // what was posted meanwhile
}

void HttpLoop::stop(milliseconds grace) {
  post([this, grace] { begin_stop(grace); });
}

void HttpLoop::begin_stop(milliseconds grace) {
  stop_at_ = Clock::now() + grace;
  close_listener();
  for (const auto& connection : open_connections()) {
    connection->wind_down();
  }
  if (connections_.empty()) {
    ticker_.cancel();
  }
}

void HttpLoop::post(std::function<void()> call) {
  {
    const std::lock_guard lock(post_mutex_);
    if (!ended_) {
      asio::post(io_, std::move(call));
      return;
    }
  }
  call();
}

const HttpServerOptions& HttpLoop::options() const {
  return options_;
}

void HttpLoop::handle(
    HttpRequest request,
    const std::shared_ptr<HttpReply>& reply) {
  try {
    handler_(std::move(request), reply);
  } catch (const std::exception& e) {
    reply->respond(error_response({.status = 500, .message = e.what()}));
  }
}

bool HttpLoop::is_stopping() const {
  return stop_at_.has_value();
}

std::string HttpLoop::next_request_id() {
  return fmt::format("{:08x}{:08x}", id_prefix_, ++last_id_);
}

std::vector<char>& HttpLoop::read_buffer() {
  return read_buffer_;
}

void HttpLoop::remove(Connection& connection) {
  connections_.erase(&connection);
  if (is_stopping() && connections_.empty()) {
    ticker_.cancel();
  }
}

std::vector<std::shared_ptr<Connection>> HttpLoop::open_connections() const {
  std::vector<std::shared_ptr<Connection>> open;
  open.reserve(connections_.size());
  for (const auto& [connection, owner] : connections_) {
    open.push_back(owner);
  }
  return open;
}

void HttpLoop::wait_for_peers(asio::posix::stream_descriptor& listening) {
  listening.async_wait(
      asio::posix::descriptor_base::wait_read,
      [this, &listening](const error_code& error) {
        if (!error && !is_stopping()) {
          accept_peers(listening);
        }
      });
}

void HttpLoop::accept_peers(asio::posix::stream_descriptor& listening) {
  for (int i = 0; i < kMaxAccepts; ++i) {
    Accepted accepted = accept_connection(listening.native_handle());
    if (accepted.exhausted) {
      accepting_paused_ = true; // until the next tick
      return;
    }
    if (accepted.fd < 0) {
      break;
    }
    if (connections_.size() >= options_.max_connections) {
      refuse_connection(io_, accepted);
      continue;
    }
    add(std::move(accepted));
  }
  wait_for_peers(listening);
}

void HttpLoop::add(Accepted accepted) {
  const auto connection =
      std::make_shared<Connection>(*this, io_, std::move(accepted));
  connections_.emplace(connection.get(), connection);
  connection->start();
}

void HttpLoop::schedule_tick() {
  ticker_.expires_after(tick_interval_);
  ticker_.async_wait([this](const error_code& error) {
    if (!error) {
      tick();
    }
  });
}

void HttpLoop::tick() {
  const auto now = Clock::now();
  const bool out_of_time = stop_at_ && now >= *stop_at_;
  for (const auto& connection : open_connections()) {
    if (out_of_time) {
      connection->drop();
    } else {
      connection->on_tick(now);
    }
  }
  if (std::exchange(accepting_paused_, false)) {
    for (auto& listening : listening_) {
      wait_for_peers(listening);
    }
  }
  if (!is_stopping() || !connections_.empty()) {
    schedule_tick();
  }
}

HttpServer::HttpServer(HttpServerOptions options, HttpHandler handler)
    : loop_(
          std::make_shared<HttpLoop>(std::move(options), std::move(handler))) {}

HttpServer::~HttpServer() {
  loop_->close_all();
}

void HttpServer::set_access_log(std::function<void(const HttpAccess&)> log) {
  loop_->access_log = std::move(log);
}

void HttpServer::set_gate(
    std::function<std::optional<HttpResponse>(const HttpRequest&)> gate) {
  loop_->gate = std::move(gate);
}

int HttpServer::port() const {
  return loop_->port();
}

void HttpServer::run() {
  loop_->run();
}

void HttpServer::stop(milliseconds grace) {
  loop_->stop(grace);
}

void HttpServer::post(std::function<void()> call) {
  loop_->post(std::move(call));
}

} // namespace optiq::server
