#pragma once

#include <string>
#include <vector>

namespace optiq::server {

/** A connection as the system hands it over. */
struct Accepted {
  int fd = -1; // of the caller now; -1: there is none
  int family = 0;
  std::string peer; // "127.0.0.1:41000", "[::1]:41000", "unix"
  bool exhausted = false; // the process or the system is out of descriptors
};

/**
 * Sockets that listen, at every address of a host, or one at a path. They do
 * not block and are not inherited.
 */
class Listener {
 public:
  /** Port 0 is any free one, the same at each address. Throws InvalidInput for
   * a host that is none of this machine or a port in use, Denied where the
   * system refuses; the message names the address. */
  Listener(const std::string& host, int port);
  /** A unix socket for this user alone. One that a server left behind is
   * replaced; throws InvalidInput where somebody listens, or something else
   * lies there. */
  explicit Listener(const std::string& path);
  /** Closes them; removes the path, if it is still this socket's. */
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  const std::vector<int>& fds() const;
  int port() const; // 0 of a path

 private:
  void listen_on(int fd, const std::string& name);

  std::vector<int> fds_;
  int port_ = 0;
  std::string path_; // empty: none to remove
  unsigned long long device_ = 0; // of the path
  unsigned long long inode_ = 0;
};

/** The next connection of a listening socket, if one waits. */
Accepted accept_connection(int listening_fd);

} // namespace optiq::server
