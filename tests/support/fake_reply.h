#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/server/http_message.h"

namespace optiq::testing {

/** Keeps what an endpoint answers, for a test that waits for it. */
class FakeReply final : public server::HttpReply {
 public:
  void respond(server::HttpResponse response) override {
    const std::lock_guard lock(mutex_);
    if (!response_ && !is_stream_) {
      response_ = std::move(response);
      changed_.notify_all();
    }
  }
  void begin_stream(server::Headers headers) override {
    const std::lock_guard lock(mutex_);
    is_stream_ = true;
    headers_ = std::move(headers);
    changed_.notify_all();
  }
  bool write(std::string events) override {
    const std::lock_guard lock(mutex_);
    if (!is_gone_) {
      events_ += events;
      changed_.notify_all();
    }
    return !is_gone_;
  }
  void end_stream() override {
    const std::lock_guard lock(mutex_);
    has_ended_ = true;
    changed_.notify_all();
  }
  void on_gone(std::function<void()> call) override {
    const std::lock_guard lock(mutex_);
    on_gone_ = std::move(call);
  }

  /** The client closes its connection. */
  void go() {
    std::function<void()> call;
    {
      const std::lock_guard lock(mutex_);
      is_gone_ = true;
      call = std::exchange(on_gone_, nullptr);
    }
    if (call) {
      call();
    }
  }

  server::HttpResponse wait_for_response() {
    wait([&] { return response_.has_value(); });
    return *response_;
  }
  bool has_response() {
    const std::lock_guard lock(mutex_);
    return response_.has_value();
  }
  artifacts::Json wait_for_json() {
    return artifacts::Json::parse(wait_for_response().body);
  }
  /** What was written until the stream ended. */
  std::string wait_for_end() {
    wait([&] { return has_ended_; });
    return events_;
  }
  /** Waits until so much was written. */
  void wait_for_bytes(std::size_t n) {
    wait([&] { return events_.size() >= n; });
  }
  const server::Headers& headers() const {
    return headers_;
  }

 private:
  template <typename Condition>
  void wait(Condition condition) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(120), condition)) {
      throw std::runtime_error("no answer: " + events_);
    }
  }

  std::mutex mutex_; // guards all of it
  std::condition_variable changed_;
  std::optional<server::HttpResponse> response_;
  server::Headers headers_;
  bool is_stream_ = false;
  bool has_ended_ = false;
  bool is_gone_ = false;
  std::string events_;
  std::function<void()> on_gone_;
};

/** A stream of server-sent events, read. */
struct Events {
  std::vector<artifacts::Json> chunks;
  bool is_done = false; // [DONE] is the last one

  /** A member of the deltas of a choice, joined. */
  std::string joined(const std::string& name, int choice = 0) const {
    std::string text;
    for (const auto& chunk : chunks) {
      for (const auto& item :
           chunk.value("choices", artifacts::Json::array())) {
        const auto& from = item.contains("delta") ? item["delta"] : item;
        if (item["index"] == choice && from.contains(name)) {
          text += from[name].get<std::string>();
        }
      }
    }
    return text;
  }
};

inline Events parse_events(const std::string& stream) {
  Events events;
  std::size_t begin = 0;
  while (begin < stream.size()) {
    const std::size_t end = stream.find("\n\n", begin);
    const std::string event = stream.substr(begin, end - begin);
    if (event.rfind("data: ", 0) != 0 || end == std::string::npos ||
        events.is_done) {
      throw std::runtime_error("no event: " + event);
    }
    if (event == "data: [DONE]") {
      events.is_done = true;
    } else {
      events.chunks.push_back(artifacts::Json::parse(event.substr(6)));
    }
    begin = end + 2;
  }
  return events;
}

} // namespace optiq::testing
