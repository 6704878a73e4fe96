#include "optiq/generate/engine.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/generate/active_request_impl.h"
#include "optiq/generate/sample_rows.h"
#include "optiq/kernels/device.h"
#include "optiq/models/forward.h"

namespace optiq::generate {
namespace {

using Tokens = std::span<const std::int32_t>;

void require_at_least(const char* name, int value, int least) {
  if (value < least) {
    fail(
        ErrorKind::InvalidInput,
        "[Engine] {} is {}, expected at least {}",
        name,
        value,
        least);
  }
}

/** Throws InvalidInput. */
void require_tokens(Tokens tokens, int vocab_size) {
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= vocab_size) {
      fail(
          ErrorKind::InvalidInput,
          "[submit] the prompt has token id {}, expected one of 0 to {}, the "
          "rows of the embeddings",
          token,
          vocab_size - 1);
    }
  }
}

void require_top_logprobs(std::optional<int> top_logprobs, int vocab_size) {
  if (top_logprobs && (*top_logprobs < 0 || *top_logprobs > vocab_size)) {
    fail(
        ErrorKind::InvalidInput,
        "[submit] top_logprobs is {}, expected 0 to {}",
        *top_logprobs,
        vocab_size);
  }
}

/** Whether a layer can be kept in one format as well as in the other. */
bool has_shape_of(const cache::LayerFormat& a, const cache::LayerFormat& b) {
  const auto* kv = std::get_if<kernels::KvFormat>(&a);
  const auto* other = std::get_if<kernels::KvFormat>(&b);
  if (kv == nullptr || other == nullptr) {
    return cache::is_same({&a, 1}, {&b, 1});
  }
  return kv->layout != nullptr && kv->n_kv_heads == other->n_kv_heads &&
      kv->head_dim == other->head_dim && kv->window == other->window;
}

void require_layout_of(
    const std::vector<cache::LayerFormat>& layout,
    const std::vector<cache::LayerFormat>& of_model) {
  if (!std::equal(
          layout.begin(),
          layout.end(),
          of_model.begin(),
          of_model.end(),
          has_shape_of)) {
    fail(
        ErrorKind::InvalidInput,
        "[submit] layout: found {} layers that are not those of the model, "
        "expected what cache_layout gives for it",
        layout.size());
  }
}

/** The most tokens that a sequence alone can hold in this memory. */
int most_tokens(
    std::span<const cache::LayerFormat> layout,
    int limit,
    const EngineOptions& options) {
  int fits = 0;
  for (int beyond = limit + 1; fits + 1 < beyond;) {
    const int n = fits + (beyond - fits) / 2;
    const std::size_t bytes = cache::sequence_bytes(
        layout,
        static_cast<std::size_t>(n),
        static_cast<std::size_t>(options.prefill_chunk));
    (bytes <= options.max_cache_bytes ? fits : beyond) = n;
  }
  return fits;
}

} // namespace

int answer_limit(
    const models::Model& model,
    std::size_t n_prompt,
    int max_tokens,
    bool clamp) {
  if (n_prompt == 0) {
    fail(ErrorKind::InvalidInput, "[generate] the prompt has no tokens");
  }
  if (max_tokens < 1) {
    fail(
        ErrorKind::InvalidInput,
        "[generate] max_tokens is {}, expected at least 1",
        max_tokens);
  }
  const auto positions = static_cast<std::int64_t>(model.info().max_positions);
  const std::int64_t room = positions - static_cast<std::int64_t>(n_prompt);
  if (clamp && room > 0) {
    return static_cast<int>(std::min<std::int64_t>(room, max_tokens));
  }
  if (max_tokens > room) {
    fail(
        ErrorKind::InvalidInput,
        "[generate] {} prompt tokens plus {} new ones exceed the model's {} "
        "positions. Shorten the prompt or lower the number of new tokens",
        n_prompt,
        clamp ? 1 : max_tokens,
        positions);
  }
  return max_tokens;
}

Engine::Engine(models::Setup setup, EngineOptions options)
    : setup_(std::move(setup)),
      options_(options),
      pool_(std::make_shared<cache::BlockPool>(
          options_.max_cache_bytes,
          setup_.model->device())),
      prefixes_(pool_),
      layouts_{std::make_shared<const Layout>(setup_.layout)} {
  require_at_least("prefill_chunk", options_.prefill_chunk, 1);
  require_at_least(
      "prefill_chunk_beside_answers", options_.prefill_chunk_beside_answers, 1);
  require_at_least("max_running", options_.max_running, 1);
  require_at_least("max_waiting", options_.max_waiting, 0);
}

