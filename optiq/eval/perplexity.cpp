#include "optiq/eval/perplexity.h"

#include <algorithm>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/eval/row_forward_impl.h"
#include "optiq/eval/statistics.h"
#include "optiq/models/forward.h"

namespace optiq::eval {
namespace {

constexpr std::size_t kMaxCacheBytes = std::size_t{256} << 20;

/** -log p(next token) of the given rows, summed row by row. */
std::vector<double> sum_losses(
    const models::Setup& setup,
    std::span<const TokenRow> rows) {
  const mx::array hidden = run_rows(setup, rows);
  kernels::Device& device = setup.model->device();
  const int block = rows_per_block(*setup.model);
  std::vector<double> sums;
  int first = 0;
  for (const TokenRow& row : rows) {
    const auto n = static_cast<int>(row.size());
    double sum = 0;
    for (int begin = 0; begin < n - 1; begin += block) {
      const int size = std::min(block, n - 1 - begin);
      const mx::array logits = models::logits_of(
          setup, device.row_range(hidden, first + begin, size));
      const std::vector<double> totals = device.log_sum_exp(logits);
      const std::vector<float> next =
          device.pick(logits, std::span(row).subspan(begin + 1, size));
      for (int i = 0; i < size; ++i) {
        sum += totals[i] - next[i];
      }
    }
    sums.push_back(sum);
    first += n;
  }
  return sums;
}

} // namespace

artifacts::PerplexityScores measure_perplexity(
    const models::Setup& setup,
    std::span<const TokenRow> rows,
    const PerplexityOptions& options) {
  check_rows(rows, *setup.model);
  std::uint64_t total = 0;
  std::vector<double> counts;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].size() < 2) {
      fail(
          ErrorKind::InvalidInput,
          "[measure_perplexity] row {}: found 1 token, expected at least 2",
          i + 1);
    }
    counts.push_back(static_cast<double>(rows[i].size() - 1));
    total += rows[i].size();
  }
  std::vector<double> losses;
  std::uint64_t done = 0;
  for (const RowBatch& batch :
       pack_rows(rows, setup, options.batch_tokens, kMaxCacheBytes)) {
    const std::vector<double> part =
        sum_losses(setup, rows.subspan(batch.first, batch.count));
    losses.insert(losses.end(), part.begin(), part.end());
    done += batch.tokens;
    if (options.on_progress) {
      options.on_progress({"ppl", done, total, ""});
    }
  }
  const Estimate nll = ratio_of_sums(losses, counts);
  const double ppl = std::exp(nll.value);
  return {
      .ppl = ppl,
      .ppl_stderr = ppl * nll.standard_error,
      .mean_nll = nll.value,
      .tokens = total - rows.size(),
      .rows = rows.size()};
}

} // namespace optiq::eval
