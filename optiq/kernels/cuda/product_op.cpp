#include <algorithm>
#include <map>
#include <optional>

#include "optiq/base/error.h"
#include "optiq/kernels/cuda/matrix.h"
#include "optiq/kernels/cuda/operations.h"
#include "optiq/kernels/cuda/packed_layout.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/product_checks.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cuda {
namespace {

constexpr const char* kFunction = "multiply";
// Rows of x that a tile of the product kernels has (product.cu).
constexpr int kFewRows = 8;
constexpr int kManyRows = 32;
constexpr int kManyTiles = 2; // of 16 outputs
constexpr unsigned kProductThreads = 256;
constexpr int kPlainRows = 8;
constexpr int kPlainWarps = 4;

/** Bfloat16 digits of an activation. One would err by 2^-9: a mean KL of 2e-4
 * on tiny-qwen3.5. */
constexpr int kFast = 2; // 2^-17
constexpr int kExact = 3; // all of float32

int digits_of(Compute compute) {
  if (compute == Compute::Int8) {
    fail(
        ErrorKind::Unsupported,
        "[cuda] compute: found int8, expected fast or exact: tensor cores "
        "multiply bfloat16. Choose one of these, or the cpu device.");
  }
  return compute == Compute::Exact ? kExact : kFast;
}

/** Names of kernels by width, digits and number of rows. */
const char* kernel_of(int bits, int n_digits, int rows) {
  struct Row {
    int bits;
    const char* names[2][2]; // fast or exact, then many or few rows
  };
  static constexpr Row kRows[] = {
      {2,
       {{"multiply_2bit_fast_many", "multiply_2bit_fast_few"},
        {"multiply_2bit_exact_many", "multiply_2bit_exact_few"}}},
      {3,
       {{"multiply_3bit_fast_many", "multiply_3bit_fast_few"},
        {"multiply_3bit_exact_many", "multiply_3bit_exact_few"}}},
      {4,
       {{"multiply_4bit_fast_many", "multiply_4bit_fast_few"},
        {"multiply_4bit_exact_many", "multiply_4bit_exact_few"}}},
      {5,
       {{"multiply_5bit_fast_many", "multiply_5bit_fast_few"},
        {"multiply_5bit_exact_many", "multiply_5bit_exact_few"}}},
      {6,
       {{"multiply_6bit_fast_many", "multiply_6bit_fast_few"},
        {"multiply_6bit_exact_many", "multiply_6bit_exact_few"}}},
      {8,
       {{"multiply_8bit_fast_many", "multiply_8bit_fast_few"},
        {"multiply_8bit_exact_many", "multiply_8bit_exact_few"}}},
      {16,
       {{"multiply_16bit_fast_many", "multiply_16bit_fast_few"},
        {"multiply_16bit_exact_many", "multiply_16bit_exact_few"}}}};
  const Row* row = std::find_if(
      std::begin(kRows), std::end(kRows), [&](const Row& candidate) {
        return candidate.bits == bits;
      });
  return row->names[n_digits - kFast][rows <= kFewRows ? 1 : 0];
}

/** The rows that projections read, in the forms that they ask for. */
struct PreparedRows {
  int rows = 0;
  std::optional<mx::array> plain; // [T, in]
  Buffer digits; // bf16 [n, T, padded]
  Buffer sums; // [T, padded / 32]
};

/** Few rows are cut into parts of as many columns as a block has threads. */
Grid grid_of_preparing(const PrepareRows& args, int rows) {
  constexpr unsigned kThreads = 256;
  constexpr int kFew = 64;
  const int parts = rows <= kFew ? (args.padded + kThreads - 1) / kThreads : 1;
  return {
      .x = static_cast<std::size_t>(rows),
      .y = static_cast<std::size_t>(parts),
      .threads = kThreads};
}

PreparedRows
prepare(Card& card, const mx::array& x, const Product& product, int n_digits) {
  PreparedRows made{.rows = x.shape(0)};
  const int width = x.shape(1);
  bool wants_plain = false;
  bool wants_digits = false;
  for (const Projection& projection : product.projections) {
    const MatrixData& data = data_of(kFunction, card, *projection.weight);
    wants_digits |= data.layout != Layout::Plain;
    wants_plain |= data.layout == Layout::Plain || !projection.updates.empty();
  }
  if (wants_plain) {
    made.plain = product.norm != nullptr ? card.make_array(x.shape()) : x;
  }
  PrepareRows args{
      .x = floats_of(kFunction, card, x),
      .width = width,
      .padded = padded_columns(width)};
  if (product.norm != nullptr) {
    const Norm& norm = *product.norm;
    require_shape(kFunction, "norm", norm.weight, {width});
    args.weight = floats_of(kFunction, card, norm.weight);
    args.bias = norm.bias ? floats_of(kFunction, card, *norm.bias) : nullptr;
    args.eps = norm.eps;
    args.is_layer_norm = norm.is_layer_norm ? 1 : 0;
    args.plain = made.plain ? new_floats_of(card, *made.plain) : nullptr;
  }
  if (wants_digits) {
    const std::size_t values =
        static_cast<std::size_t>(made.rows) * args.padded;
    made.digits = card.memory().take(2 * n_digits * values);
    made.sums = card.memory().take(4 * values / kChunkColumns);
    args.n_digits = n_digits;
    args.digits = pointer_of<std::uint16_t>(*made.digits);
    args.sums = pointer_of<float>(*made.sums);
  }
  if (wants_digits || args.plain != nullptr) {
    card.launch("prepare_rows", grid_of_preparing(args, made.rows), args);
  }
  return made;
}

/** What a product adds to its results on its way out. */
struct Added {
  const float* bias = nullptr;
  const float* residual = nullptr;
};

/** Products on tensor cores: those of one width are one launch. */
class PackedProducts {
 public:
  PackedProducts(Card& card, const PreparedRows& x, int in, int n_digits)
      : card_(card), x_(x), in_(in), n_digits_(n_digits) {}

