#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "optiq/generate/engine.h"

namespace optiq::cli {

/** Requests for one prompt, all the same, that an engine answers together: what
 * a benchmark times. Those that are left end with it. */
class BenchRound {
 public:
  /** With `is_prefilled` every prompt has its first token when this returns. */
  BenchRound(
      generate::Engine& engine,
      const std::vector<std::int32_t>& prompt,
      int n_requests,
      int max_tokens,
      bool is_prefilled = false);
  ~BenchRound();
  BenchRound(const BenchRound&) = delete;
  BenchRound& operator=(const BenchRound&) = delete;

  /** One forward. Throws what ended a request. */
  void step();
  /** Steps until every prompt has its first token. */
  void prefill();

 private:
  class Counter;

  generate::Engine& engine_;
  std::vector<std::shared_ptr<Counter>> counters_;
  std::vector<generate::RequestId> ids_;
};

} // namespace optiq::cli
