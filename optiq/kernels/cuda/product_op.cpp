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
// Rows of x that the product kernels take at once (product.cu).
constexpr int kFewRows = 8;
constexpr int kMoreRows = 16;
constexpr int kManyRows = 32;
constexpr int kManyTiles = 2; // of 16 outputs
constexpr unsigned kProductThreads = 256;
// Of those that go through several tiles, on a multiprocessor at once.
constexpr int kBlocksAtOnce = 2;
// What any card has of shared memory for a block of threads, less what the
// kernels declare.
constexpr std::size_t kMostOwnBytes = std::size_t{80} << 10;
constexpr int kPlainRows = 8;
constexpr int kPlainWarps = 4;

/** Whether products are exact, or fast: an activation rounded to one float16,
 * 2^-12 of it. */
bool is_exact(Compute compute) {
  if (compute == Compute::Int8) {
    fail(
        ErrorKind::Unsupported,
        "[cuda] compute: found int8, expected fast or exact: tensor cores "
        "multiply float16. Choose one of these, or the cpu device.");
  }
  return compute == Compute::Exact;
}

/** The two kinds of digits that products take (arguments.h). */
enum class Digits { OfDense, OfCodes };

int count_of(Digits kind, bool exact) {
  return (kind == Digits::OfDense ? 2 : 1) + (exact ? 1 : 0);
}

/** Rows as digits on the card. */
struct PreparedDigits {
  Buffer digits; // [n, T, padded]
  Buffer sums; // [T, padded / 32]
  Buffer scales; // [T]
};

/** The rows that projections read, in the forms that they ask for. */
struct PreparedRows {
  int rows = 0;
  PrepareRows args; // of plain rows
  std::optional<mx::array> plain; // [T, in]
  std::map<Digits, PreparedDigits> digits;
};

/** Few rows are cut into parts, a span for each warp. */
Grid grid_of_preparing(const PrepareRows& args, int rows) {
  constexpr int kWarps = kProductThreads / kLanes;
  constexpr int kFew = 64;
  const int spans = args.padded / kSpanColumns;
  const int parts = rows <= kFew ? (spans + kWarps - 1) / kWarps : 1;
  return {
      .x = static_cast<std::size_t>(rows),
      .y = static_cast<std::size_t>(parts),
      .threads = kProductThreads};
}

Digits kind_of(const MatrixData& data) {
  return data.layout == Layout::Dense ? Digits::OfDense : Digits::OfCodes;
}

PrepareRows with_digits(PrepareRows args, Digits kind, bool exact) {
  args.plain = nullptr;
  args.n_digits = count_of(kind, exact);
  args.is_half = kind == Digits::OfCodes ? 1 : 0;
  return args;
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
  const std::size_t values = static_cast<std::size_t>(rows) * args.padded;
  PreparedDigits made{
      .digits = card.memory().take(2 * args.n_digits * values),
      .sums = card.memory().take(4 * values / kChunkColumns),
      .scales = card.memory().take(4 * static_cast<std::size_t>(rows))};
  args.digits = pointer_of<std::uint16_t>(*made.digits);
  args.sums = pointer_of<float>(*made.sums);
  args.scales = pointer_of<float>(*made.scales);
  card.launch("prepare_rows", grid_of_preparing(args, rows), args);
  return made;
}

/** Bytes of a row's digits and their sums. */
std::size_t own_bytes(const PrepareRows& args) {
  return static_cast<std::size_t>(args.padded) * 2 * args.n_digits +
      sizeof(float) * args.padded / kChunkColumns;
}

/** Whether every block of a product can prepare its only row for itself. */
bool can_own(const PrepareRows& args, int rows, Digits kind, bool exact) {
  return rows == 1 &&
      own_bytes(with_digits(args, kind, exact)) <= kMostOwnBytes;
}

