#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "optiq/server/http_message.h"

namespace optiq::server {

/** What a connection is to send next. */
struct Outgoing {
  std::optional<HttpResponse> response;
  std::optional<Headers> stream; // begins, with these headers more
  std::string events;
  bool ended = false; // nothing follows
  bool cut = false; // the answer broke off, or its reader is too slow
};

/**
 * One request's answer on its way from any thread to the I/O thread: what waits
 * to be sent, and whether anybody is there to read it. The connection takes;
 * the reply that make_reply gives fills.
 */
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  /** Runs a function on the I/O thread, soon. */
  using Post = std::function<void(std::function<void()>)>;

  /** `advance` runs on the I/O thread whenever there is something to take. */
  Exchange(
      Post post,
      std::function<void()> advance,
      std::size_t max_unsent_bytes);

  /** For the handler. */
  std::shared_ptr<HttpReply> make_reply();

  // Of the I/O thread.
  Outgoing take();
  /** So many bytes of what was taken are not sent yet. */
  void set_unsent(std::size_t bytes);
  /** The peer has gone: tells who asked to hear of it. */
  void go();

 private:
  friend class Reply;
  enum class Phase { Open, Streaming, Ended };

  void respond(HttpResponse response);
  void begin_stream(Headers headers);
  bool write(std::string events);
  void end_stream();
  void on_gone(std::function<void()> call);
  void abandon();
  void notify(std::unique_lock<std::mutex> lock);

  const Post post_;
  const std::function<void()> advance_;
  const std::size_t max_unsent_bytes_;
  std::mutex mutex_; // guards all below
  Phase phase_ = Phase::Open;
  bool gone_ = false;
  bool advance_posted_ = false;
  std::size_t unsent_bytes_ = 0; // taken, and not sent
  Outgoing waiting_;
  std::function<void()> on_gone_;
};

} // namespace optiq::server
