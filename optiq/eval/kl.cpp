#include "optiq/eval/kl.h"

#include <algorithm>
#include <numeric>

#include "optiq/base/error.h"
#include "optiq/eval/row_forward_impl.h"
#include "optiq/eval/statistics.h"
#include "optiq/io/spilled.h"
#include "optiq/kernels/devices.h"
#include "optiq/models/forward.h"

namespace optiq::eval {
namespace {

constexpr std::size_t kMaxCacheBytes = std::size_t{256} << 20; // per model

void check_vocabularies(
    const models::Model& reference,
    const models::Model& model) {
  const int wanted = reference.info().vocab_size;
  const int found = model.info().vocab_size;
  if (wanted != found) {
    fail(
        ErrorKind::InvalidInput,
        "[measure_kl] vocabulary: found {} tokens in the model, expected the "
        "reference's {}. KL compares two versions of one model",
        found,
        wanted);
  }
}

/** Values at every position of a batch, in order. */
struct Positions {
  std::vector<double> kl;
  std::vector<double> agreement;
};

Positions compare_states(
    const models::Setup& reference,
    const mx::array& expected,
    const models::Setup& setup,
    const mx::array& found) {
  const int n = expected.shape(0);
  const int block = rows_per_block(*setup.model);
  kernels::Device& of_reference = reference.model->device();
  kernels::Device& device = setup.model->device();
  Positions positions;
  for (int begin = 0; begin < n; begin += block) {
    const int size = std::min(block, n - begin);
    const mx::array a = kernels::transfer(
        of_reference,
        models::logits_of(
            reference, of_reference.row_range(expected, begin, size)),
        device);
    const mx::array b =
        models::logits_of(setup, device.row_range(found, begin, size));
    const std::vector<double> kl = device.kl_divergence(a, b);
    positions.kl.insert(positions.kl.end(), kl.begin(), kl.end());
    const auto best_a = device.argmax(a);
    const auto best_b = device.argmax(b);
    for (std::size_t i = 0; i < best_a.size(); ++i) {
      positions.agreement.push_back(best_a[i] == best_b[i] ? 1 : 0);
    }
  }
  return positions;
}

double sum_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

} // namespace

struct KlReference::State {
  const models::Setup& reference;
  std::span<const TokenRow> rows;
  KlOptions options;
  std::vector<RowBatch> batches;
  std::vector<mx::array> kept; // per batch [tokens, hidden_size], or none

  mx::array run(std::size_t batch) const {
    return run_rows(
        reference, rows.subspan(batches[batch].first, batches[batch].count));
  }
};

KlReference::KlReference(
    const models::Setup& reference,
    std::span<const TokenRow> rows,
    KlOptions options,
    bool keep_states) {
  check_rows(rows, *reference.model);
  auto batches =
      pack_rows(rows, reference, options.batch_tokens, kMaxCacheBytes);
  state_ = std::make_unique<State>(
      State{reference, rows, std::move(options), std::move(batches), {}});
  for (std::size_t i = 0; keep_states && i < state_->batches.size(); ++i) {
    state_->kept.push_back(io::spilled(state_->run(i)));
  }
}

KlReference::~KlReference() = default;

artifacts::KlScores KlReference::compare(const models::Setup& setup) const {
  const State& s = *state_;
  check_vocabularies(*s.reference.model, *setup.model);
  check_rows(s.rows, *setup.model);
  std::uint64_t total = 0;
  for (const TokenRow& row : s.rows) {
    total += row.size();
  }
  std::vector<std::vector<double>> kl;
  std::vector<std::vector<double>> agreement;
  std::uint64_t done = 0;
  for (std::size_t i = 0; i < s.batches.size(); ++i) {
    const auto part = s.rows.subspan(s.batches[i].first, s.batches[i].count);
    const Positions positions = compare_states(
        s.reference,
        s.kept.empty() ? s.run(i) : s.kept[i],
        setup,
        run_rows(setup, part));
    std::size_t at = 0;
    for (const TokenRow& row : part) {
      const auto slice = [&](const std::vector<double>& values) {
        return std::vector<double>(
            values.begin() + at, values.begin() + at + row.size());
      };
      kl.push_back(slice(positions.kl));
      agreement.push_back(slice(positions.agreement));
      at += row.size();
    }
    done += s.batches[i].tokens;
    if (s.options.on_progress) {
      s.options.on_progress({"kl", done, total, ""});
    }
  }
  return summarize_kl(kl, agreement);
}

artifacts::KlScores measure_kl(
    const models::Setup& reference,
    const models::Setup& setup,
    std::span<const TokenRow> rows,
    const KlOptions& options) {
  return KlReference(reference, rows, options, false).compare(setup);
}

artifacts::KlScores summarize_kl(
    std::span<const std::vector<double>> kl,
    std::span<const std::vector<double>> agreement) {
  std::vector<double> all;
  std::vector<double> sums;
  std::vector<double> agreements;
  std::vector<double> counts;
  std::vector<double> row_means;
  for (std::size_t i = 0; i < kl.size(); ++i) {
    const auto count = static_cast<double>(kl[i].size());
    all.insert(all.end(), kl[i].begin(), kl[i].end());
    sums.push_back(sum_of(kl[i]));
    agreements.push_back(sum_of(agreement[i]));
    counts.push_back(count);
    row_means.push_back(sums.back() / count);
  }
  const Estimate over_tokens = ratio_of_sums(sums, counts);
  const Estimate over_rows = mean(row_means);
  const Estimate agreed = ratio_of_sums(agreements, counts);
  return {
      .mean_kl = over_tokens.value,
      .mean_kl_stderr = over_tokens.standard_error,
      .mean_row_kl = over_rows.value,
      .mean_row_kl_stderr = over_rows.standard_error,
      .median_kl = quantile(all, 0.5),
      .p99_kl = quantile(all, 0.99),
      .top1_agreement = agreed.value,
      .top1_agreement_stderr = agreed.standard_error,
      .tokens = all.size(),
      .rows = kl.size(),
      .row_kl = row_means};
}

} // namespace optiq::eval
