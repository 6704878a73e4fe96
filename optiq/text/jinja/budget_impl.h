#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/text/render_budget.h"

namespace optiq::text::jinja {

/** The meters of one parsing or rendering; each throws Exhausted when it runs
 * out. */
class Budget {
 public:
  explicit Budget(const RenderBudget& limits)
      : limits_(limits),
        max_held_(8 * limits.output_bytes),
        deadline_(std::chrono::steady_clock::now() + limits.wall) {}

  /** One evaluated node, and `bytes` that it is about to read or write:
   * touching 256 bytes counts as a step, so that few steps cannot copy without
   * end. The clock is read after as many steps as take some 0.1 ms. */
  void work(std::size_t bytes = 0) {
    const std::size_t cost = 1 + bytes / kStepBytes;
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

  /** As work, for pieces too small to be a step each. */
  void touch(std::size_t bytes) {
    touched_ += bytes;
    if (touched_ >= kStepBytes) {
      work(std::exchange(touched_, 0));
    }
  }

  /** Memory that is in use: 8 times the output limit at most. */
  void hold(std::size_t bytes) {
    require(bytes);
    held_ += bytes;
  }
  void release(std::size_t bytes) {
    held_ -= bytes;
  }
  /** Checks, before it is taken, that `bytes` more may be held. */
  void require(std::size_t bytes) const {
    if (bytes > max_held_ - held_) {
      exhausted("bytes of values", max_held_);
    }
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
  static constexpr std::size_t kStepBytes = 256;

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
  std::size_t touched_ = 0;
  std::size_t until_clock_ = 0;
  std::size_t held_ = 0;
};

/** Memory counted in a budget, null for none, for as long as this lives. */
class Charge {
 public:
  Charge() = default;
  explicit Charge(Budget* budget, std::size_t bytes = 0)
      : budget_(budget), bytes_(bytes) {
    if (budget_ != nullptr) {
      budget_->touch(bytes);
      budget_->hold(bytes);
    }
  }
  ~Charge() {
    if (budget_ != nullptr) {
      budget_->release(bytes_);
    }
  }
  Charge(Charge&& other) noexcept
      : budget_(other.budget_), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  void grow(std::size_t bytes) {
    if (budget_ != nullptr) {
      budget_->touch(bytes);
      budget_->hold(bytes);
      bytes_ += bytes;
    }
  }
  std::size_t bytes() const {
    return bytes_;
  }
  Budget* budget() const {
    return budget_;
  }

 private:
  Budget* budget_ = nullptr;
  std::size_t bytes_ = 0;
};

/** A string under construction. Its memory is counted before it is taken, the
 * copy that growing makes included. */
class Text {
 public:
  explicit Text(Budget* budget) : charge_(budget) {}

  void append(std::string_view more) {
    reserve_more(more.size());
    text_.append(more);
  }
  void append(char c) {
    reserve_more(1);
    text_.push_back(c);
  }
  /** `count` times the same text. */
  void append_times(std::string_view unit, std::size_t count) {
    std::size_t bytes = 0;
    if (__builtin_mul_overflow(unit.size(), count, &bytes)) {
      bytes = std::string::npos / 2;
    }
    reserve_more(bytes);
    for (std::size_t i = 0; bytes > 0 && i < count; ++i) {
      text_.append(unit);
    }
  }
  void reserve_more(std::size_t bytes) {
    if (charge_.budget() != nullptr) {
      charge_.budget()->touch(bytes);
    }
    if (bytes > text_.capacity() - text_.size()) {
      grow(bytes);
    }
  }

  const std::string& str() const {
    return text_;
  }
  std::size_t size() const {
    return text_.size();
  }
  Budget* budget() const {
    return charge_.budget();
  }
  /** Gives the text and its charge away. */
  std::pair<std::string, Charge> take() {
    return {std::move(text_), std::move(charge_)};
  }

 private:
  void grow(std::size_t bytes) {
    if (charge_.budget() != nullptr) {
      charge_.budget()->require(bytes);
    }
    const std::size_t capacity =
        std::max(2 * text_.capacity(), text_.size() + bytes);
    Charge larger(charge_.budget(), capacity);
    text_.reserve(capacity);
    charge_ = std::move(larger);
  }

  std::string text_;
  Charge charge_;
};

} // namespace optiq::text::jinja
