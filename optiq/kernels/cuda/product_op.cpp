#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/kernels/cuda/low_rank_op.h"
#include "optiq/kernels/cuda/matrix.h"
#include "optiq/kernels/cuda/operations.h"
#include "optiq/kernels/cuda/packed_layout.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/cuda/prepared_rows.h"
#include "optiq/kernels/cuda/wide_layout.h"
#include "optiq/kernels/product_checks.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cuda {
namespace {

constexpr const char* kFunction = kMultiply;
// Rows of x that the product kernels take at once, and tiles of 16 outputs.
constexpr int kFewRows = 8;
constexpr int kMoreRows = 16;
constexpr int kFewTiles = 2;
constexpr int kManyRows = 32;
constexpr int kManyTiles = 2;
constexpr unsigned kManyThreads = 256;
// What kernels declare of shared memory beside what they ask for.
constexpr std::size_t kFewDeclared = std::size_t{21} << 10;
// So that the next launch's blocks, which start as these end, do not come to
// lie two on one multiprocessor and none on another.
constexpr std::size_t kMoreThanHalf = std::size_t{114} << 10;
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

/** A kernel for products on tensor cores, and how it is launched. */
struct Form {
  const char* name = nullptr;
  int rows = 0; // of x that a block has; 0: all
  int tiles = 0; // of weights
  unsigned threads = 0;
  std::size_t shared_bytes = 0;
  Digits digits = Digits::ByRow;
  bool prepares = false; // its only row
  bool shares_rows = false; // copies them into shared memory
  bool gates = false; // takes a gate, up and an activation
  /** A task's size waits for all parts (sized_form); blocks go through tasks.
   */
  bool is_batch = false;
  bool is_wide = false; // the same of many rows
  bool is_few = false; // product_few.cu
};

/** The kernels for few rows. Null names: too large for this card. */
Form few_form(
    const Card& card,
    const MatrixData& data,
    const PreparedRows& x,
    bool exact) {
  const CardInfo& info = card.info();
  const PrepareRows args = with_digits(x.args, Digits::ByRow, exact);
  const std::size_t room = info.shared_bytes - kFewDeclared;
  const int most_rows = x.rows <= kFewRows ? kFewRows : kMoreRows;
  const std::size_t ring = std::size_t{kFewThreads / kLanes} *
      few_stages(data.bits, most_rows, has_large_shared(info.major)) *
      stage_bytes(data.bits, shift_of_group(data.group_size));
  Form form{
      .name = x.rows <= kFewRows ? "8" : "16",
      .tiles = kFewTiles,
      .threads = kFewThreads,
      .shared_bytes = ring,
      .gates = true,
      .is_few = true};
  if (info.shared_bytes < kFewDeclared || ring > room) {
    return {};
  }
  if (x.rows == 1 && is_usual(args) && ring + own_bytes(args) <= room) {
    form.name = "own";
    form.prepares = true;
    form.threads = static_cast<unsigned>(own_threads(data.bits, info.major));
    form.shared_bytes += own_bytes(args);
  } else if (ring + shared_bytes(args, x.rows) <= room) {
    form.shares_rows = true;
    form.shared_bytes += shared_bytes(args, x.rows);
  }
  if (has_large_shared(info.major)) {
    form.shared_bytes = std::max(form.shared_bytes, kMoreThanHalf);
  }
  return form;
}

/** Whether product_batch.cu has a kernel. */
bool can_batch(const Card& card, const MatrixData& data, int rows) {
  return rows > kFewRows && rows <= kMostEqualRows &&
      has_large_shared(card.info().major) && data.layout == Layout::Packed &&
      shift_of_group(data.group_size) > 0 &&
      data.param_type == Number::BFloat16;
}

Form choose_form(
    const Card& card,
    const MatrixData& data,
    const PreparedRows& x,
    bool exact) {
  const bool is_dense = data.layout == Layout::Dense;
  if (!exact && can_batch(card, data, x.rows)) {
    return {.gates = true, .is_batch = true};
  }
  if (x.rows <= kMoreRows) {
    const Form form = few_form(card, data, x, exact);
    if (form.name != nullptr) {
      return form;
    }
  }
  if (x.rows > kMostEqualRows && has_wide_products(card.info()) &&
      (is_dense || shift_of_group(data.group_size) > 0)) {
    if (is_dense || !exact) {
      return {
          .rows = kWideRows,
          .digits = Digits::Wide,
          .gates = !is_dense,
          .is_wide = true};
    }
    return {
        .name = "wide",
        .rows = kWideRows,
        .tiles = kWideTiles,
        .threads = kWideThreads,
        .shared_bytes = wide_bytes(data.bits),
        .digits = Digits::Wide};
  }
  return {
      .name = "all",
      .rows = kManyRows,
      .tiles = kManyTiles,
      .threads = kManyThreads};
}

/** Tiles of a part that a block has: gated, half of them are the other's. */
int part_tiles(const Multiply& launch, const Form& form) {
  return launch.is_gated != 0 ? form.tiles / 2 : form.tiles;
}

/** Numbers the blocks of all parts. */
void number_blocks(const Form& form, Multiply& launch) {
  const int tiles = part_tiles(launch, form);
  launch.n_blocks = 0;
  const int n = launch.is_gated != 0 ? 1 : launch.n_parts;
  for (int i = 0; i < n; ++i) {
    MultiplyPart& part = launch.parts[i];
    part.first_block = launch.n_blocks;
    launch.n_blocks += (tiles_of(part.out) + tiles - 1) / tiles;
  }
}

/** A task's size, and what it takes beside other sizes. */
struct TaskSize {
  Form form;
  int time = 0;
};

/** Of the kernels for many rows: a task takes a quarter of 64 outputs' time
 * beside its products. Exact, only dense weights are asked for. */
std::vector<TaskSize> wide_sizes(int bits, bool exact) {
  constexpr int kTilesOfWidth = 4;
  constexpr int kDenseBits = 16;
  std::vector<TaskSize> sizes;
  for (int width = 2; width <= (exact ? 2 : 4); width += 2) {
    sizes.push_back(
        {{.name = width == 2 ? "wide2" : "wide4",
          .rows = kWideRows,
          .tiles = kTilesOfWidth * width,
          .threads = kWideTaskThreads,
          .shared_bytes = bits == kDenseBits ? wide_dense_bytes(exact)
                                             : wide_fast_bytes(bits, width),
          .digits = Digits::Wide,
          .is_wide = true},
         4 * width + 1});
  }
  return sizes;
}

/** Of the kernels for a batch: 32 rows take as long as one and a half tiles, 16
 * as one. */
std::vector<TaskSize> batch_sizes(int bits, int rows) {
  constexpr const char* kNames[2][2] = {
      {"batch16_2", "batch16_4"}, {"batch32_2", "batch32_4"}};
  const bool is_half = rows <= kMoreRows;
  const int each = is_half ? 16 : 32;
  std::vector<TaskSize> sizes;
  for (int tiles = 2; tiles <= batch_most_tiles(bits); tiles += 2) {
    sizes.push_back(
        {{.name = kNames[is_half ? 0 : 1][tiles == 2 ? 0 : 1],
          .rows = each,
          .tiles = tiles,
          .threads = kManyThreads,
          .shared_bytes = batch_bytes(bits, tiles, each),
          .is_batch = true},
         2 * tiles + (is_half ? 2 : 3)});
  }
  return sizes;
}

/** The size whose tasks leave the fewest multiprocessors without work. It has
 * no say in a row's bits. The first task takes longer by what waits for its
 * operands. */
Form sized_form(
    const Card& card,
    const std::vector<TaskSize>& sizes,
    int rows,
    Multiply& launch) {
  const int at_once = card.info().multiprocessors;
  Form best;
  int least = 0;
  for (const TaskSize& size : sizes) {
    const Form& form = size.form;
    number_blocks(form, launch);
    const int tasks = launch.n_blocks * ((rows + form.rows - 1) / form.rows);
    const int turns = (tasks + at_once - 1) / at_once;
    const int time = turns * size.time + size.time / 4;
    if (best.name == nullptr || time < least) {
      best = form;
      least = time;
    }
  }
  return best;
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
    for (auto& [kind, width] : widths_) {
      start(width);
    }
  }

