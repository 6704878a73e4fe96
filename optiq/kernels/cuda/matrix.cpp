#include "optiq/kernels/cuda/matrix.h"

#include <algorithm>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/kernels/affine_checks.h"
#include "optiq/kernels/cuda/packed_layout.h"
#include "optiq/kernels/cuda/pointers_impl.h"

namespace optiq::kernels::cuda {
namespace {

// Eight halves in one load, which tensor cores' rows must keep to.
constexpr int kAlignedColumns = 8;
// Of kernels that go through all halves of a matrix.
constexpr std::size_t kHalvesBlocks = 512;
constexpr unsigned kHalvesThreads = 256;

Buffer send(Card& card, const mx::array& host, Buffer to) {
  const mx::array there = io::materialize(host);
  card.copy_in(*to, there.data<void>(), there.nbytes());
  return to;
}

/** For long. */
Buffer keep(Card& card, const mx::array& host) {
  return send(card, host, card.memory().take_exactly(host.nbytes()));
}

/** Until it is repacked. */
Buffer lend(Card& card, const mx::array& host) {
  return send(card, host, card.memory().take(host.nbytes()));
}

/** The power of two that brings what is below the next one behind `largest`
 * below 2^15: into the middle of float16. 1 where weights are not finite. */
float factor_of(float largest) {
  constexpr int kHalfBits = 15;
  constexpr int kMost = 126; // whose inverse is a float, too
  if (!std::isfinite(largest)) {
    return 1.f;
  }
  int exponent = 0;
  std::frexp(largest, &exponent); // largest < 2^exponent
  return std::ldexp(1.f, std::min(kHalfBits - exponent, kMost));
}

/** The factor of weights whose largest magnitude is found by what `launch`
 * starts. Waits for all that was launched. */
template <class Launch>
float found_factor(Card& card, const Launch& launch) {
  const Buffer largest = card.memory().take(sizeof(float));
  card.fill_zero(*largest, sizeof(float));
  launch(mutable_words_of(*largest));
  float bound = 0.f;
  card.copy_out(&bound, *largest, sizeof(bound));
  return factor_of(bound);
}

void pack(
    Card& card,
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    MatrixData& data) {
  const std::int64_t tiles = tiles_of(data.out);
  const std::int64_t spans = spans_of(data.in);
  const std::int64_t words = tiles * spans * kLanes * 2 * data.bits;
  const int groups = data.in / data.group_size;
  const int shift = shift_of_group(data.group_size);
  const std::int64_t pairs = tiles * spans * kTileRows * span_params(shift);
  data.weight = card.memory().take_exactly(words * sizeof(std::uint32_t));
  data.params = card.memory().take_exactly(pairs * sizeof(std::uint32_t));
  const Buffer rows = lend(card, weight);
  const PackCodes codes{
      .rows = words_of(*rows),
      .row_words = weight.shape(1),
      .out = data.out,
      .in = data.in,
      .bits = data.bits,
      .codes = mutable_words_of(*data.weight),
      .words = words};
  card.launch("pack_codes", grid_of(words), codes);
  const Buffer lent_scales = lend(card, scales);
  const Buffer lent_biases = lend(card, biases);
  PackParams params{
      .scales = halves_of(*lent_scales),
      .biases = halves_of(*lent_biases),
      .out = data.out,
      .groups = groups,
      .spans = static_cast<int>(spans),
      .group_shift = shift,
      .type = data.param_type,
      .bits = data.bits,
      .params = mutable_words_of(*data.params),
      .words = pairs};
  data.factor = found_factor(card, [&](std::uint32_t* largest) {
    params.largest = largest;
    card.launch("pack_params", grid_of(pairs), params);
  });
  data.nbytes = 4 * static_cast<std::uint64_t>(words + pairs);
}

/** Dense weights in the middle of float16. */
void bring_to_half(Card& card, MatrixData& data) {
  const std::int64_t pairs = std::int64_t{data.out} * data.in / 2;
  std::uint32_t* const weight = mutable_words_of(*data.weight);
  const Grid grid{.x = kHalvesBlocks, .threads = kHalvesThreads};
  const float factor = found_factor(card, [&](std::uint32_t* largest) {
    const FindLargest args{weight, pairs, data.type, largest};
    card.launch("find_largest", grid, args);
  });
  const ScaleHalves args{weight, pairs, data.type, factor};
  card.launch("scale_halves", grid, args);
  data.layout = Layout::Dense;
  data.type = Number::Float16;
  data.unit = 1.f / factor;
}

} // namespace

PlainMatrix MatrixData::plain() const {
  return {
      .weight = pointer_of<void>(*weight),
      .scales = scales ? pointer_of<void>(*scales) : nullptr,
      .biases = biases ? pointer_of<void>(*biases) : nullptr,
      .type = type,
      .bits = group_size > 0 ? bits : 0,
      .group = group_size,
      .out = out,
      .in = in};
}

Matrix dense_matrix(Card& card, const mx::array& weight) {
  check_dense_shape("dense", weight);
  auto data = std::make_shared<MatrixData>();
  data->device = kDeviceName;
  data->card = &card;
  data->out = weight.shape(0);
  data->in = weight.shape(1);
  data->bits = static_cast<int>(8 * weight.itemsize());
  data->type = number_of("dense", "weight", weight.dtype());
  data->nbytes = weight.nbytes();
  if (card.holds(weight)) {
    data->weight = card.buffer_of(weight);
    return Matrix(std::move(data));
  }
  data->weight = keep(card, weight);
  if (data->type != Number::Float32 && data->in % kAlignedColumns == 0) {
    bring_to_half(card, *data);
  }
  card.synchronize(); // products read weights ahead of what is before them
  return Matrix(std::move(data));
}

Matrix quantized_matrix(
    Card& card,
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    int bits,
    int group_size) {
  check_affine_shapes("quantized", weight, scales, biases, bits, group_size);
  auto data = std::make_shared<MatrixData>();
  data->device = kDeviceName;
  data->card = &card;
  data->out = weight.shape(0);
  data->in = scales.shape(1) * group_size;
  data->bits = bits;
  data->group_size = group_size;
  data->type = number_of("quantized", "scales", scales.dtype());
  if (data->type != Number::Float32) {
    data->layout = Layout::Packed;
    data->param_type = data->type;
    // And waits: products read weights ahead of what is before them.
    pack(card, weight, scales, biases, *data);
    return Matrix(std::move(data));
  }
  data->weight = keep(card, weight);
  data->scales = keep(card, scales);
  data->biases = keep(card, biases);
  data->nbytes = weight.nbytes() + scales.nbytes() + biases.nbytes();
  return Matrix(std::move(data));
}

const MatrixData&
data_of(const char* function, const Card& card, const Matrix& matrix) {
  const auto* data = dynamic_cast<const MatrixData*>(&matrix.storage());
  if (data == nullptr || data->card != &card) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] weight: found a matrix of device {}, expected one of cuda:{}. "
        "Load the model for this device.",
        function,
        matrix.storage().device,
        card.info().index);
  }
  return *data;
}

Number number_of(const char* function, const char* what, mx::Dtype dtype) {
  check_float(function, what, dtype);
  return dtype == mx::float32 ? Number::Float32
      : dtype == mx::bfloat16 ? Number::BFloat16
                              : Number::Float16;
}

} // namespace optiq::kernels::cuda
