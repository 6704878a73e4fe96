#include <algorithm>
#include <cstdint>
#include <string>

#include "optiq/base/error.h"
#include "optiq/kernels/cuda/gradients.h"
#include "optiq/kernels/cuda/matrix.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/logit_checks.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cuda::gradients {
namespace {

// Floats of a matrix's rows that are unpacked at once: so many that the second
// cache keeps them until they are read.
constexpr int kUnpackedFloats = 1 << 22;

void require_matrix(
    const char* function,
    const char* name,
    const mx::array& x) {
  if (x.ndim() != 2) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found {}, expected [T, width]. Pass a matching array.",
        function,
        name,
        shape_text(x));
  }
}

/** A matrix whose columns lie side by side, as it is or transposed. */
Factor rows_of(const void* data, Number type, int width, float factor = 1.f) {
  return {
      .data = data,
      .type = type,
      .is_aligned = 0,
      .factor = factor,
      .row = width,
      .column = 1,
      .batch = 0,
      .group = 1};
}
/** Columns of a dense matrix [out, in] as it lies. */
Factor dense_factor(const MatrixData& data) {
  return rows_of(
      pointer_of<const void>(*data.weight),
      data.layout == Layout::Dense ? Number::Float16 : data.type,
      data.in,
      data.layout == Layout::Dense ? data.unit : 1.f);
}

/** Of an operation on one or two arrays of a shape; without b, db is a. */
std::pair<mx::array, mx::array> apply_backward(
    const char* function,
    Card& card,
    Backward what,
    const mx::array& dy,
    const mx::array& a,
    const mx::array* b,
    float factor = 0.f) {
  require_shape(function, "dy", dy, a.shape());
  mx::array da = card.make_array(a.shape());
  mx::array db = b != nullptr ? card.make_array(a.shape()) : da;
  const ApplyBackward args{
      .what = what,
      .dy = floats_of(function, card, dy),
      .a = floats_of(function, card, a),
      .b = b != nullptr ? floats_of(function, card, *b) : nullptr,
      .factor = factor,
      .da = new_floats_of(card, da),
      .db = b != nullptr ? new_floats_of(card, db) : nullptr,
      .n = static_cast<long long>(a.size())};
  card.launch("apply_backward", grid_of(args.n), args);
  return {da, db};
}

/** dy at rows and columns of an array that is zero elsewhere. */
mx::array spread(
    Card& card,
    const mx::array& dy,
    const mx::Shape& shape,
    const int* rows,
    int begin) {
  mx::array dx = card.make_array(shape);
  const DevicePointer to = card.address("output", dx);
  card.fill_zero(to, dx.nbytes());
  const Spread args{
      .x = floats_of("spread", card, dy),
      .rows = rows,
      .begin = begin,
      .width = dy.shape(1),
      .y_width = shape[1],
      .y = pointer_of<float>(to)};
  card.launch(
      "spread",
      grid_of_rows(static_cast<std::size_t>(dy.shape(0)), args.width),
      args);
  return dx;
}

/** Runs a kernel of losses, and waits for them. */
LogitLoss loss_of_logits(
    const char* function,
    const char* kernel,
    Card& card,
    const mx::array& logits,
    LogitLossRows args,
    std::span<const float> weights) {
  const auto rows = static_cast<std::size_t>(logits.shape(0));
  mx::array gradient = card.make_array(logits.shape());
  std::vector<double> losses(rows);
  const Buffer on_card = card.memory().take(rows * sizeof(double));
  Parcel parcel;
  parcel.add(weights);
  const Buffer sent = card.send(parcel);
  args.x = floats_of(function, card, logits);
  args.weights = pointer_of<const float>(*sent);
  args.n = logits.shape(1);
  args.losses = pointer_of<double>(*on_card);
  args.dx = new_floats_of(card, gradient);
  card.launch(kernel, {.x = rows, .threads = 1024}, args);
  card.copy_out(losses.data(), *on_card, rows * sizeof(double));
  return {std::move(losses), gradient};
}

