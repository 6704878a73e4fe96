#include <algorithm>
#include <cstring>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/generate/generator.h"
#include "optiq/io/array.h"

namespace optiq::generate {

Engine::Engine(
    std::shared_ptr<const models::Model> model,
    EngineOptions options)
    : model_(std::move(model)),
      options_(options),
      layout_(model_->cache_layout(models::kv_dtype(options_.compute))),
      pool_(std::make_shared<cache::BlockPool>(options_.max_cache_bytes)),
      prefixes_(pool_, layout_) {
  if (options_.prefill_chunk < 1) {
    fail(
        ErrorKind::InvalidInput,
        "[Engine] prefill_chunk is {}, expected at least 1",
        options_.prefill_chunk);
  }
}

std::unique_ptr<cache::Sequence> Engine::new_sequence() const {
  return std::make_unique<cache::Sequence>(pool_, layout_);
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
  std::vector<nn::Segment> segments;
  std::vector<std::int32_t> tokens;
  std::vector<int> wanted;
  for (const Work& item : work) {
    const auto n = static_cast<int>(item.tokens.size());
    const int start = item.sequence->length();
    item.sequence->reserve(start + n);
    segments.push_back(
        {.sequence = item.sequence,
         .first_row = static_cast<int>(tokens.size()),
         .rows = n,
         .start = start});
    tokens.insert(tokens.end(), item.tokens.begin(), item.tokens.end());
    for (int i = n - std::min(n, n_logits); i < n; ++i) {
      wanted.push_back(segments.back().first_row + i);
    }
  }
  const nn::ForwardContext context = models::make_context(
      *model_, tokens, std::move(segments), options_.compute);
  const mx::array hidden =
      models::run_layers_for(*model_, wanted, model_->embed(tokens), context);
  for (const nn::Segment& segment : context.segments) {
    segment.sequence->commit(segment.rows);
  }
  if (wanted.empty()) {
    return io::make_array({0, model_->info().vocab_size}, mx::float32);
  }
  return model_->logits(hidden, options_.compute);
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
  const int vocab = model_->info().vocab_size;
  mx::array logits = io::make_array({n_logits, vocab}, mx::float32);
  float* to = io::mutable_floats(logits).data();
  for (int begin = 0; begin < n; begin += options_.prefill_chunk) {
    const int end = std::min(n, begin + options_.prefill_chunk);
    const int rows = std::max(0, end - std::max(begin, n - n_logits));
    const Work work{&sequence, tokens.subspan(begin, end - begin)};
    const mx::array part = run({&work, 1}, rows);
    to = std::copy_n(io::floats(part).data(), part.size(), to);
  }
  return logits;
}

mx::array Engine::step(std::span<const Work> work) {
  return run(work, 1);
}

} // namespace optiq::generate
