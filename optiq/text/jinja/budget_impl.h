#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>

#include "optiq/base/error.h"
#include "optiq/text/chat_template.h"

namespace optiq::text::jinja {

/** The meters of one rendering; each throws Exhausted when it runs out. */
class Budget {
 public:
  explicit Budget(const RenderBudget& limits)
      : limits_(limits),
        max_held_(8 * limits.output_bytes),
        deadline_(std::chrono::steady_clock::now() + limits.wall) {}

  /** One evaluated node, and `bytes` that it reads or writes: touching 256
   * bytes counts as a step, so that few steps cannot copy without end. */
  void work(std::size_t bytes = 0) {
    const std::size_t cost = 1 + bytes / 256;
    if (cost > limits_.steps - used_) {
      exhausted("steps", limits_.steps);
    }
    used_ += cost;
    until_clock_ += cost;
    if (until_clock_ >= 1024) {
      until_clock_ = 0;
      if (std::chrono::steady_clock::now() > deadline_) {
        exhausted("milliseconds", limits_.wall.count());
      }
    }
  }

  /** Memory of values that are alive: 8 times the output limit at most. */
  void hold(std::size_t bytes) {
    require(bytes);
    held_ += bytes;
  }
  /** Checks, before it is made, that a value of `bytes` may still be held. */
  void require(std::size_t bytes) const {
    if (bytes > max_held_ - held_) {
      exhausted("bytes of values", max_held_);
    }
  }
  void release(std::size_t bytes) {
    held_ -= bytes;
  }

  /** Checks that text of `bytes` may still be written to an output. */
  void require_output(std::size_t bytes) const {
    if (bytes > limits_.output_bytes) {
      exhausted("bytes of output", limits_.output_bytes);
    }
  }

  int max_calls() const {
    return limits_.depth;
  }

 private:
  template <typename N>
  [[noreturn]] static void exhausted(const char* what, N limit) {
    fail(
        ErrorKind::Exhausted,
        "the template used more than {} {}. Shorten the conversation, or "
        "distrust the template",
        limit,
        what);
  }

  RenderBudget limits_;
  std::size_t max_held_;
  std::chrono::steady_clock::time_point deadline_;
  std::size_t used_ = 0;
  std::size_t until_clock_ = 0;
  std::size_t held_ = 0;
};

/** Memory counted in a Budget for as long as this object lives. */
class Charge {
 public:
  Charge() = default;
  Charge(Budget* budget, std::size_t bytes) : budget_(budget), bytes_(bytes) {
    if (budget_ != nullptr) {
      budget_->work(bytes);
      budget_->hold(bytes);
    }
  }
  ~Charge() {
    if (budget_ != nullptr) {
      budget_->release(bytes_);
    }
  }
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;

 private:
  Budget* budget_ = nullptr;
  std::size_t bytes_ = 0;
};

} // namespace optiq::text::jinja