 private:
  /** What can be one launch: bits, shift of groups, type of params. */
  using Kind = std::tuple<int, int, Number>;

  /** A launch that is being put together. */
  struct Width {
    Form form{};
    Multiply launch{};
    const MatrixData* last = nullptr;
    int out = 0; // of all parts
    std::uint64_t bytes = 0;
  };

  Width& add_part(const MatrixData& data, const Added& added, float* y) {
    const int shift = shift_of_group(data.group_size);
    Width& width = widths_[Kind(data.bits, shift, data.param_type)];
    width.form = choose_form(card_, data, x_, exact_);
    Multiply& launch = width.launch;
    launch.parts[launch.n_parts++] = {
        .weight = words_of(*data.weight),
        .params = data.params ? words_of(*data.params) : nullptr,
        .param_type = data.param_type,
        .factor = data.factor,
        .unit = data.unit,
        .group_shift = shift,
        .out = data.out,
        .bias = added.bias,
        .residual = added.residual,
        .y = y};
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
    if (width.form.is_wide || width.form.is_batch) {
      const auto sizes = width.form.is_batch ? batch_sizes(data.bits, x_.rows)
                                             : wide_sizes(data.bits, exact_);
      width.form = sized_form(card_, sizes, x_.rows, launch);
    }
    number_blocks(width.form, launch);
    if (width.form.is_few && launch.is_gated == 0 &&
        2 * launch.n_blocks <= card_.info().multiprocessors) {
      width.form.tiles = 1; // so that twice as many have work
      number_blocks(width.form, launch);
    }
    launch.n_tiles = width.form.tiles;
    Grid grid = grid_of(width.form, launch.n_blocks);
    grid.in = data.in;
    grid.out = width.out;
    grid.bits = data.bits;
    grid.bytes = width.bytes;
    launch.rows = x_.rows;
    launch.in = data.in;
    launch.shares_rows = width.form.shares_rows ? 1 : 0;
    if (width.form.prepares) {
      launch.own = with_digits(x_.args, width.form.digits, exact_);
    } else {
      const PreparedDigits& digits =
          digits_of(card_, x_, width.form.digits, exact_);
      launch.digits = halves_of(*digits.digits);
      launch.sums = pointer_of<const float>(*digits.sums);
      if (width.form.digits == Digits::Wide) {
        launch.scales = pointer_of<const float>(*digits.scales);
      } else {
        launch.row_scales = pointer_of<const RowScales>(*digits.scales);
      }
    }
    const std::string kernel = fmt::format(
        "multiply_{}bit_{}_{}",
        data.bits,
        exact_ ? "exact" : "fast",
        width.form.name);
    card_.launch(kernel.c_str(), grid, launch);
    width = {};
  }