/** Whether every line, of every head, begins where four numbers do. */
bool is_aligned(const Factor& factor) {
  const std::size_t bytes = factor.type == Number::Float32 ? 4 : 2;
  const long long stride = std::max(factor.row, factor.column);
  return reinterpret_cast<std::uintptr_t>(factor.data) % (4 * bytes) == 0 &&
      stride % 4 == 0 && factor.batch % 4 == 0;
}

/** Which of float_product.cu's kernels, by how the factors lie. */
const char* kernel_of(const FloatProduct& product) {
  if (product.a.column != 1) {
    return "outer";
  }
  if (product.b.row == 1 && product.b.column != 1) {
    return "dots";
  }
  // Halves fit into TF32.
  return product.b.type == Number::Float32 ? "rows" : "halves";
}

} // namespace

void multiply_floats(Card& card, FloatProduct product, int heads) {
  product.a.is_aligned = is_aligned(product.a) ? 1 : 0;
  product.b.is_aligned = is_aligned(product.b) ? 1 : 0;
  const auto grid_of_tiles = [&](int tile) {
    const auto tiles = [tile](int n) {
      return static_cast<std::size_t>((n + tile - 1) / tile);
    };
    return Grid{
        .x = tiles(product.columns),
        .y = tiles(product.rows),
        .z = static_cast<std::size_t>(heads),
        .threads = kFloatProductThreads};
  };
  const Grid large = grid_of_tiles(128);
  // Small tiles are half as fast, and four times as many.
  const bool is_large = 2 * large.x * large.y * large.z >=
      static_cast<std::size_t>(card.info().multiprocessors);
  const std::string kernel = fmt::format(
      "float_product_{}_{}", kernel_of(product), is_large ? 128 : 64);
  card.launch(kernel.c_str(), is_large ? large : grid_of_tiles(64), product);
}

mx::array multiply(Card& card, const mx::array& dy, const Matrix& weight) {
  constexpr const char* kName = "multiply";
  const MatrixData& data = data_of(kName, card, weight);
  require_matrix(kName, "dy", dy);
  const int rows = dy.shape(0);
  require_shape(kName, "dy", dy, {rows, data.out});
  mx::array dx = card.make_array({rows, data.in});
  FloatProduct product{
      .a = rows_of(floats_of(kName, card, dy), Number::Float32, data.out),
      .c = new_floats_of(card, dx),
      .c_row = data.in,
      .rows = rows,
      .columns = data.in,
      .factor = 1.f};
  if (data.group_size == 0) {
    product.b = dense_factor(data);
    product.inner = data.out;
    multiply_floats(card, product);
    return dx;
  }
  const int tile = std::max(1, std::min(data.out, kUnpackedFloats / data.in));
  const Buffer unpacked =
      card.memory().take(sizeof(float) * tile * std::size_t{1} * data.in);
  product.b = rows_of(pointer_of<float>(*unpacked), Number::Float32, data.in);
  const auto* const first_column = static_cast<const float*>(product.a.data);
  for (int begin = 0; begin < data.out; begin += tile) {
    product.inner = std::min(tile, data.out - begin);
    look_up(
        card,
        data,
        {.first = begin, .count = product.inner},
        1.f,
        pointer_of<float>(*unpacked));
    product.a.data = first_column + begin;
    multiply_floats(card, product);
    product.accumulates = 1;
  }
  return dx;
}

mx::array outer(Card& card, const mx::array& dy, const mx::array& x) {
  constexpr const char* kName = "outer";
  require_matrix(kName, "dy", dy);
  require_matrix(kName, "x", x);
  require_shape(kName, "x", x, {dy.shape(0), x.shape(1)});
  mx::array dw = card.make_array({dy.shape(1), x.shape(1)});
  multiply_floats(
      card,
      {.a = transposed(
           rows_of(floats_of(kName, card, dy), Number::Float32, dy.shape(1))),
       .b = rows_of(floats_of(kName, card, x), Number::Float32, x.shape(1)),
       .c = new_floats_of(card, dw),
       .c_row = x.shape(1),
       .c_batch = 0,
       .rows = dy.shape(1),
       .columns = x.shape(1),
       .inner = dy.shape(0),
       .factor = 1.f,
       .accumulates = 0});
  return dw;
}

