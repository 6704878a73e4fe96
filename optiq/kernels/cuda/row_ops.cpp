#include <numeric>

#include "optiq/base/error.h"
#include "optiq/kernels/cuda/gradient_arguments.h"
#include "optiq/kernels/cuda/matrix.h"
#include "optiq/kernels/cuda/operations.h"
#include "optiq/kernels/cuda/packed_layout.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cuda {
namespace {

std::int64_t count(const mx::Shape& shape) {
  return std::accumulate(
      shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

int rows_of(const mx::array& x) {
  return x.ndim() == 0 ? 0 : x.shape(0);
}

/** Elements of a row. */
std::int64_t width_of(const mx::array& x) {
  return rows_of(x) == 0 ? 0 : static_cast<std::int64_t>(x.size()) / x.shape(0);
}

mx::array apply(
    const char* function,
    Card& card,
    Elementwise what,
    const mx::array& a,
    const mx::array* b,
    float factor) {
  mx::array y = card.make_array(a.shape());
  const Apply args{
      .what = what,
      .a = floats_of(function, card, a),
      .b = b != nullptr ? floats_of(function, card, *b) : nullptr,
      .factor = factor,
      .y = new_floats_of(card, y),
      .n = static_cast<std::int64_t>(a.size())};
  card.launch("apply", grid_of(args.n), args);
  return y;
}

} // namespace

mx::array normalize(Card& card, const mx::array& x, const Norm& norm) {
  constexpr const char* kName = "normalize";
  const int width = x.ndim() == 0 ? 0 : x.shape(-1);
  require_shape(kName, "weight", norm.weight, {width});
  mx::array y = card.make_array(x.shape());
  const PrepareRows args{
      .x = floats_of(kName, card, x),
      .weight = floats_of(kName, card, norm.weight),
      .bias = norm.bias ? floats_of(kName, card, *norm.bias) : nullptr,
      .eps = norm.eps,
      .is_layer_norm = norm.is_layer_norm ? 1 : 0,
      .width = width,
      .padded = padded_columns(width),
      .plain = new_floats_of(card, y)};
  const std::size_t rows = width == 0 ? 0 : x.size() / width;
  card.launch("prepare_rows", {.x = rows, .threads = kPrepareThreads}, args);
  return y;
}

mx::array add(Card& card, const mx::array& a, const mx::array& b) {
  require_shape("add", "b", b, a.shape());
  return apply("add", card, Elementwise::Add, a, &b, 0.f);
}

mx::array scale(Card& card, const mx::array& x, float factor) {
  if (factor == 1.f) {
    return card.view(x, 0, x.shape());
  }
  return apply("scale", card, Elementwise::Scale, x, nullptr, factor);
}

Elementwise elementwise_of(Activation activation) {
  return activation == Activation::Silu ? Elementwise::Silu
                                        : Elementwise::GeluTanh;
}

mx::array glu(
    Card& card,
    const mx::array& gate,
    const mx::array& up,
    Activation activation) {
  require_shape("glu", "up", up, gate.shape());
  return apply("glu", card, elementwise_of(activation), gate, &up, 0.f);
}

mx::array softcap(Card& card, const mx::array& x, float cap) {
  if (!(cap > 0.f)) {
    fail(
        ErrorKind::InvalidInput,
        "[softcap] cap: found {}, expected a number above 0. Pass the "
        "model's.",
        cap);
  }
  return apply("softcap", card, Elementwise::Softcap, x, nullptr, cap);
}

mx::array
sum_squares(Card& card, const mx::array& x, int width, const mx::array* less) {
  constexpr const char* kName = "sum_squares";
  mx::array y = card.make_array(summed_shape(kName, x, width));
  if (less != nullptr) {
    require_shape(kName, "less", *less, x.shape());
  }
  const SumSquares args{
      .x = floats_of(kName, card, x),
      .less = less != nullptr ? floats_of(kName, card, *less) : nullptr,
      .width = width,
      .y = new_floats_of(card, y),
      .n = static_cast<long long>(y.size())};
  card.launch(kName, grid_of(args.n), args);
  return y;
}

mx::array reshape(Card& card, const mx::array& x, const mx::Shape& shape) {
  if (count(shape) != static_cast<std::int64_t>(x.size())) {
    fail(
        ErrorKind::InvalidInput,
        "[reshape] found {}, expected as many elements as in [{}].",
        shape_text(x),
        fmt::join(shape, ", "));
  }
  return card.view(x, 0, shape);
}

mx::array row_range(Card& card, const mx::array& x, int begin, int n) {
  check_range("row_range", "rows", begin, n, rows_of(x));
  mx::Shape shape = x.shape();
  shape[0] = n;
  return card.view(x, static_cast<std::size_t>(begin * width_of(x)), shape);
}

mx::array take_rows(Card& card, const mx::array& x, std::span<const int> rows) {
  for (const int row : rows) {
    check_range("take_rows", "row", row, 1, rows_of(x));
  }
  const auto n = static_cast<int>(rows.size());
  if (n > 0 && rows.back() - rows.front() + 1 == n) {
    return row_range(card, x, rows.front(), n);
  }
  mx::Shape shape = x.shape();
  shape[0] = n;
  mx::array y = card.make_array(shape);
  Parcel parcel;
  parcel.add(rows);
  const Buffer sent = card.send(parcel);
  const std::int64_t width = width_of(x);
  const Gather args{
      .x = floats_of("take_rows", card, x),
      .rows = pointer_of<const int>(*sent),
      .stride = width,
      .width = static_cast<int>(width),
      .y = new_floats_of(card, y)};
  card.launch("gather", grid_of_rows(rows.size(), width), args);
  return y;
}

mx::array columns(Card& card, const mx::array& x, int begin, int width) {
  const std::int64_t stride = width_of(x);
  check_range("columns", "columns", begin, width, static_cast<int>(stride));
  mx::array y = card.make_array({rows_of(x), width});
  const Gather args{
      .x = floats_of("columns", card, x),
      .stride = stride,
      .begin = begin,
      .width = width,
      .y = new_floats_of(card, y)};
  card.launch(
      "gather",
      grid_of_rows(static_cast<std::size_t>(rows_of(x)), width),
      args);
  return y;
}

mx::array concatenate(Card& card, std::span<const mx::array> parts) {
  mx::Shape shape = parts.empty() ? mx::Shape{0, 0} : parts.front().shape();
  int rows = 0;
  for (const mx::array& part : parts) {
    shape[0] = rows_of(part);
    require_shape("concatenate", "part", part, shape);
    rows += shape[0];
  }
  shape[0] = rows;
  mx::array y = card.make_array(shape);
  DevicePointer to = card.address("concatenate", y);
  for (const mx::array& part : parts) {
    card.copy_within(to, card.address("concatenate", part), part.nbytes());
    to += part.nbytes();
  }
  return y;
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
  mx::array y = card.make_array({static_cast<int>(ids.size()), data.in});
  Parcel parcel;
  parcel.add(ids);
  const Buffer sent = card.send(parcel);
  look_up(
      card,
      data,
      {.ids = pointer_of<const int>(*sent),
       .count = static_cast<int>(ids.size())},
      scale,
      new_floats_of(card, y));
  return y;
}

void look_up(
    Card& card,
    const MatrixData& data,
    const LookedUp& rows,
    float scale,
    float* to) {
  const Grid grid{.x = static_cast<std::size_t>(rows.count), .threads = 1024};
  if (data.layout == Layout::Packed) {
    const EmbedPacked args{
        .ids = rows.ids,
        .first = rows.first,
        .codes = words_of(*data.weight),
        .params = words_of(*data.params),
        .param_type = data.param_type,
        .bits = data.bits,
        .group = data.group_size,
        .in = data.in,
        .scale = scale,
        .y = to};
    card.launch("embed_packed", grid, args);
  } else {
    const EmbedPlain args{
        .ids = rows.ids,
        .first = rows.first,
        .weight = data.plain(),
        .scale = scale * data.unit,
        .y = to};
    card.launch("embed_plain", grid, args);
  }
}

} // namespace optiq::kernels::cuda
