#include "optiq/cli/bench_round.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace optiq::cli {

class BenchRound::Counter final : public generate::RequestListener {
 public:
  bool on_token(const generate::AnswerToken&) override {
    ++tokens;
    return true;
  }
  void on_end(const generate::Ending& ending) override {
    error = ending.error;
  }

  int tokens = 0;
  std::exception_ptr error;
};

BenchRound::BenchRound(
    generate::Engine& engine,
    const std::vector<std::int32_t>& prompt,
    int n_requests,
    int max_tokens,
    bool is_prefilled)
    : engine_(engine) {
  for (int i = 0; i < n_requests; ++i) {
    counters_.push_back(std::make_shared<Counter>());
    generate::Request request;
    request.prompt = prompt;
    request.max_tokens = max_tokens;
    request.share_prefixes = false; // a prompt is to cost what it costs
    request.listener = counters_.back();
    ids_.push_back(engine_.submit(std::move(request)));
  }
  if (is_prefilled) {
    prefill();
  }
}

BenchRound::~BenchRound() {
  for (const generate::RequestId id : ids_) {
    engine_.cancel(id);
  }
  engine_.step(); // ends them
}

void BenchRound::step() {
  engine_.step();
  for (const auto& counter : counters_) {
    if (counter->error != nullptr) {
      std::rethrow_exception(counter->error);
    }
  }
}

void BenchRound::prefill() {
  while (
      std::any_of(counters_.begin(), counters_.end(), [](const auto& counter) {
        return counter->tokens == 0;
      })) {
    step();
  }
}

} // namespace optiq::cli
