#include "optiq/generate/sample_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
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

/** Calls f(row index), the rows in parallel; a row whose call throws gets its
 * error. */
template <typename F>
void for_each_row(std::span<RowToSample> rows, const F& f) {
  parallel_for(rows.size(), 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      try {
        f(i);
      } catch (...) {
        rows[i].error = std::current_exception();
      }
    }
  });
}

/** Whether its token depends on sums of its blocks and a few of them alone. */
bool reads_few_blocks(const RowToSample& row) {
  return !row.processors->is_active() && !row.top_logprobs;
}

/** A row that lies elsewhere. */
struct FarRow {
  FarRow(std::size_t width, kernels::BlockSums sums, float scale)
      : logits(width), scan(logits, std::move(sums), scale) {}

  LogitRow logits;
  LogitScan scan;
  std::vector<std::size_t> blocks; // to be read
};

void sample_far_rows(
    kernels::Device& device,
    const kernels::mx::array& logits,
    std::span<RowToSample> rows) {
  std::vector<float> scales;
  for (const RowToSample& row : rows) {
    scales.push_back(row.sampler->scale());
  }
  std::vector<kernels::BlockSums> sums = device.block_sums(logits, scales);
  const auto width = static_cast<std::size_t>(logits.shape(1));
  std::vector<std::unique_ptr<FarRow>> far(rows.size());
  for_each_row(rows, [&](std::size_t i) {
    far[i] = std::make_unique<FarRow>(width, std::move(sums[i]), scales[i]);
    far[i]->blocks = rows[i].sampler->next_blocks(far[i]->scan);
  });
  std::vector<kernels::LogitBlockId> wanted;
  for (std::size_t i = 0; i < far.size(); ++i) {
    if (!rows[i].error) {
      for (const std::size_t block : far[i]->blocks) {
        wanted.push_back({static_cast<int>(i), static_cast<int>(block)});
      }
    }
  }
  const kernels::HostRows taken = device.take_blocks(logits, wanted);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    far[static_cast<std::size_t>(wanted[i].row)]->logits.put(
        static_cast<std::size_t>(wanted[i].block),
        taken.row(static_cast<int>(i)).data());
  }
  for_each_row(rows, [&](std::size_t i) {
    if (!rows[i].error) {
      rows[i].token.id = rows[i].sampler->sample(far[i]->scan);
    }
  });
}

} // namespace

void sample_rows(std::span<RowToSample> rows) {
  for_each_row(rows, [&](std::size_t i) { rows[i].token = choose(rows[i]); });
}

void sample_rows(
    kernels::Device& device,
    const kernels::mx::array& logits,
    std::span<RowToSample> rows) {
  const bool is_here = &device == &kernels::cpu_device();
  if (is_here || !std::ranges::all_of(rows, reads_few_blocks)) {
    const kernels::HostRows host = device.to_host(logits);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].logits = host.row(static_cast<int>(i));
    }
    sample_rows(rows);
    return;
  }
  const auto is_greedy = [](const RowToSample& row) {
    return row.sampler->is_greedy();
  };
  if (!std::ranges::all_of(rows, is_greedy)) {
    sample_far_rows(device, logits, rows);
    return;
  }
  const std::vector<std::int32_t> largest = device.argmax(logits);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].token.id = largest[i];
  }
}

} // namespace optiq::generate
