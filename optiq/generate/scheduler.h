#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "optiq/generate/request.h"

/**
 * Who gets memory and rows in the next step, decided on numbers alone.
 *
 * Rows of answers always go on, one each. Prompts share a budget of rows, so
 * that answers keep flowing while a long one is computed; of it the oldest
 * prompt has a quarter, and the rest goes where least is left to do: short
 * prompts come first, and no long one starves.
 *
 * Memory goes to the oldest first. Who arrives is admitted when all of its
 * prompt fits beside what those who run still need for theirs, and a block of
 * answer for each. Later on answers grow by blocks: where one finds no memory,
 * the youngest is preempted (its blocks go, and it waits again in its place
 * of the queue), or stands still if it is the youngest itself. So the oldest
 * always goes on, given that it alone fits, and whoever is the oldest ends.
 */
namespace optiq::generate {

/** A request that has a sequence. */
struct RunningView {
  RequestId id{}; // in order of arrival
  int length = 0; // tokens that its sequence holds
  int rows_left = 1; // tokens known beyond them; 1: its answer goes on
  int most_rows = 1; // of one step, where it must end one at a border
  std::size_t block_bytes = 0; // that 64 tokens more take
  /** That its sequence will take more until it holds the tokens known. */
  std::size_t bytes_left = 0;
};

/** A request in the queue. */
struct WaitingView {
  RequestId id{};
  /** That its sequence will take until it holds the tokens known. */
  std::size_t bytes = 0;
  std::size_t block_bytes = 0;
  /** For one that runs to compute what they have in common. */
  bool waits_for_prefix = false;
};

struct StepLimits {
  int prompt_rows = 512; // of one step
  int prompt_rows_beside_answers = 128; // where answers wait for its end
};

struct RowShare {
  RequestId id{};
  int rows = 0;
};

/**
 * One thing of three: whom to preempt or whom to admit, after which the next
 * plan is asked for at once, since both change the numbers; or the rows of the
 * step.
 */
struct StepPlan {
  std::optional<RequestId> preempt;
  std::optional<RequestId> admit;
  std::vector<RowShare> rows; // those of no rows are absent
};

/** Both in order of arrival; `waiting` are as many as may be admitted, and
 * `free_bytes` includes what goes when it is asked for. */
StepPlan plan_step(
    std::span<const RunningView> running,
    std::span<const WaitingView> waiting,
    std::size_t free_bytes,
    const StepLimits& limits);

} // namespace optiq::generate
