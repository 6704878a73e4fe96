#include "optiq/kernels/cuda/low_rank_op.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "optiq/kernels/cuda/arguments.h"
#include "optiq/kernels/cuda/matrix.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cuda {
namespace {

constexpr const char* kFunction = "multiply";

/** An update, and the result that it changes. Batches have thousands a step, so
 * whatever they share is looked up once. */
struct Target {
  const LowRankUpdate* update;
  float* y;
  int out;
};

int rank_of(const LowRankUpdate& update) {
  return update.a.ndim() == 0 ? 0 : update.a.shape(0);
}

std::size_t inner_floats_of(const LowRankUpdate& update) {
  return static_cast<std::size_t>(update.rows) *
      static_cast<std::size_t>(rank_of(update));
}

void check(const mx::array& x, const LowRankUpdate& update, int out) {
  const int rank = rank_of(update);
  check_range(kFunction, "update", update.first_row, update.rows, x.shape(0));
  require_shape(kFunction, "update.a", update.a, {rank, x.shape(1)});
  require_shape(kFunction, "update.b", update.b, {rank, out});
}

bool share_rows(const LowRankUpdate& a, const LowRankUpdate& b) {
  return a.first_row < b.first_row + b.rows &&
      b.first_row < a.first_row + a.rows;
}

/** What may be added at once: no two of a wave change the same rows of a
 * result. Those of one result keep their order. */
std::vector<std::vector<Target>> waves_of(
    const Card& card,
    const Product& product,
    const mx::array& x,
    std::span<const mx::array> results) {
  std::vector<std::vector<Target>> waves;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto& updates = product.projections[i].updates;
    if (updates.empty()) {
      continue;
    }
    float* const y = new_floats_of(card, results[i]);
    const int out = results[i].shape(1);
    std::vector<std::size_t> chosen; // waves
    for (const LowRankUpdate& update : updates) {
      check(x, update, out);
      std::size_t wave = 0;
      for (std::size_t k = 0; k < chosen.size(); ++k) {
        if (share_rows(updates[k], update)) {
          wave = std::max(wave, chosen[k] + 1);
        }
      }
      chosen.push_back(wave);
      waves.resize(std::max(waves.size(), wave + 1));
      waves[wave].push_back({&update, y, out});
    }
  }
  return waves;
}

/** As many as a launch takes. */
void add_at_once(
    Card& card,
    const mx::array& x,
    const Norm* norm,
    std::span<const Target> targets) {
  const int in = x.shape(1);
  std::size_t inner_floats = 0;
  for (const Target& target : targets) {
    inner_floats += inner_floats_of(*target.update);
  }
  const Buffer inner = card.memory().take(sizeof(float) * inner_floats);
  const float* const rows = floats_of(kFunction, card, x);
  LowRank args{
      .parts = {},
      .in = in,
      .gains =
          norm != nullptr ? floats_of(kFunction, card, norm->weight) : nullptr,
      .eps = norm != nullptr ? norm->eps : 0.f};
  std::size_t n = 0;
  std::size_t at = 0;
  int most_rows = 0;
  int most_ranks = 0;
  int most_outputs = 0;
  for (const Target& target : targets) {
    const LowRankUpdate& update = *target.update;
    const std::ptrdiff_t first = update.first_row;
    const int rank = rank_of(update);
    args.parts[n++] = {
        .x = rows + first * in,
        .a = pointer_of<const void>(card.address(kFunction, update.a)),
        .b = pointer_of<const void>(card.address(kFunction, update.b)),
        .inner = pointer_of<float>(*inner + sizeof(float) * at),
        .y = target.y + first * target.out,
        .a_type = number_of(kFunction, "update.a", update.a.dtype()),
        .b_type = number_of(kFunction, "update.b", update.b.dtype()),
        .rows = update.rows,
        .rank = rank,
        .out = target.out,
        .scale = update.scale};
    at += inner_floats_of(update);
    most_rows = std::max(most_rows, update.rows);
    most_ranks = std::max(most_ranks, rank);
    most_outputs = std::max(most_outputs, target.out);
  }
  Grid grid{
      .x = static_cast<std::size_t>(most_rows),
      .y = static_cast<std::size_t>(most_ranks),
      .z = n,
      .threads = kLowRankThreads};
  card.launch("low_rank_inner", grid, args);
  constexpr std::size_t kOutputs = std::size_t{2} * kLowRankThreads;
  grid.x = (static_cast<std::size_t>(most_outputs) + kOutputs - 1) / kOutputs;
  grid.y = static_cast<std::size_t>(most_rows);
  card.launch("low_rank_add", grid, args);
}

} // namespace

void add_updates(
    Card& card,
    const Product& product,
    const mx::array& x,
    const Norm* norm,
    std::span<const mx::array> results) {
  for (const std::vector<Target>& wave : waves_of(card, product, x, results)) {
    for (std::span<const Target> left = wave; !left.empty();) {
      const std::size_t n =
          std::min<std::size_t>(left.size(), kMostLowRankParts);
      add_at_once(card, x, norm, left.first(n));
      left = left.subspan(n);
    }
  }
}

} // namespace optiq::kernels::cuda
