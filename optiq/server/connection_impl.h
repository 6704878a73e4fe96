#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <boost/asio/generic/stream_protocol.hpp>

#include "optiq/server/exchange_impl.h"
#include "optiq/server/http_format_impl.h"
#include "optiq/server/http_loop_impl.h"
#include "optiq/server/http_parser_impl.h"

namespace optiq::server {

/**
 * One peer: reads a request, has it answered, sends the answer, and again. All
 * on the loop's thread. It never waits with a buffer: it is told that the
 * socket is readable or writable, and then reads or writes what there is.
 */
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Clock = std::chrono::steady_clock;

  Connection(HttpLoop& loop, boost::asio::io_context& io, Accepted accepted);

  void start();
  /** Ends what has passed its deadline; keeps quiet streams alive. */
  void on_tick(Clock::time_point now);
  /** No request after this one. */
  void wind_down();
  /** Whatever it is doing; what is unanswered hears that the peer has gone. */
  void drop();

 private:
  enum class State {
    Idle, // waits for the first byte of a request
    Header,
    Body,
    Answering,
    Lingering, // all is sent; takes what comes, or the peer might miss the end
    Closed,
  };

  void wait_readable();
  void wait_writable();
  void read();
  void read_request();
  void on_header();
  void dispatch();
  void begin_answer();
  void refuse(const HttpResponse& response);
  void pump();
  void flush_answers();
  bool send();
  void load(Outgoing outgoing);
  void append_events(std::string_view events);
  void finish_answer();
  void linger();
  void log(bool gone);
  void close();
  template <typename Work>
  void guarded(Work&& work);

  HttpLoop& loop_;
  boost::asio::generic::stream_protocol::socket socket_;
  std::string peer_;
  State state_ = State::Idle;
  Clock::time_point deadline_; // of all states but Answering
  bool waits_readable_ = false;
  bool waits_writable_ = false;
  std::string input_; // read, and not parsed
  std::optional<RequestParser> parser_;

  // Of the answer.
  std::shared_ptr<Exchange> exchange_;
  ResponseFraming framing_;
  HttpAccess access_;
  Clock::time_point answer_start_;
  Clock::time_point last_sent_; // when the peer last took bytes
  bool streaming_ = false;
  bool ended_ = false; // nothing follows what is in output_
  std::string output_;
  std::size_t sent_ = 0; // of output_
};

} // namespace optiq::server