  /** Some kernels have as many blocks as run at once, which go through all. */
  Grid grid_of(const Form& form, int n_blocks) const {
    const int row_blocks =
        form.rows == 0 ? 1 : (x_.rows + form.rows - 1) / form.rows;
    Grid grid{
        .x = static_cast<std::size_t>(n_blocks),
        .y = static_cast<std::size_t>(row_blocks),
        .threads = form.threads,
        .shared_bytes = form.shared_bytes};
    if (form.rows == 0 || form.is_wide || form.is_batch) {
      grid.x =
          std::min<std::size_t>(grid.x * grid.y, card_.info().multiprocessors);
      grid.y = 1;
    } else if (form.digits == Digits::Wide) {
      std::swap(grid.x, grid.y); // blocks that follow each other share weights
    }
    return grid;
  }
  Card& card_;
  PreparedRows& x_;
  bool exact_;
  std::map<Kind, Width> widths_;
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

Added bias_of(const Card& card, const Projection& projection) {
  if (projection.bias == nullptr) {
    return {};
  }
  const int out = projection.weight->out_features();
  require_shape(kFunction, "bias", *projection.bias, {out});
  return {.bias = floats_of(kFunction, card, *projection.bias)};
}

/** Whether gate, up and activation are one launch. */
bool can_gate(
    const Card& card,
    const Product& product,
    const PreparedRows& x,
    bool exact) {
  if (!product.activation) {
    return false;
  }
  const Projection& gate = product.projections[0];
  const Projection& up = product.projections[1];
  const MatrixData& of_gate = data_of(kFunction, card, *gate.weight);
  const MatrixData& of_up = data_of(kFunction, card, *up.weight);
  return gate.updates.empty() && up.updates.empty() &&
      of_gate.layout != Layout::Plain && of_up.layout == of_gate.layout &&
      of_up.bits == of_gate.bits && of_up.out == of_gate.out &&
      of_up.group_size == of_gate.group_size &&
      of_up.param_type == of_gate.param_type &&
      choose_form(card, of_up, x, exact).gates;
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

/** The projections, before their updates, with the residual. */
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
      added.residual = floats_of(kFunction, card, *product.residual);
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

bool has_wide_products(const CardInfo& card) {
  return card.major == 9; // wgmma
}

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
  if (can_gate(card, product, prepared, exact)) {
    return {multiply_gated(card, product, prepared, exact)};
  }
  std::vector<mx::array> results = multiply_all(card, product, prepared, exact);
  // An RMS norm is cheaper made again than written and read.
  const bool is_plain = prepared.plain.has_value();
  add_updates(
      card,
      product,
      is_plain ? *prepared.plain : x,
      is_plain ? nullptr : product.norm,
      results);
  if (product.activation) {
    return {glu(card, results[0], results[1], *product.activation)};
  }
  return results;
}

} // namespace optiq::kernels::cuda
