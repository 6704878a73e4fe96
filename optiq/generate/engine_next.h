// Draft of the new part of generate/engine.h: what `Engine` will offer beside
// or instead of today's. The owner of the engine turns it into engine.h and
// deletes this file; others code against it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "optiq/generate/request.h"
#include "optiq/models/setup.h"

namespace optiq::generate {

struct EngineOptions {
  int prefill_chunk = 512; // prompt tokens of a forward, over all requests
  std::size_t max_cache_bytes = std::size_t{4} << 30;
  int max_running = 8; // sequences in one batch
  int max_waiting = 64; // requests in the queue
};

/** What the engine has done and holds; a value. */
struct EngineStatus {
  int running = 0;
  int waiting = 0;
  std::uint64_t steps = 0;
  std::uint64_t prompt_tokens = 0; // computed, those of resumed answers too
  std::uint64_t cached_tokens = 0; // taken from kept prefixes instead
  std::uint64_t answer_tokens = 0;
  std::uint64_t preemptions = 0;
  int last_step_rows = 0;
  int last_step_sequences = 0;
  std::size_t cache_bytes = 0; // in use, kept prefixes included
  std::size_t prefix_bytes = 0; // of them, kept prefixes nobody runs on
  std::size_t max_cache_bytes = 0;
};

class Engine {
 public:
  /** Puts a request into the queue. Throws InvalidInput for a prompt or
   * max_tokens beyond the model's positions or the whole pool (with both
   * numbers), for options out of range; Exhausted when the queue is full. */
  RequestId submit(Request request);
  /** Ends it before the next forward (Cancelled); nothing if it has ended. */
  void cancel(RequestId id);
  /** One forward of what the scheduler chose, or of nothing. False when no
   * request is left. Throws only what leaves no request usable: the failure of
   * a forward ends its requests (Failed). */
  bool step();
  EngineStatus status() const;
};

} // namespace optiq::generate
