#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/** HTTP as the endpoints see it: no sockets, no library. */
namespace optiq::server {

/** ASCII letters as small ones: of names that know no case. */
std::string lower_case(std::string_view text);

using Headers = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method; // GET, POST ...; GET for HEAD, whose answer has no body
  std::string path; // percent-decoded, without the query
  std::string query; // behind '?', as sent
  Headers headers; // names in lower case
  std::string body;
  std::string peer; // address and port, or "unix"
  std::string id; // of the request, for logs and the x-request-id header

  /** The header's value; none when it is absent. */
  std::optional<std::string> header(std::string_view lower_case_name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  Headers headers; // more of them
};

/**
 * The answer to one request. Any thread may call; what comes after the peer has
 * gone is dropped. Either respond once, or begin_stream, write any number of
 * times, end_stream. Destroyed without an end, it answers 500 or cuts the
 * stream.
 */
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  virtual void respond(HttpResponse response) = 0;
  /** 200 and text/event-stream, with these headers more. Until the end a
   * comment line goes out whenever nothing else did for a while. */
  virtual void begin_stream(Headers headers = {}) = 0;
  /** Bytes of the stream, whole events. False when the peer has gone, or reads
   * so slowly that the limit on what waits for it is reached: it is gone then.
   */
  virtual bool write(std::string events) = 0;
  virtual void end_stream() = 0;
  /** Called once, on the I/O thread, when the peer goes before the end; at once
   * when it has gone. */
  virtual void on_gone(std::function<void()> call) = 0;
};

/** Called on the I/O thread: returns quickly, replies when it likes. */
using HttpHandler =
    std::function<void(HttpRequest, std::shared_ptr<HttpReply>)>;

} // namespace optiq::server
