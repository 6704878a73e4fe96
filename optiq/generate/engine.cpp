#include "optiq/generate/engine.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/models/forward.h"

namespace optiq::generate {

Engine::Engine(models::Setup setup, EngineOptions options)
    : setup_(std::move(setup)),
      options_(options),
      pool_(std::make_shared<cache::BlockPool>(
          options_.max_cache_bytes,
          setup_.model->device())),
      prefixes_(pool_, setup_.layout) {
  if (options_.prefill_chunk < 1) {
    fail(
        ErrorKind::InvalidInput,
        "[Engine] prefill_chunk is {}, expected at least 1",
        options_.prefill_chunk);
  }
}

std::unique_ptr<cache::Sequence> Engine::new_sequence() const {
  return std::make_unique<cache::Sequence>(pool_, setup_.layout);
}

std::unique_ptr<cache::Sequence> Engine::resume(
    std::span<const std::int32_t> prompt,
    std::string_view key) {
  auto sequence = new_sequence();
  prefixes_.resume(key, prompt, *sequence);
  return sequence;
}

void Engine::keep_prefix(
    std::span<const std::int32_t> tokens,
    const cache::Sequence& sequence,
    std::string_view key) {
  prefixes_.insert(key, tokens, sequence);
}

mx::array Engine::run(std::span<const Work> work, int n_logits) {
  models::Forward forward(setup_);
  for (const Work& item : work) {
    const auto n = static_cast<int>(item.tokens.size());
    std::vector<int> last(std::min(n, n_logits));
    std::iota(last.begin(), last.end(), n - static_cast<int>(last.size()));
    forward.add(*item.sequence, item.tokens, last);
  }
  return forward.run();
}

mx::array Engine::extend(
    cache::Sequence& sequence,
    std::span<const std::int32_t> tokens,
    int n_logits) {
  const auto n = static_cast<int>(tokens.size());
  if (n == 0 || n_logits < 1 || n_logits > n) {
    fail(
        ErrorKind::InvalidInput,
        "[extend] {} tokens and {} rows of logits, expected 1 <= rows <= "
        "tokens",
        n,
        n_logits);
  }
  std::vector<mx::array> logits;
  for (int begin = 0; begin < n; begin += options_.prefill_chunk) {
    const int end = std::min(n, begin + options_.prefill_chunk);
    const int rows = std::max(0, end - std::max(begin, n - n_logits));
    const Work work{&sequence, tokens.subspan(begin, end - begin)};
    const mx::array part = run({&work, 1}, rows);
    if (rows > 0) {
      logits.push_back(part);
    }
  }
  return model().device().concatenate(logits);
}

mx::array Engine::step(std::span<const Work> work) {
  return run(work, 1);
}

} // namespace optiq::generate
