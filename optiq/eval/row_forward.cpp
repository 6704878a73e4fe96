#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/eval/row_forward_impl.h"
#include "optiq/kernels/devices.h"
#include "optiq/models/forward.h"

namespace optiq::eval {
namespace {

constexpr std::size_t kLogitBlockBytes = std::size_t{64} << 20;

} // namespace

std::vector<RowBatch> pack_rows(
    std::span<const TokenRow> rows,
    const models::Setup& setup,
    int batch_tokens,
    std::size_t max_cache_bytes) {
  std::vector<RowBatch> batches;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto tokens = static_cast<int>(rows[i].size());
    const std::size_t row_bytes =
        cache::sequence_bytes(setup.layout, rows[i].size());
    if (batches.empty() || batches.back().tokens + tokens > batch_tokens ||
        bytes + row_bytes > max_cache_bytes) {
      batches.push_back({.first = i});
      bytes = 0;
    }
    batches.back().count += 1;
    batches.back().tokens += tokens;
    bytes += row_bytes;
  }
  return batches;
}

void check_rows(std::span<const TokenRow> rows, const models::Model& model) {
  if (rows.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[check_rows] found no rows, expected at least one");
  }
  const auto limit = static_cast<std::size_t>(model.info().max_positions);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].empty() || rows[i].size() > limit) {
      fail(
          ErrorKind::InvalidInput,
          "[check_rows] row {}: found {} tokens, expected 1 to the model's {} "
          "positions",
          i + 1,
          rows[i].size(),
          limit);
    }
  }
}

mx::array run_rows(const models::Setup& setup, std::span<const TokenRow> rows) {
  models::Forward forward(setup);
  for (const TokenRow& row : rows) {
    forward.add_fresh(row);
  }
  kernels::require_bytes(
      setup.model->device(),
      forward.fresh_bytes(),
      "the K/V cache and state of the rows measured at once");
  return forward.hidden_states();
}

int rows_per_block(const models::Model& model) {
  const std::size_t row_bytes =
      static_cast<std::size_t>(model.info().vocab_size) * sizeof(float);
  return static_cast<int>(
      std::max<std::size_t>(1, kLogitBlockBytes / row_bytes));
}

} // namespace optiq::eval
