#include <utility>

#include "optiq/server/error_response.h"
#include "optiq/server/exchange_impl.h"

namespace optiq::server {

/** The handler's end of an exchange. */
class Reply final : public HttpReply {
 public:
  explicit Reply(std::shared_ptr<Exchange> exchange)
      : exchange_(std::move(exchange)) {}
  ~Reply() override {
    exchange_->abandon();
  }
  Reply(const Reply&) = delete;
  Reply& operator=(const Reply&) = delete;

  void respond(HttpResponse response) override {
    exchange_->respond(std::move(response));
  }
  void begin_stream(Headers headers) override {
    exchange_->begin_stream(std::move(headers));
  }
  bool write(std::string events) override {
    return exchange_->write(std::move(events));
  }
  void end_stream() override {
    exchange_->end_stream();
  }
  void on_gone(std::function<void()> call) override {
    exchange_->on_gone(std::move(call));
  }

 private:
  std::shared_ptr<Exchange> exchange_;
};

Exchange::Exchange(
    Post post,
    std::function<void()> advance,
    std::size_t max_unsent_bytes)
    : post_(std::move(post)),
      advance_(std::move(advance)),
      max_unsent_bytes_(max_unsent_bytes) {}

std::shared_ptr<HttpReply> Exchange::make_reply() {
  return std::make_shared<Reply>(shared_from_this());
}

Outgoing Exchange::take() {
  const std::lock_guard lock(mutex_);
  advance_posted_ = false;
  unsent_bytes_ += waiting_.events.size();
  Outgoing taken = std::exchange(waiting_, {});
  taken.ended = phase_ == Phase::Ended;
  return taken;
}

void Exchange::set_unsent(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  unsent_bytes_ = bytes;
}

void Exchange::go() {
  std::unique_lock lock(mutex_);
  gone_ = true;
  waiting_ = {};
  const auto call = std::exchange(on_gone_, nullptr);
  const bool heard = phase_ != Phase::Ended;
  lock.unlock();
  if (call && heard) {
    call();
  }
}

void Exchange::respond(HttpResponse response) {
  std::unique_lock lock(mutex_);
  if (phase_ != Phase::Open) {
    return;
  }
  phase_ = Phase::Ended;
  waiting_.response = std::move(response);
  notify(std::move(lock));
}

void Exchange::begin_stream(Headers headers) {
  std::unique_lock lock(mutex_);
  if (phase_ != Phase::Open) {
    return;
  }
  phase_ = Phase::Streaming;
  waiting_.stream = std::move(headers);
  notify(std::move(lock));
}

bool Exchange::write(std::string events) {
  std::unique_lock lock(mutex_);
  if (gone_ || phase_ != Phase::Streaming) {
    return false;
  }
  const std::size_t unsent = unsent_bytes_ + waiting_.events.size();
  if (unsent + events.size() > max_unsent_bytes_) {
    gone_ = true; // what waits is memory that nobody will read in time
    waiting_ = {.cut = true};
    notify(std::move(lock));
    return false;
  }
  if (waiting_.events.empty()) {
    waiting_.events = std::move(events);
  } else {
    waiting_.events += events;
  }
  notify(std::move(lock));
  return true;
}

void Exchange::end_stream() {
  std::unique_lock lock(mutex_);
  if (phase_ != Phase::Streaming) {
    return;
  }
  phase_ = Phase::Ended;
  notify(std::move(lock));
}

void Exchange::on_gone(std::function<void()> call) {
  std::unique_lock lock(mutex_);
  if (phase_ == Phase::Ended) {
    return;
  }
  if (!gone_) {
    on_gone_ = std::move(call);
    return;
  }
  lock.unlock();
  post_(std::move(call));
}

void Exchange::abandon() {
  std::unique_lock lock(mutex_);
  if (phase_ == Phase::Ended) {
    return;
  }
  if (phase_ == Phase::Open) {
    waiting_.response = error_response(
        {.status = 500, .message = "the request was dropped unanswered"});
  } else {
    waiting_.cut = true;
  }
  phase_ = Phase::Ended;
  notify(std::move(lock));
}

/** Has the I/O thread take, unless it is about to, or nobody is there. */
void Exchange::notify(std::unique_lock<std::mutex> lock) {
  // Of an ended answer nobody wants to hear, and who would hear may hold it.
  std::function<void()> forgotten;
  if (phase_ == Phase::Ended) {
    forgotten = std::exchange(on_gone_, nullptr);
  }
  const bool post = !advance_posted_ && (!gone_ || waiting_.cut);
  advance_posted_ = advance_posted_ || post;
  lock.unlock();
  if (post) {
    post_(advance_);
  }
}

} // namespace optiq::server
