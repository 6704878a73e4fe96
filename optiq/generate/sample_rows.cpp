#include "optiq/generate/sample_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "optiq/base/thread_pool.h"
#include "optiq/generate/logit_row.h"
#include "optiq/generate/logit_scan.h"

namespace optiq::generate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/** Logarithms of probabilities in the softmax of a row. */
class Logprobs {
 public:
  explicit Logprobs(LogitScan& scan)
      : largest_(scan.largest()),
        log_mass_(std::isfinite(largest_) ? std::log(scan.mass(1.f)) : 0.0) {}

  float of(float logit) const {
    if (std::isfinite(logit) && std::isfinite(largest_)) {
      return static_cast<float>(double{logit} - largest_ - log_mass_);
    }
    return logit == kInfinity ? 0.f : -kInfinity;
  }

 private:
  float largest_;
  double log_mass_;
};

std::vector<ScoredToken>
most_probable(const LogitScan& scan, std::size_t n, const Logprobs& logprobs) {
  const TokenList tokens = scan.top(n);
  std::vector<ScoredToken> scored;
  scored.reserve(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    scored.push_back({tokens.ids[i], tokens.logits[i]});
  }
  std::sort(
      scored.begin(),
      scored.end(),
      [](const ScoredToken& a, const ScoredToken& b) {
        return is_before(a.logprob, a.id, b.logprob, b.id);
      });
  for (ScoredToken& token : scored) {
    token.logprob = logprobs.of(token.logprob);
  }
  return scored;
}

AnswerToken choose(const RowToSample& row) {
  LogitRow logits(row.logits);
  row.processors->apply(logits);
  LogitScan scan(logits);
  AnswerToken token;
  token.id = row.sampler->sample(scan);
  if (row.top_logprobs) {
    const Logprobs logprobs(scan);
    token.logprob = logprobs.of(logits[token.id]);
    token.top = most_probable(
        scan, static_cast<std::size_t>(*row.top_logprobs), logprobs);
  }
  return token;
}

} // namespace

void sample_rows(std::span<RowToSample> rows) {
  parallel_for(rows.size(), 1, [&](std::size_t begin, std::size_t end) {
    for (RowToSample& row : rows.subspan(begin, end - begin)) {
      try {
        row.token = choose(row);
      } catch (...) {
        row.error = std::current_exception();
      }
    }
  });
}

} // namespace optiq::generate