PreparedRows prepare(Card& card, const mx::array& x, const Product& product) {
  PreparedRows made{
      .rows = x.shape(0), .args = describe_rows(card, x, product.norm)};
  const bool wants_plain = std::any_of(
      product.projections.begin(),
      product.projections.end(),
      [&](const Projection& projection) {
        return !projection.updates.empty() ||
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

/** What a product adds to its results on its way out. */
struct Added {
  const float* bias = nullptr;
  const float* residual = nullptr;
};

/** Products on tensor cores: those of one width are one launch. */
class PackedProducts {
 public:
  PackedProducts(Card& card, PreparedRows& x, bool exact)
      : card_(card), x_(x), exact_(exact) {}

  void add(const MatrixData& data, const Added& added, const mx::array& y) {
    Width& width = add_part(data, added, new_floats_of(card_, y));
    if (width.launch.n_parts == kMostParts) {
      start(width);
    }
  }
  /** y = activation(gate) up, where can_gate. */
  void add_gated(
      const MatrixData& gate,
      const Added& of_gate,
      const MatrixData& up,
      const Added& of_up,
      Activation activation,
      const mx::array& y) {
    add_part(gate, of_gate, nullptr);
    Width& width = add_part(up, of_up, new_floats_of(card_, y));
    width.launch.is_gated = 1;
    width.launch.activation = elementwise_of(activation);
    start(width);
  }
  void start_all() {
    for (auto& [bits, width] : widths_) {
      start(width);
    }
  }

 private:
  /** A launch that is being put together. */
  struct Width {
    Multiply launch{};
    const MatrixData* last = nullptr;
    int out = 0; // of all parts
    std::uint64_t bytes = 0;
  };

  int row_tiles() const {
    return x_.rows <= kMoreRows ? 1 : kManyTiles;
  }
  Width& add_part(const MatrixData& data, const Added& added, float* y) {
    Width& width = widths_[data.bits];
    Multiply& launch = width.launch;
    launch.parts[launch.n_parts++] = {
        .weight = words_of(*data.weight),
        .params = data.params ? words_of(*data.params) : nullptr,
        .param_type = data.param_type,
        .group_shift = shift_of_group(data.group_size),
        .out = data.out,
        .first_block = launch.n_blocks,
        .bias = added.bias,
        .residual = added.residual,
        .y = y};
    launch.n_blocks += (tiles_of(data.out) + row_tiles() - 1) / row_tiles();
    width.last = &data;
    width.out += data.out;
    width.bytes += data.nbytes;
    return width;
  }

  /** Starts what there is of a width. */
  void start(Width& width) {
    Multiply& launch = width.launch;
    if (launch.n_parts == 0) {
      return;
    }
    const MatrixData& data = *width.last;
    Grid grid = grid_of(launch);
    grid.in = data.in;
    grid.out = width.out;
    grid.bits = data.bits;
    grid.bytes = width.bytes;
    launch.rows = x_.rows;
    launch.in = data.in;
    const char* form = x_.rows <= kFewRows ? "8"
        : x_.rows <= kMoreRows             ? "16"
                                           : "all";
    const Digits kind = kind_of(data);
    if (can_own(x_.args, x_.rows, kind, exact_)) {
      form = "own";
      launch.own = with_digits(x_.args, kind, exact_);
      grid.shared_bytes = own_bytes(launch.own);
    } else {
      const PreparedDigits& digits = digits_of(kind);
      launch.digits = halves_of(*digits.digits);
      launch.sums = pointer_of<const float>(*digits.sums);
      launch.scales = pointer_of<const float>(*digits.scales);
    }
    const std::string kernel = fmt::format(
        "multiply_{}bit_{}_{}", data.bits, exact_ ? "exact" : "fast", form);
    card_.launch(kernel.c_str(), grid, launch);
    width = {};
  }

  /** Few rows: blocks that go through tiles. Many: tiles of rows and outputs.
   */
  Grid grid_of(const Multiply& launch) const {
    const int tiles = launch.n_blocks / (launch.is_gated ? 2 : 1);
    if (x_.rows <= kMoreRows) {
      const int at_once = kBlocksAtOnce * card_.info().multiprocessors;
      return {
          .x = static_cast<std::size_t>(std::min(tiles, at_once)),
          .threads = kProductThreads};
    }
    return {
        .x = static_cast<std::size_t>(tiles),
        .y = static_cast<std::size_t>((x_.rows + kManyRows - 1) / kManyRows),
        .threads = kProductThreads};
  }
  const PreparedDigits& digits_of(Digits kind) {
    const auto found = x_.digits.find(kind);
    if (found != x_.digits.end()) {
      return found->second;
    }
    return x_.digits
        .emplace(kind, make_digits(card_, x_.args, x_.rows, kind, exact_))
        .first->second;
  }

  Card& card_;
  PreparedRows& x_;
  bool exact_;
  std::map<int, Width> widths_; // by bits
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

Added bias_of(const Card& card, const Projection& projection) {
  if (projection.bias == nullptr) {
    return {};
  }
  const int out = projection.weight->out_features();
  require_shape(kFunction, "bias", *projection.bias, {out});
  return {.bias = floats_of(kFunction, card, *projection.bias)};
}

/** Whether gate, up and activation are one launch. */
bool can_gate(const Card& card, const Product& product, int rows) {
  if (!product.activation || rows > kMoreRows) {
    return false;
  }
  const Projection& gate = product.projections[0];
  const Projection& up = product.projections[1];
  const MatrixData& of_gate = data_of(kFunction, card, *gate.weight);
  const MatrixData& of_up = data_of(kFunction, card, *up.weight);
  return gate.updates.empty() && up.updates.empty() &&
      of_gate.layout != Layout::Plain && of_up.layout == of_gate.layout &&
      of_up.bits == of_gate.bits && of_up.out == of_gate.out;
}

/** activation(gate) up. */
mx::array multiply_gated(
    Card& card,
    const Product& product,
    PreparedRows& x,
    bool exact) {
  const Projection& gate = product.projections[0];
  const Projection& up = product.projections[1];
  const MatrixData& of_up = data_of(kFunction, card, *up.weight);
  mx::array y = card.make_array({x.rows, of_up.out});
  PackedProducts(card, x, exact)
      .add_gated(
          data_of(kFunction, card, *gate.weight),
          bias_of(card, gate),
          of_up,
          bias_of(card, up),
          *product.activation,
          y);
  return y;
}

/** The projections before their updates. */
std::vector<mx::array>
multiply_all(Card& card, const Product& product, PreparedRows& x, bool exact) {
  PackedProducts packed(card, x, exact);
  std::vector<mx::array> results;
  for (const Projection& projection : product.projections) {
    const MatrixData& data = data_of(kFunction, card, *projection.weight);
    const mx::array& y =
        results.emplace_back(card.make_array({x.rows, data.out}));
    Added added = bias_of(card, projection);
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
  const bool exact = is_exact(product.compute);
  const int rows = x.ndim() == 2 ? x.shape(0) : 0;
  for (const Projection& projection : product.projections) {
    require_shape(kFunction, "x", x, {rows, projection.weight->in_features()});
  }
  if (product.projections.empty()) {
    return {};
  }
  PreparedRows prepared = prepare(card, x, product);
  if (can_gate(card, product, rows)) {
    return {multiply_gated(card, product, prepared, exact)};
  }
  std::vector<mx::array> results = multiply_all(card, product, prepared, exact);
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
