#pragma once

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "optiq/server/http_server.h"

namespace optiq::test {

/** A server on a thread of its own and a free port, or a unix socket. */
class RunningServer {
 public:
  RunningServer(server::HttpServerOptions options, server::HttpHandler handler)
      : server_(on_free_port(std::move(options)), std::move(handler)) {}
  ~RunningServer() {
    stop(std::chrono::milliseconds(0));
  }
  RunningServer(const RunningServer&) = delete;
  RunningServer& operator=(const RunningServer&) = delete;

  server::HttpServer& http() {
    return server_;
  }
  void start() {
    thread_ = std::thread([this] { server_.run(); });
  }
  int port() const {
    return server_.port();
  }
  /** Returns when run has. */
  void stop(std::chrono::milliseconds grace) {
    if (thread_.joinable()) {
      server_.stop(grace);
      thread_.join();
    }
  }

 private:
  static server::HttpServerOptions on_free_port(
      server::HttpServerOptions options) {
    options.port = 0;
    return options;
  }

  server::HttpServer server_;
  std::thread thread_;
};

/** A peer that sends any bytes, and waits at most ten seconds for an answer. */
class RawClient {
 public:
  explicit RawClient(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connect_to(reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  explicit RawClient(const std::string& path)
      : fd_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    connect_to(reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  ~RawClient() {
    close();
  }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0) {
        return; // the server closed: what it answered is what counts
      }
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  void finish_sending() {
    shutdown(fd_, SHUT_WR);
  }
  void close() {
    if (fd_ >= 0) {
      ::close(std::exchange(fd_, -1));
    }
  }

  /** All up to the end of the connection, or what came in ten seconds. */
  std::string read_all() {
    while (read_some()) {
    }
    return std::exchange(received_, {});
  }
  /** Up to and with `mark`; all that came when it never did. */
  std::string read_until(std::string_view mark) {
    std::size_t at = 0;
    while ((at = received_.find(mark)) == std::string::npos) {
      if (!read_some()) {
        return std::exchange(received_, {});
      }
    }
    std::string text = received_.substr(0, at + mark.size());
    received_.erase(0, text.size());
    return text;
  }
  /** One response with a Content-Length. */
  std::string read_response() {
    std::string text = read_until("\r\n\r\n");
    const std::size_t field = text.find("content-length: ");
    if (field == std::string::npos) {
      return text;
    }
    const auto length =
        static_cast<std::size_t>(std::stoul(text.substr(field + 16)));
    while (received_.size() < length && read_some()) {
    }
    const std::size_t n = std::min(length, received_.size());
    text += received_.substr(0, n);
    received_.erase(0, n);
    return text;
  }

 private:
  void connect_to(const sockaddr* address, socklen_t size) {
    if (::connect(fd_, address, size) != 0) {
      close();
      throw std::runtime_error("cannot connect");
    }
  }
  /** False at the end, at a reset and after ten seconds. */
  bool read_some() {
    pollfd wait{.fd = fd_, .events = POLLIN, .revents = 0};
    char buffer[16384];
    if (poll(&wait, 1, 10'000) <= 0) {
      return false;
    }
    const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
    if (n <= 0) {
      return false;
    }
    received_.append(buffer, static_cast<std::size_t>(n));
    return true;
  }

  int fd_;
  std::string received_;
};

/** The status of a response; 0 of nothing. */
inline int status_of(const std::string& response) {
  return response.starts_with("HTTP/1.1 ") ? std::stoi(response.substr(9, 3))
                                           : 0;
}

} // namespace optiq::test
