#include <algorithm>
#include <utility>

#include "optiq/generate/active_request_impl.h"

/** The engine between two forwards: who has a sequence, and how many rows of
 * the next one each gets. */
namespace optiq::generate {
namespace {

using Tokens = std::span<const std::int32_t>;

// Of the queue, whose prompts are compared with one that begins.
constexpr std::size_t kLookAhead = 64;

int common_length(Tokens a, Tokens b) {
  return static_cast<int>(cache::common_length(a, b));
}

int whole_blocks(int n_tokens) {
  return n_tokens / kernels::kKvBlockTokens * kernels::kKvBlockTokens;
}

} // namespace

std::vector<RowShare> Engine::plan_rows() {
  const StepLimits limits{
      .prompt_rows = options_.prefill_chunk,
      .prompt_rows_beside_answers = std::min(
          options_.prefill_chunk, options_.prefill_chunk_beside_answers)};
  std::vector<RunningView> running;
  while (true) {
    // Many may be admitted at once: only who has come is looked at anew.
    if (!running.empty() && running.size() + 1 == running_.size() &&
        running.back().id < running_.back()->id) {
      running.push_back(running_view(*running_.back()));
    } else {
      running.clear();
      for (const auto& active : running_) {
        running.push_back(running_view(*active));
      }
    }
    StepPlan plan = plan_step(
        running,
        waiting_views(),
        pool_->max_bytes() - pool_->used_bytes() + prefixes_.kept_bytes(),
        limits);
    if (plan.preempt) {
      preempt(*plan.preempt);
    } else if (plan.admit) {
      admit(*plan.admit);
    } else {
      return std::move(plan.rows);
    }
  }
}

std::vector<WaitingView> Engine::waiting_views() const {
  std::vector<WaitingView> views;
  const auto places =
      static_cast<std::size_t>(options_.max_running) - running_.size();
  for (const auto& active : waiting_) {
    if (views.size() == places) {
      break;
    }
    views.push_back(waiting_view(*active));
    if (!views.back().waits_for_prefix) {
      break; // nobody overtakes it
    }
  }
  return views;
}

RunningView Engine::running_view(const Active& active) const {
  const Layout& layout = *active.layout;
  const int length = active.length();
  const int rows_left = active.rows_left();
  const bool pauses = !active.borders.empty() && cache::needs_border(layout);
  const std::size_t bytes = cache::sequence_bytes(
      layout,
      active.tokens.size(),
      static_cast<std::size_t>(options_.prefill_chunk));
  return {
      .id = active.id,
      .length = length,
      .rows_left = rows_left,
      .most_rows = pauses ? active.borders.front() - length : rows_left,
      .block_bytes = cache::block_bytes(layout),
      .bytes_left = bytes - std::min(bytes, active.sequence->bytes())};
}

WaitingView Engine::waiting_view(const Active& active) const {
  if (waits_for_prefix(active)) {
    return {.id = active.id, .waits_for_prefix = true};
  }
  const Layout& layout = *active.layout;
  const std::size_t bytes = cache::sequence_bytes(
      layout,
      active.tokens.size(),
      static_cast<std::size_t>(options_.prefill_chunk));
  std::size_t held = 0;
  if (active.request.share_prefixes) {
    held = prefixes_.find(active.request.prefix_key, layout, active.tokens)
               .held_bytes;
  }
  return {
      .id = active.id,
      .bytes = bytes - std::min(bytes, held),
      .block_bytes = cache::block_bytes(layout),
      .waits_for_prefix = false};
}

bool Engine::waits_for_prefix(const Active& active) const {
  return std::any_of(running_.begin(), running_.end(), [&](const auto& other) {
    return other->id < active.id && !other->borders.empty() &&
        active.shares_with(*other) &&
        common_length(active.tokens, other->tokens) >= other->borders.front();
  });
}

void Engine::admit(RequestId id) {
  const auto found =
      std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& active) {
        return active->id == id;
      });
  const auto place =
      std::find_if(running_.begin(), running_.end(), [&](const auto& active) {
        return active->id > id;
      });
  Active& active = **running_.insert(place, std::move(*found));
  waiting_.erase(found);
  const Request& request = active.request;
  try {
    if (request.share_prefixes) {
      const auto match =
          prefixes_.find(request.prefix_key, *active.layout, active.tokens);
      active.sequence =
          prefixes_.resume(request.prefix_key, *active.layout, active.tokens);
      set_borders(active, match.known_length);
    } else {
      active.sequence =
          std::make_unique<cache::Sequence>(pool_, *active.layout);
    }
  } catch (...) {
    active.fail_with(std::current_exception());
  }
  counts_.cached_tokens += static_cast<std::uint64_t>(active.length());
  if (!active.ending && !active.is_started) {
    active.is_started = true;
    active.notify(
        [&](RequestListener& listener) { listener.on_start(active.length()); });
  }
  retire();
}

void Engine::preempt(RequestId id) {
  const auto found =
      std::find_if(running_.begin(), running_.end(), [&](const auto& active) {
        return active->id == id;
      });
  const auto place =
      std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& active) {
        return active->id > id;
      });
  Active& active = **waiting_.insert(place, std::move(*found));
  running_.erase(found);
  active.borders.clear();
  // Others may take the memory; what they leave is found again.
  keep_all(active);
  ++counts_.preemptions;
}

void Engine::set_borders(Active& active, int known_length) const {
  int shared = known_length;
  const std::size_t n_ahead = std::min(waiting_.size(), kLookAhead);
  for (const auto& other : std::span(waiting_).first(n_ahead)) {
    if (active.shares_with(*other)) {
      shared = std::max(shared, common_length(active.tokens, other->tokens));
    }
  }
  const int length = active.length();
  const auto n_tokens = static_cast<int>(active.tokens.size());
  shared = whole_blocks(std::min(shared, n_tokens - 1));
  active.borders.clear();
  if (shared > length) {
    active.borders.push_back(shared);
  }
  const int end = cache::border_to_keep(
      *active.layout,
      std::max(shared, length),
      static_cast<int>(active.n_prompt));
  if (end > 0) {
    active.borders.push_back(end);
  }
}

void Engine::keep_at_border(Active& active) {
  auto& borders = active.borders;
  const auto next = std::find_if(borders.begin(), borders.end(), [&](int at) {
    return at > active.length();
  });
  if (next == borders.begin()) {
    return;
  }
  borders.erase(borders.begin(), next);
  try {
    prefixes_.insert(
        active.request.prefix_key, active.held(), *active.sequence);
  } catch (...) {
    active.fail_with(std::current_exception());
  }
}

void Engine::keep_all(Active& active) {
  if (active.sequence != nullptr && active.request.share_prefixes) {
    const auto held = active.held();
    prefixes_.insert_whole(
        active.request.prefix_key, held, std::move(active.sequence));
  }
  active.sequence.reset();
}

} // namespace optiq::generate
