#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/server/listener_impl.h"

namespace optiq::server {
namespace {

struct FreeAddresses {
  void operator()(addrinfo* list) const {
    freeaddrinfo(list);
  }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

[[noreturn]] void fail_address(const std::string& name, int code) {
  if (code == EADDRINUSE) {
    fail(
        ErrorKind::InvalidInput,
        "[HttpServer] {}: somebody listens there already, expected a free "
        "address. Another server? Choose a port with --port",
        name);
  }
  const bool denied = code == EACCES || code == EPERM;
  fail(
      denied ? ErrorKind::Denied : ErrorKind::InvalidInput,
      "[HttpServer] {}: cannot listen: {}{}",
      name,
      std::generic_category().message(code),
      denied ? ". Ports below 1024 are the superuser's" : "");
}

/** "127.0.0.1:80", "[::1]:80". */
std::string name_of_address(const std::string& host, int port) {
  return host.find(':') == std::string::npos
      ? fmt::format("{}:{}", host, port)
      : fmt::format("[{}]:{}", host, port);
}

void set_flags(int fd) {
  fcntl(fd, F_SETFD, fcntl(fd, F_GETFD) | FD_CLOEXEC);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

Addresses resolve(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code =
      getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code != 0) {
    fail(
        ErrorKind::InvalidInput,
        "[HttpServer] --host {}: {}, expected an address or a name of this "
        "machine",
        host,
        gai_strerror(code));
  }
  return Addresses(found);
}

int port_of(const sockaddr_storage& address) {
  return ntohs(
      address.ss_family == AF_INET6
          ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
          : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

void set_port(sockaddr_storage& address, int port) {
  const auto number = htons(static_cast<std::uint16_t>(port));
  if (address.ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(address).sin6_port = number;
  } else {
    reinterpret_cast<sockaddr_in&>(address).sin_port = number;
  }
}

std::string name_of_peer(const sockaddr_storage& address) {
  if (address.ss_family == AF_UNIX) {
    return "unix";
  }
  const bool v6 = address.ss_family == AF_INET6;
  const void* bytes = v6
      ? static_cast<const void*>(
            &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr)
      : &reinterpret_cast<const sockaddr_in&>(address).sin_addr;
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(address.ss_family, bytes, text.data(), text.size());
  return name_of_address(text.data(), port_of(address));
}

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    fail(
        ErrorKind::InvalidInput,
        "[HttpServer] {}: a path of {} bytes, expected at most {}",
        path,
        path.size(),
        sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

/** Takes away a socket on which nobody listens any more. */
void remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) {
    return; // nothing is there; bind says what else is wrong
  }
  if (!S_ISSOCK(status.st_mode)) {
    fail(
        ErrorKind::InvalidInput,
        "[HttpServer] {}: is no socket, expected a free path",
        path);
  }
  const int probe = socket(AF_UNIX, SOCK_STREAM, 0);
  set_flags(probe);
  const int connected = connect(
      probe, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int code = connected == 0 ? 0 : errno;
  close(probe);
  if (code != ECONNREFUSED) {
    fail_address(path, code == 0 || code == EAGAIN ? EADDRINUSE : code);
  }
  unlink(path.c_str());
}

} // namespace

void Listener::listen_on(int fd, const std::string& name) {
  if (listen(fd, SOMAXCONN) != 0) {
    fail_address(name, errno);
  }
}

Listener::Listener(const std::string& host, int port) : port_(port) {
  const Addresses addresses = resolve(host, port);
  int last_error = 0;
  for (const addrinfo* at = addresses.get(); at != nullptr; at = at->ai_next) {
    sockaddr_storage address{};
    std::memcpy(&address, at->ai_addr, at->ai_addrlen);
    set_port(address, port_);
    const int fd = socket(at->ai_family, SOCK_STREAM, 0);
    if (fd < 0) {
      last_error = errno; // a family that this machine has not
      continue;
    }
    fds_.push_back(fd);
    set_flags(fd);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), at->ai_addrlen) != 0) {
      last_error = errno;
      if (last_error == EADDRNOTAVAIL && at->ai_next != nullptr) {
        close(fd);
        fds_.pop_back();
        continue; // "localhost" names an address of IPv6 that is not set up
      }
      fail_address(name_of_address(host, port), last_error);
    }
    listen_on(fd, name_of_address(host, port));
    socklen_t size = sizeof address;
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = port_of(address);
  }
  if (fds_.empty()) {
    fail_address(name_of_address(host, port), last_error);
  }
}

Listener::Listener(const std::string& path) {
  const sockaddr_un address = unix_address(path);
  remove_stale(path, address);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  fds_.push_back(fd);
  set_flags(fd);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
      0) {
    fail_address(path, errno);
  }
  // Nobody can connect before listen, so there is no moment with other rights.
  struct stat status {};
  if (chmod(path.c_str(), 0600) != 0 || lstat(path.c_str(), &status) != 0) {
    fail_address(path, errno);
  }
  path_ = path;
  device_ = status.st_dev;
  inode_ = status.st_ino;
  listen_on(fd, path);
}

Listener::~Listener() {
  for (const int fd : fds_) {
    close(fd);
  }
  struct stat status {};
  if (!path_.empty() && lstat(path_.c_str(), &status) == 0 &&
      status.st_dev == device_ && status.st_ino == inode_) {
    unlink(path_.c_str());
  }
}

const std::vector<int>& Listener::fds() const {
  return fds_;
}

int Listener::port() const {
  return port_;
}

Accepted accept_connection(int listening_fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  const int fd =
      accept(listening_fd, reinterpret_cast<sockaddr*>(&address), &size);
  if (fd < 0) {
    const bool exhausted = errno == EMFILE || errno == ENFILE ||
        errno == ENOBUFS || errno == ENOMEM;
    return {.exhausted = exhausted};
  }
  set_flags(fd);
  if (address.ss_family != AF_UNIX) {
    const int on = 1; // a token is a packet, and waits for no other
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  return {.fd = fd, .family = address.ss_family, .peer = name_of_peer(address)};
}

} // namespace optiq::server