Engine::~Engine() = default;

std::shared_ptr<const Engine::Layout> Engine::find_layout(
    const Layout& layout) {
  if (layout.empty()) {
    return layouts_.front();
  }
  require_layout_of(layout, setup_.layout);
  std::erase_if(layouts_, [&](const auto& other) {
    return other != layouts_.front() && other.use_count() == 1;
  });
  const auto found =
      std::find_if(layouts_.begin(), layouts_.end(), [&](const auto& other) {
        return cache::is_same(*other, layout);
      });
  if (found != layouts_.end()) {
    return *found;
  }
  layouts_.push_back(std::make_shared<const Layout>(layout));
  return layouts_.back();
}

int Engine::limit_answer(const Request& request, const Layout& layout) const {
  const std::size_t n_prompt = request.prompt.size();
  const int limit = answer_limit(
      model(), n_prompt, request.max_tokens, request.clamp_max_tokens);
  // The last token of an answer is not computed any more.
  const int held =
      most_tokens(layout, model().info().max_positions, options_) + 1;
  const int room = held - static_cast<int>(n_prompt);
  if (request.clamp_max_tokens && room > 0) {
    return std::min(limit, room);
  }
  if (limit > room) {
    fail(
        ErrorKind::InvalidInput,
        "[submit] {} prompt tokens plus {} new ones exceed the {} tokens that "
        "the {} bytes of K/V memory hold. Shorten the prompt, lower the number "
        "of new tokens or raise the limit",
        n_prompt,
        request.clamp_max_tokens ? 1 : limit,
        held,
        options_.max_cache_bytes);
  }
  return limit;
}

RequestId Engine::submit(Request request) {
  const int vocab_size = model().info().vocab_size;
  require_tokens(request.prompt, vocab_size);
  require_top_logprobs(request.top_logprobs, vocab_size);
  if (request.adapter != nullptr) {
    request.prefix_key += '\0' + request.adapter->key;
  }
  auto layout = find_layout(request.layout);
  const int limit = limit_answer(request, *layout);
  const auto id = RequestId{last_id_ + 1};
  // Its sampler and processors check their options.
  auto active = std::make_unique<Active>(
      id, std::move(request), std::move(layout), limit);
  const std::size_t most = static_cast<std::size_t>(options_.max_running) +
      static_cast<std::size_t>(options_.max_waiting);
  if (running_.size() + waiting_.size() >= most) {
    fail(
        ErrorKind::Exhausted,
        "[submit] {} requests run and {} wait, expected at most {} and {}. Try "
        "again later",
        running_.size(),
        waiting_.size(),
        options_.max_running,
        options_.max_waiting);
  }
  waiting_.push_back(std::move(active));
  ++last_id_;
  return id;
}

Engine::Active* Engine::find(RequestId id) const {
  for (const auto* among : {&running_, &waiting_}) {
    for (const auto& active : *among) {
      if (active->id == id) {
        return active.get();
      }
    }
  }
  return nullptr;
}

void Engine::cancel(RequestId id) {
  if (Active* const active = find(id)) {
    active->is_cancelled = true;
  }
}

bool Engine::step() {
  retire();
  const std::vector<Work> work = make_work(plan_rows());
  if (!work.empty()) {
    if (const auto rows = run_forward(work)) {
      advance(work, *rows);
    }
    ++counts_.steps;
    counts_.last_step_sequences = static_cast<int>(work.size());
    counts_.last_step_rows = 0;
    for (const Work& item : work) {
      counts_.last_step_rows += item.rows;
    }
    retire();
  }
  return !running_.empty() || !waiting_.empty();
}

EngineStatus Engine::status() const {
  EngineStatus status = counts_;
  status.running = static_cast<int>(running_.size());
  status.waiting = static_cast<int>(waiting_.size());
  for (const auto& active : running_) {
    status.running_tokens += static_cast<std::uint64_t>(active->length());
  }
  status.cache_bytes = pool_->used_bytes();
  status.prefix_bytes = prefixes_.kept_bytes();
  status.max_cache_bytes = pool_->max_bytes();
  return status;
}

