#include <algorithm>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>

#include "optiq/server/connection_impl.h"
#include "optiq/server/error_response.h"

namespace optiq::server {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::milliseconds;

/** How long the peer may take to close after the last answer. */
constexpr milliseconds kLinger{2000};
/** Of requests sent before an answer is complete; more stays in the kernel. */
constexpr std::size_t kMaxPipelinedBytes = 64u << 10;
/** What an output buffer may keep for the next time. */
constexpr std::size_t kKeptOutputBytes = 4u << 10;

HttpResponse timeout_response(const char* part) {
  return error_response(
      {.status = 408,
       .message = std::string("the request's ") + part + " took too long",
       .code = "timeout"});
}

} // namespace

Connection::Connection(HttpLoop& loop, asio::io_context& io, Accepted accepted)
    : loop_(loop),
      socket_(
          io,
          asio::generic::stream_protocol(accepted.family, 0),
          accepted.fd),
      peer_(std::move(accepted.peer)) {
  socket_.non_blocking(true);
}

/** What goes wrong here (memory, above all) ends this connection alone. */
template <typename Work>
void Connection::guarded(Work&& work) {
  try {
    work();
  } catch (const std::exception&) {
    drop();
  }
}

void Connection::start() {
  deadline_ = Clock::now() + loop_.options().header_timeout;
  wait_readable();
}

void Connection::wait_readable() {
  if (waits_readable_ || state_ == State::Closed) {
    return;
  }
  waits_readable_ = true;
  socket_.async_wait(
      asio::socket_base::wait_read,
      [self = shared_from_this()](const error_code& error) {
        self->waits_readable_ = false;
        if (!error && self->state_ != State::Closed) {
          self->guarded([&] { self->read(); });
        }
      });
}

void Connection::wait_writable() {
  if (waits_writable_) {
    return;
  }
  waits_writable_ = true;
  socket_.async_wait(
      asio::socket_base::wait_write,
      [self = shared_from_this()](const error_code& error) {
        self->waits_writable_ = false;
        if (!error && self->state_ != State::Closed) {
          self->guarded([&] { self->pump(); });
        }
      });
}

void Connection::read() {
  error_code error;
  std::vector<char>& buffer = loop_.read_buffer();
  const std::size_t n = socket_.read_some(asio::buffer(buffer), error);
  if (error == asio::error::would_block || error == asio::error::interrupted) {
    wait_readable();
    return;
  }
  if (error) {
    flush_answers(); // the end of what the peer sends is an error, too
    drop();
    return;
  }
  switch (state_) {
    case State::Lingering:
      wait_readable();
      return;
    case State::Answering:
      input_.append(buffer.data(), n);
      if (input_.size() < kMaxPipelinedBytes) {
        wait_readable();
      }
      return;
    default:
      input_.append(buffer.data(), n);
      read_request();
  }
}

void Connection::read_request() {
  if (state_ == State::Idle) {
    state_ = State::Header;
    deadline_ = Clock::now() + loop_.options().header_timeout;
    parser_.emplace(
        loop_.options().max_header_bytes, loop_.options().max_body_bytes);
  }
  switch (parser_->read(input_)) {
    case RequestParser::Progress::NeedsMore:
      wait_readable();
      return;
    case RequestParser::Progress::HeaderDone:
      on_header();
      return;
    case RequestParser::Progress::Done:
      dispatch();
      return;
    case RequestParser::Progress::Refused:
      refuse(error_response(parser_->refusal()));
  }
}

void Connection::on_header() {
  state_ = State::Body;
  deadline_ = Clock::now() + loop_.options().body_timeout;
  HttpRequest& request = parser_->request();
  request.peer = peer_;
  if (loop_.gate) {
    if (auto refusal = loop_.gate(request)) {
      refuse(std::move(*refusal));
      return;
    }
  }
  if (parser_->expects_continue() && input_.empty()) {
    output_ = "HTTP/1.1 100 Continue\r\n\r\n";
    last_sent_ = Clock::now();
    pump();
  }
  if (state_ == State::Body) {
    read_request();
  }
}

/** Of what was parsed, the part that the answer needs. */
void Connection::begin_answer() {
  state_ = State::Answering;
  answer_start_ = Clock::now();
  last_sent_ = answer_start_;
  access_ = {
      .id = loop_.next_request_id(),
      .peer = peer_,
      .method = parser_->is_head() ? "HEAD" : parser_->request().method,
      .target = parser_->target()};
  framing_ = {
      .http10 = parser_->is_http10(),
      .keep_alive = parser_->keep_alive(),
      .head = parser_->is_head()};
}

void Connection::dispatch() {
  begin_answer();
  HttpRequest request = std::move(parser_->request());
  parser_.reset();
  request.peer = peer_;
  request.id = access_.id;
  exchange_ = std::make_shared<Exchange>(
      [loop = loop_.weak_from_this()](std::function<void()> call) {
        if (const auto alive = loop.lock()) {
          alive->post(std::move(call));
        }
      },
      [connection = weak_from_this()] {
        if (const auto self = connection.lock()) {
          self->guarded([&] { self->pump(); });
        }
      },
      loop_.options().max_unsent_bytes);
  wait_readable(); // the peer may go
  loop_.handle(std::move(request), exchange_->make_reply());
}

