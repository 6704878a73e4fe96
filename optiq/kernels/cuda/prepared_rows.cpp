#include "optiq/kernels/cuda/prepared_rows.h"

#include <algorithm>

#include "optiq/kernels/cuda/matrix.h"
#include "optiq/kernels/cuda/packed_layout.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/cuda/wide_layout.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cuda {
namespace {

constexpr const char* kFunction = kMultiply;

/** Few rows are cut into parts, a span for each warp. */
Grid grid_of_preparing(const PrepareRows& args, int rows) {
  constexpr unsigned kThreads = 512;
  constexpr int kWarps = kThreads / kLanes;
  constexpr int kFew = 64;
  const int spans = args.padded / kSpanColumns;
  const int parts = rows <= kFew ? (spans + kWarps - 1) / kWarps : 1;
  return {
      .x = static_cast<std::size_t>(rows),
      .y = static_cast<std::size_t>(parts),
      .threads = kThreads};
}

/** What rows become, but for digits. */
PrepareRows
describe_rows(const Card& card, const mx::array& x, const Norm* norm) {
  const int width = x.shape(1);
  PrepareRows args{
      .x = floats_of(kFunction, card, x),
      .width = width,
      .padded = padded_columns(width)};
  if (norm != nullptr) {
    require_shape(kFunction, "norm", norm->weight, {width});
    args.weight = floats_of(kFunction, card, norm->weight);
    if (norm->bias) {
      require_shape(kFunction, "norm.bias", *norm->bias, {width});
      args.bias = floats_of(kFunction, card, *norm->bias);
    }
    args.eps = norm->eps;
    args.is_layer_norm = norm->is_layer_norm ? 1 : 0;
  }
  return args;
}

PreparedDigits
make_digits(Card& card, PrepareRows args, int rows, Digits kind, bool exact) {
  args = with_digits(args, kind, exact);
  const int places = args.is_tiled != 0
      ? (rows + kWideRows - 1) / kWideRows * kWideRows
      : rows;
  const std::size_t values = static_cast<std::size_t>(places) * args.padded;
  PreparedDigits made{
      .digits =
          card.memory().take(sizeof(std::uint16_t) * args.n_digits * values),
      .sums = card.memory().take(4 * values / kChunkColumns),
      .scales = card.memory().take(
          (args.is_tiled != 0 ? sizeof(float) : sizeof(RowScales)) * rows)};
  args.digits = pointer_of<std::uint16_t>(*made.digits);
  args.sums = pointer_of<float>(*made.sums);
  if (args.is_tiled != 0) {
    args.scales = pointer_of<float>(*made.scales);
  } else {
    args.row_scales = pointer_of<RowScales>(*made.scales);
  }
  card.launch("prepare_rows", grid_of_preparing(args, rows), args);
  return made;
}

} // namespace

PreparedRows prepare(Card& card, const mx::array& x, const Product& product) {
  PreparedRows made{
      .rows = x.shape(0), .args = describe_rows(card, x, product.norm)};
  const bool is_simple = product.norm == nullptr || is_usual(made.args);
  const bool wants_plain = std::any_of(
      product.projections.begin(),
      product.projections.end(),
      [&](const Projection& projection) {
        return (!projection.updates.empty() && !is_simple) ||
            data_of(kFunction, card, *projection.weight).layout ==
            Layout::Plain;
      });
  if (!wants_plain) {
    return made;
  }
  made.plain = product.norm != nullptr ? card.make_array(x.shape()) : x;
  if (product.norm != nullptr) {
    PrepareRows args = made.args;
    args.plain = new_floats_of(card, *made.plain);
    card.launch("prepare_rows", grid_of_preparing(args, made.rows), args);
  }
  return made;
}

const PreparedDigits&
digits_of(Card& card, PreparedRows& rows, Digits kind, bool exact) {
  const auto found = rows.digits.find(kind);
  if (found != rows.digits.end()) {
    return found->second;
  }
  return rows.digits
      .emplace(kind, make_digits(card, rows.args, rows.rows, kind, exact))
      .first->second;
}

PrepareRows with_digits(PrepareRows args, Digits kind, bool exact) {
  args.plain = nullptr;
  args.n_digits = exact ? 2 : 1;
  args.is_tiled = kind == Digits::Wide ? 1 : 0;
  return args;
}

bool is_usual(const PrepareRows& args) {
  return args.width % 4 == 0 && args.is_layer_norm == 0 && args.bias == nullptr;
}

std::size_t own_bytes(const PrepareRows& args) {
  return static_cast<std::size_t>(args.padded) * 2 * args.n_digits +
      sizeof(float) * args.padded / kChunkColumns;
}

std::size_t shared_bytes(const PrepareRows& args, int rows) {
  const std::size_t digits =
      2 * static_cast<std::size_t>(args.n_digits) * (args.padded + kFewPadding);
  const std::size_t sums =
      sizeof(float) * (args.padded / kChunkColumns + kFewSumsPadding);
  return rows * (digits + sums);
}

} // namespace optiq::kernels::cuda