std::vector<Engine::Work> Engine::make_work(
    const std::vector<RowShare>& rows) const {
  std::vector<Work> work;
  auto place = running_.begin(); // both are in order of arrival
  for (const RowShare& share : rows) {
    while ((*place)->id != share.id) {
      ++place;
    }
    Active& active = **place;
    try {
      active.sequence->reserve(active.length() + share.rows);
      work.push_back({.active = &active, .rows = share.rows});
    } catch (...) {
      // The system had less than the cap.
      active.fail_with(std::current_exception());
    }
  }
  // Attention takes neighbours of one format together.
  std::stable_sort(work.begin(), work.end(), [](const Work& a, const Work& b) {
    return std::less<>()(a.active->layout.get(), b.active->layout.get());
  });
  return work;
}

std::optional<std::vector<RowToSample>> Engine::run_forward(
    const std::vector<Work>& work) {
  try {
    models::Forward forward(setup_);
    std::vector<RowToSample> rows;
    for (const Work& item : work) {
      Active& active = *item.active;
      const int last = item.rows - 1;
      const bool is_wanted = item.rows == active.rows_left();
      forward.add(
          *active.sequence,
          Tokens(active.tokens)
              .subspan(
                  static_cast<std::size_t>(active.length()),
                  static_cast<std::size_t>(item.rows)),
          is_wanted ? std::span(&last, 1) : std::span<const int>{},
          active.request.adapter.get());
      if (is_wanted) {
        rows.push_back(
            {.logits = {},
             .processors = &active.processors,
             .sampler = &active.sampler,
             .top_logprobs = active.request.top_logprobs,
             .token = {},
             .error = nullptr});
      }
    }
    sample_rows(model().device(), forward.run(), rows);
    return rows;
  } catch (...) {
    for (const Work& item : work) {
      item.active->fail_with(std::current_exception());
    }
    return std::nullopt;
  }
}

void Engine::advance(
    const std::vector<Work>& work,
    std::span<const RowToSample> rows) {
  for (const Work& item : work) {
    Active& active = *item.active;
    const bool is_complete = active.rows_left() == 0;
    const bool is_answer =
        is_complete && item.rows == 1 && active.n_answer() > 0;
    counts_.prompt_tokens +=
        is_answer ? 0 : static_cast<std::uint64_t>(item.rows);
    const auto n_prompt = static_cast<int>(active.n_prompt);
    if (active.n_answer() == 0) {
      active.notify([&](RequestListener& listener) {
        listener.on_prefill(std::min(active.length(), n_prompt), n_prompt);
      });
    }
    keep_at_border(active);
    if (!is_complete) {
      continue;
    }
    const RowToSample& row = rows.front();
    rows = rows.subspan(1);
    if (row.error != nullptr) {
      active.fail_with(row.error);
    } else if (!active.ending) {
      take_token(active, row.token);
    }
  }
}

void Engine::take_token(Active& active, const AnswerToken& token) {
  const auto& stops = active.request.stop_ids;
  if (std::find(stops.begin(), stops.end(), token.id) != stops.end()) {
    active.end(FinishReason::Stop);
    return;
  }
  active.tokens.push_back(token.id);
  active.processors.push(token.id);
  ++counts_.answer_tokens;
  bool goes_on = true;
  active.notify(
      [&](RequestListener& listener) { goes_on = listener.on_token(token); });
  if (active.ending) {
    return;
  }
  if (!goes_on) {
    active.end(FinishReason::Stop);
  } else if (active.n_answer() == static_cast<std::size_t>(active.max_tokens)) {
    active.end(FinishReason::Length);
  }
}

void Engine::retire() {
  while (true) {
    std::vector<std::unique_ptr<Active>> ended;
    for (auto* among : {&running_, &waiting_}) {
      for (auto& active : *among) {
        if (active->is_cancelled && !active->ending) {
          active->end(FinishReason::Cancelled);
        }
        if (active->ending) {
          ended.push_back(std::move(active));
        }
      }
      std::erase(*among, nullptr);
    }
    if (ended.empty()) {
      return;
    }
    for (const auto& active : ended) {
      if (active->ending->reason != FinishReason::Failed) {
        keep_all(*active);
      }
      active->sequence.reset();
    }
    for (const auto& active : ended) {
      try {
        active->request.listener->on_end(*active->ending);
      } catch (...) {
        // It has ended already, and nobody else is to hear of it.
      }
    }
  }
}

} // namespace optiq::generate
