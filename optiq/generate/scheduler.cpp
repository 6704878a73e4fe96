#include "optiq/generate/scheduler.h"

#include <algorithm>
#include <numeric>

namespace optiq::generate {
namespace {

/** A running request, and what this step gives it. */
struct Share {
  const RunningView* view = nullptr;
  int rows = 0;

  bool is_prompt() const {
    return view->rows_left > 1;
  }
  /** That `n` rows in all take beyond what it holds. */
  std::size_t bytes_of(int n) const {
    const auto length = static_cast<std::size_t>(view->length);
    const std::size_t blocks =
        cache::blocks_for(length + static_cast<std::size_t>(n)) -
        cache::blocks_for(length);
    return blocks * view->block_bytes;
  }
};

/** Gives a share up to `more` rows, as far as memory goes; returns how many. */
int give(Share& share, int more, std::size_t& free_bytes) {
  more = std::min(more, share.view->most_rows - share.rows);
  const std::size_t held = share.bytes_of(share.rows);
  while (more > 0 && share.bytes_of(share.rows + more) - held > free_bytes) {
    // To the end of the block before.
    const int over =
        (share.view->length + share.rows + more) % kernels::kKvBlockTokens;
    more -= over == 0 ? kernels::kKvBlockTokens : over;
  }
  if (more <= 0) {
    return 0;
  }
  free_bytes -= share.bytes_of(share.rows + more) - held;
  share.rows += more;
  return more;
}

/** Whom to admit, of those who wait for nothing but memory. */
std::optional<RequestId> choose_to_admit(
    std::span<const RunningView> running,
    std::span<const WaitingView> waiting,
    std::size_t free_bytes) {
  std::size_t promised = 0;
  for (const RunningView& view : running) {
    promised += std::max(view.bytes_left, view.block_bytes);
  }
  for (const WaitingView& view : waiting) {
    if (view.waits_for_prefix) {
      continue; // its place is free for it later
    }
    // Alone it fits: nobody is let in who does not.
    const std::size_t growth = running.empty() ? 0 : view.block_bytes;
    const bool fits = promised + view.bytes + growth <= free_bytes;
    return fits ? std::optional(view.id) : std::nullopt;
  }
  return std::nullopt;
}

/** Shares out the rows of prompts. */
void give_prompt_rows(
    std::vector<Share>& shares,
    int budget,
    std::size_t free_bytes) {
  std::vector<Share*> prompts;
  for (Share& share : shares) {
    if (share.is_prompt() && share.rows > 0) {
      prompts.push_back(&share);
      --budget; // its first row
    }
  }
  if (prompts.empty()) {
    return;
  }
  const int of_oldest = std::max(0, (budget + 1) / 4);
  budget -= give(*prompts.front(), of_oldest, free_bytes);
  std::stable_sort(
      prompts.begin(), prompts.end(), [](const Share* a, const Share* b) {
        return a->view->rows_left < b->view->rows_left;
      });
  for (Share* share : prompts) {
    budget -= give(*share, budget, free_bytes);
  }
}

} // namespace

StepPlan plan_step(
    std::span<const RunningView> running,
    std::span<const WaitingView> waiting,
    std::size_t free_bytes,
    const StepLimits& limits) {
  std::vector<Share> shares;
  bool has_answers = false;
  std::size_t left = free_bytes;
  for (const RunningView& view : running) {
    Share share{.view = &view};
    if (share.bytes_of(1) > left && &view != &running.back()) {
      return {.preempt = running.back().id, .admit = {}, .rows = {}};
    }
    give(share, 1, left);
    has_answers = has_answers || !share.is_prompt();
    shares.push_back(share);
  }
  if (const auto id = choose_to_admit(running, waiting, free_bytes)) {
    return {.preempt = {}, .admit = id, .rows = {}};
  }
  give_prompt_rows(
      shares,
      has_answers ? limits.prompt_rows_beside_answers : limits.prompt_rows,
      left);
  StepPlan plan;
  for (const Share& share : shares) {
    if (share.rows > 0) {
      plan.rows.push_back({share.view->id, share.rows});
    }
  }
  return plan;
}

} // namespace optiq::generate