  void add(const MatrixData& data, const Added& added, const mx::array& y) {
    const int row_tiles = x_.rows <= kFewRows ? 1 : kManyTiles;
    Multiply& launch = by_bits_[data.bits];
    launch.parts[launch.n_parts++] = {
        .weight = words_of(*data.weight),
        .params = data.params ? words_of(*data.params) : nullptr,
        .param_type = data.param_type,
        .chunks_per_group = std::max(1, data.group_size / kChunkColumns),
        .out = data.out,
        .first_block = launch.n_blocks,
        .bias = added.bias,
        .residual = added.residual,
        .y = new_floats_of(card_, y)};
    launch.n_blocks += (tiles_of(data.out) + row_tiles - 1) / row_tiles;
    if (launch.n_parts == kMostParts) {
      start(data.bits);
    }
  }
  void start_all() {
    for (const auto& [bits, launch] : by_bits_) {
      start(bits);
    }
  }

 private:
  void start(int bits) {
    Multiply& launch = by_bits_[bits];
    launch.digits = halves_of(*x_.digits);
    launch.sums = pointer_of<const float>(*x_.sums);
    launch.rows = x_.rows;
    launch.in = in_;
    const int rows = x_.rows <= kFewRows ? kFewRows : kManyRows;
    const Grid grid{
        .x = static_cast<std::size_t>(launch.n_blocks),
        .y = static_cast<std::size_t>((x_.rows + rows - 1) / rows),
        .threads = kProductThreads};
    card_.launch(kernel_of(bits, n_digits_, x_.rows), grid, launch);
    launch = {};
  }