mx::array normalize(
    Card& card,
    const mx::array& dy,
    const mx::array& x,
    const Norm& norm) {
  constexpr const char* kName = "normalize";
  const int width = x.ndim() == 0 ? 0 : x.shape(-1);
  require_shape(kName, "dy", dy, x.shape());
  require_shape(kName, "weight", norm.weight, {width});
  mx::array dx = card.make_array(x.shape());
  const NormGradient args{
      .dy = floats_of(kName, card, dy),
      .x = floats_of(kName, card, x),
      .weight = floats_of(kName, card, norm.weight),
      .eps = norm.eps,
      .is_layer_norm = norm.is_layer_norm ? 1 : 0,
      .width = width,
      .dx = new_floats_of(card, dx)};
  const std::size_t rows = width == 0 ? 0 : x.size() / width;
  card.launch("norm_gradient", {.x = rows, .threads = 256}, args);
  return dx;
}

std::pair<mx::array, mx::array> glu(
    Card& card,
    const mx::array& dy,
    const mx::array& gate,
    const mx::array& up,
    Activation activation) {
  require_shape("glu", "up", up, gate.shape());
  const Backward what =
      activation == Activation::Silu ? Backward::Silu : Backward::GeluTanh;
  return apply_backward("glu", card, what, dy, gate, &up);
}

std::pair<mx::array, mx::array> sigmoid_gate(
    Card& card,
    const mx::array& dy,
    const mx::array& x,
    const mx::array& gate) {
  require_shape("sigmoid_gate", "gate", gate, x.shape());
  return apply_backward(
      "sigmoid_gate", card, Backward::SigmoidGate, dy, x, &gate);
}

mx::array
softcap(Card& card, const mx::array& dy, const mx::array& y, float cap) {
  return apply_backward("softcap", card, Backward::Softcap, dy, y, nullptr, cap)
      .first;
}

mx::array columns(Card& card, const mx::array& dy, int begin, int width) {
  require_matrix("columns", "dy", dy);
  check_range("columns", "columns", begin, dy.shape(1), width);
  return spread(card, dy, {dy.shape(0), width}, nullptr, begin);
}

mx::array
take_rows(Card& card, const mx::array& dy, std::span<const int> rows, int n) {
  constexpr const char* kName = "take_rows";
  require_matrix(kName, "dy", dy);
  require_shape(kName, "dy", dy, {static_cast<int>(rows.size()), dy.shape(1)});
  for (const int row : rows) {
    check_range(kName, "row", row, 1, n);
  }
  Parcel parcel;
  parcel.add(rows);
  const Buffer sent = card.send(parcel);
  return spread(card, dy, {n, dy.shape(1)}, pointer_of<const int>(*sent), 0);
}

LogitLoss cross_entropy(
    Card& card,
    const mx::array& logits,
    std::span<const std::int32_t> labels,
    std::span<const float> weights) {
  constexpr const char* kName = "cross_entropy";
  require_labels(kName, logits, labels, weights);
  Parcel parcel;
  parcel.add(labels);
  const Buffer sent = card.send(parcel);
  LogitLossRows args{};
  args.labels = pointer_of<const int>(*sent);
  return loss_of_logits(
      kName, "cross_entropy_gradient", card, logits, args, weights);
}

LogitLoss kl_divergence(
    Card& card,
    const mx::array& reference,
    const mx::array& logits,
    std::span<const float> weights) {
  constexpr const char* kName = "kl_divergence";
  require_matrix(kName, "logits", logits);
  require_shape(kName, "reference", reference, logits.shape());
  require_weights(kName, logits, weights);
  LogitLossRows args{};
  args.reference = floats_of(kName, card, reference);
  return loss_of_logits(
      kName, "kl_divergence_gradient", card, logits, args, weights);
}

} // namespace optiq::kernels::cuda::gradients
