#pragma once

#include <functional>
#include <span>
#include <vector>

#include <mlx/array.h>

#include "optiq/eval/dataset.h"
#include "optiq/models/setup.h"

namespace optiq::eval {

namespace mx = mlx::core;

/** Rows [first, first + count) of the data set, run in one forward. */
struct RowBatch {
  std::size_t first = 0;
  std::size_t count = 0;
  int tokens = 0;
};

/**
 * Whole rows packed into forwards of at most batch_tokens tokens and about
 * max_cache_bytes of K/V and state; a longer row has a forward of its own.
 */
std::vector<RowBatch> pack_rows(
    std::span<const TokenRow> rows,
    const models::Setup& setup,
    int batch_tokens,
    std::size_t max_cache_bytes);

/** Throws InvalidInput when there is no row, or a row is empty or longer than
 * the model's positions. */
void check_rows(std::span<const TokenRow> rows, const models::Model& model);

/** Final hidden states of every position of the rows, each a sequence of its
 * own: [sum of lengths, hidden_size]. */
mx::array run_rows(const models::Setup& setup, std::span<const TokenRow> rows);

/** Rows of logits that fit into a block of bounded memory, at least one. */
int rows_per_block(const models::Model& model);

} // namespace optiq::eval