/** Answers without the handler, and closes: where the next request begins is
 * unknown. */
void Connection::refuse(const HttpResponse& response) {
  begin_answer();
  access_.status = response.status;
  framing_.keep_alive = false;
  parser_.reset();
  output_ += format_response(response, access_.id, framing_);
  ended_ = true;
  pump();
}

/** Sends what there is, takes more, until there is none or the peer is slow. */
void Connection::pump() {
  while (state_ != State::Closed) {
    if (!output_.empty() && !send()) {
      return;
    }
    if (ended_) {
      finish_answer();
      return;
    }
    if (!exchange_) {
      return;
    }
    load(exchange_->take());
    if (output_.empty() && !ended_) {
      return;
    }
  }
}

/** What is answered already still reaches a peer that closed its side only. */
void Connection::flush_answers() {
  std::string before;
  while (state_ == State::Answering && access_.id != before) {
    before = access_.id;
    pump(); // may begin the next pipelined request
  }
}

/** Whether all of output_ is sent; else it goes on when it can. */
bool Connection::send() {
  error_code error;
  while (sent_ < output_.size()) {
    const std::size_t n =
        socket_.write_some(asio::buffer(output_) + sent_, error);
    if (error == asio::error::would_block) {
      wait_writable();
      break;
    }
    if (error && error != asio::error::interrupted) {
      drop();
      return false;
    }
    sent_ += n;
    access_.bytes_sent += n;
    last_sent_ = Clock::now();
  }
  if (exchange_) {
    exchange_->set_unsent(output_.size() - sent_);
  }
  if (sent_ < output_.size()) {
    return false;
  }
  sent_ = 0;
  output_.clear();
  if (output_.capacity() > kKeptOutputBytes) {
    output_ = {};
  }
  return true;
}

void Connection::load(Outgoing outgoing) {
  if (loop_.is_stopping()) {
    framing_.keep_alive = false;
  }
  if (outgoing.response) {
    access_.status = outgoing.response->status;
    output_ = format_response(*outgoing.response, access_.id, framing_);
  }
  if (outgoing.stream) {
    streaming_ = true;
    access_.status = 200;
    framing_.keep_alive = framing_.keep_alive && !framing_.http10;
    output_ = format_stream_header(*outgoing.stream, access_.id, framing_);
  }
  if (!outgoing.events.empty()) {
    append_events(outgoing.events);
  }
  if (outgoing.cut) {
    if (!output_.empty()) {
      send();
    }
    drop();
    return;
  }
  ended_ = outgoing.ended;
  if (ended_ && streaming_ && !framing_.http10 && !framing_.head) {
    output_ += kLastChunk;
  }
}

void Connection::append_events(std::string_view events) {
  if (framing_.head) {
    return;
  }
  if (framing_.http10) {
    output_ += events;
  } else {
    output_ += format_chunk(events);
  }
}

void Connection::finish_answer() {
  log(false);
  exchange_.reset();
  streaming_ = false;
  ended_ = false;
  if (!framing_.keep_alive || loop_.is_stopping()) {
    linger();
    return;
  }
  state_ = State::Idle;
  deadline_ = Clock::now() + loop_.options().idle_timeout;
  if (input_.empty()) {
    input_ = {}; // gives its memory back
    wait_readable();
  } else {
    read_request();
  }
}

/** Closing with bytes unread would reset the connection, and the peer might
 * lose the answer before it reads it. */
void Connection::linger() {
  if (loop_.is_stopping()) {
    close();
    return;
  }
  error_code ignored; // a peer that has gone is seen by the next read
  socket_.shutdown(asio::socket_base::shutdown_send, ignored);
  state_ = State::Lingering;
  deadline_ = Clock::now() + kLinger;
  input_ = {};
  wait_readable();
}

void Connection::on_tick(Clock::time_point now) {
  guarded([&] {
    if (state_ == State::Answering) {
      if (!output_.empty()) {
        if (now - last_sent_ > loop_.options().write_timeout) {
          drop();
        }
      } else if (
          streaming_ && now - last_sent_ >= loop_.options().comment_interval) {
        append_events(kStreamComment);
        pump();
      }
    } else if (state_ != State::Closed && now > deadline_) {
      if (state_ == State::Header || state_ == State::Body) {
        refuse(timeout_response(state_ == State::Header ? "header" : "body"));
      } else {
        close();
      }
    }
  });
}

void Connection::wind_down() {
  if (state_ == State::Idle || state_ == State::Lingering) {
    close();
  }
}

void Connection::drop() {
  if (state_ == State::Closed) {
    return;
  }
  if (state_ == State::Answering) {
    log(true);
  }
  const auto exchange = std::move(exchange_);
  close();
  if (exchange) {
    exchange->go();
  }
}

void Connection::log(bool gone) {
  if (loop_.access_log) {
    access_.gone = gone;
    access_.seconds =
        std::chrono::duration<double>(Clock::now() - answer_start_).count();
    loop_.access_log(access_);
  }
}

void Connection::close() {
  state_ = State::Closed;
  error_code ignored; // it is closed whatever close says
  socket_.close(ignored);
  loop_.remove(*this);
}

} // namespace optiq::server
