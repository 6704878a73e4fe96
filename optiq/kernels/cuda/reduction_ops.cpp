#include "optiq/kernels/cuda/arguments.h"
#include "optiq/kernels/cuda/operations.h"
#include "optiq/kernels/cuda/pointers_impl.h"
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

} // namespace optiq::kernels::cuda
