#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "optiq/generate/engine.h"

namespace optiq::server {

/** Counts values by the buckets that they fall into. Any thread may call. */
class Histogram {
 public:
  /** `bounds` ascend; a value is counted in the first that is not below it. */
  explicit Histogram(std::vector<double> bounds);
  void observe(double value);

  struct Snapshot {
    std::vector<double> bounds;
    std::vector<std::uint64_t> counts; // one more than bounds
    double sum = 0;
  };
  Snapshot snapshot() const;

 private:
  mutable std::mutex mutex_; // guards data_
  Snapshot data_;
};

/** How an answer ended. */
enum class AnswerEnd { Stop, Length, Abandoned, Failed };
inline constexpr std::size_t kAnswerEnds = 4;

/** What the engine and the model say when the metrics are read. */
struct EngineFacts {
  generate::EngineStatus status;
  std::uint64_t restarts = 0;
  std::size_t open_answers = 0;
  std::size_t kv_bytes_per_token = 0;
  std::size_t adapters_mounted = 0;
  std::size_t adapters_resident = 0;
  std::size_t adapter_bytes = 0; // of those that are resident
  std::size_t adapter_max_bytes = 0;
  std::string model;
};

/** What a server has done. Any thread may call. */
class Metrics {
 public:
  Metrics();

  Histogram queue_seconds;
  Histogram first_token_seconds;
  Histogram inter_token_seconds;
  Histogram prompt_tokens; // of one answer
  Histogram answer_tokens; // of one choice
  Histogram step_sequences; // in one forward
  Histogram step_rows;

  void count_response(std::string_view endpoint, int status);
  void count_answer(AnswerEnd end);
  /** Of the first names each is counted for itself, further ones together: a
   * client that mounts again and again makes no endless page. */
  void count_adapter(const std::string& id);

  /** Everything, in Prometheus' text format 0.0.4. */
  std::string text(const EngineFacts& facts) const;

 private:
  mutable std::mutex mutex_; // guards the maps
  std::map<std::pair<std::string, int>, std::uint64_t> responses_;
  std::map<std::string, std::uint64_t> adapters_; // requests by id
  std::array<std::atomic<std::uint64_t>, kAnswerEnds> answers_{};
};

} // namespace optiq::server
