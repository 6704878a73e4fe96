#pragma once

#include <string>

namespace optiq::cli {

/** Where a server is, and what it asks for. */
struct ServedAddress {
  std::string host;
  int port = 0;
  std::string unix_socket; // instead of both
  bool needs_key = false;
};

/** "http://127.0.0.1:8080", as a client on this machine writes it; of a unix
 * socket "http://localhost". */
std::string base_url(const ServedAddress& address);

/** Lines to paste into a shell: one question by curl, by the openai package and
 * by `optiq chat`; of a unix socket by curl alone. A key is taken from
 * OPTIQ_API_KEY, so that none is shown. */
std::string client_lines(
    const ServedAddress& address,
    const std::string& model_id);

} // namespace optiq::cli
