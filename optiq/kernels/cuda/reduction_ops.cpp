#include <algorithm>
#include <numbers>

#include "optiq/kernels/cuda/logit_arguments.h"
#include "optiq/kernels/cuda/operations.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/logit_checks.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cuda {
namespace {

constexpr unsigned kThreads = 1024;

/** The rows of logits [T, V], as kernels take them. */
Reduce
rows_of(const char* function, const Card& card, const mx::array& logits) {
  if (logits.ndim() != 2) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] logits: found {}, expected [T, V].",
        function,
        shape_text(logits));
  }
  return {
      .x = floats_of(function, card, logits),
      .n = logits.shape(1),
      .rows = logits.shape(0)};
}

Grid grid_of_rows(const Reduce& args) {
  return {.x = static_cast<std::size_t>(args.rows), .threads = kThreads};
}

/** Runs a kernel that writes one number a row, and waits for them. */
template <class T>
std::vector<T>
reduce(Card& card, const char* kernel, Reduce args, T* Reduce::*result) {
  std::vector<T> found(static_cast<std::size_t>(args.rows));
  const Buffer on_card = card.memory().take(found.size() * sizeof(T));
  args.*result = pointer_of<T>(*on_card);
  card.launch(kernel, grid_of_rows(args), args);
  card.copy_out(found.data(), *on_card, found.size() * sizeof(T));
  return found;
}

} // namespace

std::vector<double> log_sum_exp(Card& card, const mx::array& logits) {
  return reduce(
      card, "log_sum_exp", rows_of("log_sum_exp", card, logits), &Reduce::wide);
}

std::vector<std::int32_t> argmax(Card& card, const mx::array& logits) {
  const Reduce rows = rows_of("argmax", card, logits);
  // A few rows, as of answers, are shared out.
  constexpr int kFewRows = 8;
  constexpr std::size_t kParts = 16;
  const auto n = static_cast<std::size_t>(rows.rows);
  // Written where the host reads it: a copy would be waited for, too.
  const PinnedBuffer indices =
      card.memory().take_pinned(n * sizeof(std::int32_t));
  const DevicePointer counters = card.counters(3 * n);
  const Argmax args{
      .x = rows.x,
      .n = rows.n,
      .largest = pointer_of<unsigned long long>(counters),
      .arrived = pointer_of<unsigned>(counters + n * sizeof(std::uint64_t)),
      .indices = static_cast<int*>(indices.get())};
  card.launch(
      "argmax",
      {.x = n, .y = rows.rows <= kFewRows ? kParts : 1, .threads = kThreads},
      args);
  card.synchronize();
  const auto* first = static_cast<const std::int32_t*>(indices.get());
  return {first, first + n};
}

std::vector<float>
pick(Card& card, const mx::array& logits, std::span<const std::int32_t> ids) {
  Reduce args = rows_of("pick", card, logits);
  check_range("pick", "ids", 0, static_cast<int>(ids.size()), args.rows);
  check_range("pick", "logits", 0, args.rows, static_cast<int>(ids.size()));
  for (const std::int32_t id : ids) {
    check_range("pick", "id", id, 1, args.n);
  }
  Parcel parcel;
  parcel.add(ids);
  const Buffer sent = card.send(parcel);
  args.ids = pointer_of<const int>(*sent);
  return reduce(card, "pick", args, &Reduce::values);
}

std::vector<double>
kl_divergence(Card& card, const mx::array& reference, const mx::array& logits) {
  constexpr const char* kName = "kl_divergence";
  Reduce args = rows_of(kName, card, logits);
  require_shape(kName, "reference", reference, logits.shape());
  args.reference = floats_of(kName, card, reference);
  return reduce(card, kName, args, &Reduce::wide);
}

std::vector<BlockSums>
block_sums(Card& card, const mx::array& logits, std::span<const float> scales) {
  constexpr const char* kName = "block_sums";
  const Reduce rows = rows_of(kName, card, logits);
  require_scales(kName, logits, scales);
  const std::size_t blocks =
      count_logit_blocks(static_cast<std::size_t>(rows.n));
  std::vector<float> factors(scales.size());
  std::ranges::transform(scales, factors.begin(), binary_scale);
  Parcel parcel;
  parcel.add(std::span<const float>(factors));
  const Buffer sent = card.send(parcel);
  // Written where the host reads them, as of argmax.
  const std::size_t n = scales.size() * blocks;
  const PinnedBuffer results =
      card.memory().take_pinned(n * (2 * sizeof(double) + sizeof(float)));
  auto* const masses = static_cast<double*>(results.get());
  auto* const depths = masses + n;
  auto* const maxima = reinterpret_cast<float*>(depths + n);
  constexpr std::size_t kWarps = 8;
  card.launch(
      "sum_blocks",
      {.x = (blocks + kWarps - 1) / kWarps,
       .y = scales.size(),
       .threads = 32 * kWarps},
      SumBlocks{
          .x = rows.x,
          .n = rows.n,
          .blocks = static_cast<int>(blocks),
          .factors = pointer_of<const float>(*sent),
          .maxima = maxima,
          .masses = masses,
          .depths = depths});
  card.synchronize();
  std::vector<BlockSums> sums;
  for (std::size_t at = 0; at < n; at += blocks) {
    BlockSums& row = sums.emplace_back();
    row.maxima.assign(maxima + at, maxima + at + blocks);
    row.masses.assign(masses + at, masses + at + blocks);
    for (const double depth : std::span(depths + at, blocks)) {
      row.depths.push_back(std::numbers::ln2 * depth);
    }
  }
  return sums;
}

HostRows take_blocks(
    Card& card,
    const mx::array& logits,
    std::span<const LogitBlockId> blocks) {
  constexpr const char* kName = "take_blocks";
  const Reduce rows = rows_of(kName, card, logits);
  require_blocks(kName, logits, blocks);
  static_assert(sizeof(LogitBlockId) == 2 * sizeof(int));
  Parcel parcel;
  parcel.add(blocks);
  const Buffer sent = card.send(parcel);
  const std::size_t n = blocks.size() * kLogitBlock;
  const PinnedBuffer taken = card.memory().take_pinned(n * sizeof(float));
  auto* const values = static_cast<float*>(taken.get());
  card.launch(
      kName,
      {.x = blocks.size(), .threads = kLogitBlock},
      TakeBlocks{
          .x = rows.x,
          .n = rows.n,
          .ids = pointer_of<const int>(*sent),
          .taken = values});
  card.synchronize();
  return {{values, n}, static_cast<int>(kLogitBlock), taken};
}

} // namespace optiq::kernels::cuda