  Card& card_;
  const PreparedRows& x_;
  int in_;
  int n_digits_;
  std::map<int, Multiply> by_bits_; // not started
};

void multiply_plain(
    Card& card,
    const MatrixData& data,
    const PreparedRows& x,
    const Added& added,
    const mx::array& y) {
  const MultiplyPlain args{
      .weight = data.plain(),
      .x = floats_of(kFunction, card, *x.plain),
      .rows = x.rows,
      .bias = added.bias,
      .residual = added.residual,
      .y = new_floats_of(card, y)};
  const Grid grid{
      .x = static_cast<std::size_t>((data.out + kPlainWarps - 1) / kPlainWarps),
      .y = static_cast<std::size_t>((x.rows + kPlainRows - 1) / kPlainRows),
      .threads = 32 * kPlainWarps};
  card.launch("multiply_plain", grid, args);
}

/** y += scale (x A^T) B on the update's rows. */
void add_update(
    Card& card,
    const mx::array& x,
    const LowRankUpdate& update,
    const mx::array& y) {
  const int in = x.shape(1);
  const int out = y.shape(1);
  const int rank = update.a.ndim() == 0 ? 0 : update.a.shape(0);
  check_range(kFunction, "update", update.first_row, update.rows, x.shape(0));
  require_shape(kFunction, "update.a", update.a, {rank, in});
  require_shape(kFunction, "update.b", update.b, {rank, out});
  const auto rows = static_cast<std::size_t>(update.rows);
  const std::ptrdiff_t first = update.first_row;
  const Buffer inner = card.memory().take(4 * rows * rank);
  const LowRankInner inner_args{
      .x = floats_of(kFunction, card, x) + first * in,
      .a = pointer_of<const void>(card.address(kFunction, update.a)),
      .type = number_of(kFunction, "update.a", update.a.dtype()),
      .in = in,
      .inner = pointer_of<float>(*inner)};
  card.launch(
      "low_rank_inner",
      {.x = rows, .y = static_cast<std::size_t>(rank)},
      inner_args);
  const LowRankAdd add_args{
      .inner = pointer_of<const float>(*inner),
      .b = pointer_of<const void>(card.address(kFunction, update.b)),
      .type = number_of(kFunction, "update.b", update.b.dtype()),
      .rank = rank,
      .out = out,
      .scale = update.scale,
      .y = new_floats_of(card, y) + first * out};
  Grid grid = grid_of(out);
  grid.y = rows;
  card.launch("low_rank_add", grid, add_args);
}

/** The projections before their updates. */
std::vector<mx::array> multiply_all(
    Card& card,
    const Product& product,
    const PreparedRows& x,
    int n_digits) {
  const int in = product.projections.front().weight->in_features();
  PackedProducts packed(card, x, in, n_digits);
  std::vector<mx::array> results;
  for (const Projection& projection : product.projections) {
    const MatrixData& data = data_of(kFunction, card, *projection.weight);
    const mx::array& y =
        results.emplace_back(card.make_array({x.rows, data.out}));
    Added added;
    if (projection.bias != nullptr) {
      require_shape(kFunction, "bias", *projection.bias, {data.out});
      added.bias = floats_of(kFunction, card, *projection.bias);
    }
    if (product.residual != nullptr) {
      require_shape(kFunction, "residual", *product.residual, y.shape());
      added.residual = projection.updates.empty()
          ? floats_of(kFunction, card, *product.residual)
          : nullptr; // behind the updates
    }
    if (data.layout == Layout::Plain) {
      multiply_plain(card, data, x, added, y);
    } else {
      packed.add(data, added, y);
    }
  }
  packed.start_all();
  return results;
}

} // namespace

std::vector<mx::array>
multiply(Card& card, const mx::array& x, const Product& product) {
  check_product(kFunction, product);
  const int n_digits = digits_of(product.compute);
  const int rows = x.ndim() == 2 ? x.shape(0) : 0;
  for (const Projection& projection : product.projections) {
    require_shape(kFunction, "x", x, {rows, projection.weight->in_features()});
  }
  if (product.projections.empty()) {
    return {};
  }
  const PreparedRows prepared = prepare(card, x, product, n_digits);
  std::vector<mx::array> results =
      multiply_all(card, product, prepared, n_digits);
  for (std::size_t i = 0; i < results.size(); ++i) {
    const Projection& projection = product.projections[i];
    for (const LowRankUpdate& update : projection.updates) {
      add_update(card, *prepared.plain, update, results[i]);
    }
    if (product.residual != nullptr && !projection.updates.empty()) {
      results[i] = add(card, *product.residual, results[i]);
    }
  }
  if (product.activation) {
    return {glu(card, results[0], results[1], *product.activation)};
  }
  return results;
}

mx::array embed(
    Card& card,
    std::span<const std::int32_t> ids,
    const Matrix& weight,
    float scale) {
  constexpr const char* kName = "embed";
  const MatrixData& data = data_of(kName, card, weight);
  for (const std::int32_t id : ids) {
    check_range(kName, "id", id, 1, data.out);
  }
  const mx::array y = card.make_array({static_cast<int>(ids.size()), data.in});
  Parcel parcel;
  parcel.add(ids);
  const Buffer sent = card.send(parcel);
  const Grid grid{.x = ids.size(), .threads = 256};
  const int* on_card = pointer_of<const int>(*sent);
  if (data.layout == Layout::Packed) {
    const EmbedPacked args{
        .ids = on_card,
        .codes = words_of(*data.weight),
        .params = words_of(*data.params),
        .param_type = data.param_type,
        .bits = data.bits,
        .group = data.group_size,
        .in = data.in,
        .scale = scale,
        .y = new_floats_of(card, y)};
    card.launch("embed_packed", grid, args);
  } else {
    const EmbedPlain args{
        .ids = on_card,
        .weight = data.plain(),
        .scale = scale,
        .y = new_floats_of(card, y)};
    card.launch("embed_plain", grid, args);
  }
  return y;
}

} // namespace optiq::kernels::cuda
