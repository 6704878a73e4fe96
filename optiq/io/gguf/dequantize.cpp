#include "optiq/io/gguf/dequantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/io/gguf/blocks_impl.h"

namespace optiq::io {
namespace {

constexpr int kGroup = kGgufGroup;

/** Rows of a tensor in the file, and their order. */
class Rows {
 public:
  Rows(const GgufFile& file, const GgufTensor& tensor, InterleavedHeads heads)
      : cols_(tensor.shape.back()),
        n_(tensor.nbytes / row_bytes(tensor)),
        row_bytes_(row_bytes(tensor)),
        head_dim_(static_cast<std::size_t>(heads.head_dim)),
        data_(file.bytes(tensor).data()) {}

  std::size_t count() const {
    return n_;
  }
  int cols() const {
    return cols_;
  }
  std::size_t bytes() const {
    return row_bytes_;
  }
  /** Where row `row` of the result lies in the file. */
  const std::byte* at(std::size_t row) const {
    if (head_dim_ != 0) {
      const std::size_t in_head = row % head_dim_;
      const std::size_t half = head_dim_ / 2;
      row += 2 * (in_head % half) + in_head / half - in_head;
    }
    return data_ + row * row_bytes_;
  }

 private:
  static std::size_t row_bytes(const GgufTensor& tensor) {
    return static_cast<std::size_t>(tensor.shape.back()) /
        block_elements(tensor.type) * block_bytes(tensor.type);
  }

  int cols_;
  std::size_t n_;
  std::size_t row_bytes_;
  std::size_t head_dim_;
  const std::byte* data_;
};

void dequantize_row(GgufType type, const std::byte* row, int cols, float* out) {
  for (int col = 0; col < cols; col += block_elements(type)) {
    decode_block(type, row, out + col);
    row += block_bytes(type);
  }
}

mx::Shape shape_of(const GgufTensor& tensor) {
  return {tensor.shape.begin(), tensor.shape.end()};
}

mx::Dtype plain_dtype(GgufType type) {
  return type == GgufType::F16 ? mx::float16
      : type == GgufType::BF16 ? mx::bfloat16
                               : mx::float32;
}

/** False when the dtype cannot hold the value exactly. */
bool write_param(mx::array& params, std::size_t index, float value) {
  if (params.dtype() == mx::float32) {
    params.data<float>()[index] = value;
    return std::isfinite(value);
  }
  const mx::float16_t half(value);
  params.data<mx::float16_t>()[index] = half;
  return std::isfinite(value) && static_cast<float>(half) == value;
}

/** 32 codes of `bits` as a little-endian stream: `bits` words. */
void pack_codes(const Group& group, int bits, std::uint32_t* words) {
  std::uint64_t stream = 0;
  int filled = 0;
  for (const std::uint8_t code : group.codes) {
    stream |= std::uint64_t{code} << filled;
    filled += bits;
    if (filled >= 32) {
      *words++ = static_cast<std::uint32_t>(stream);
      stream >>= 32;
      filled -= 32;
    }
  }
}

/** Row `row` of the result; false when a parameter is not exact. */
bool split_row(
    const GroupedType& type,
    const std::byte* block,
    std::size_t row,
    int n_groups,
    AffineParts& parts) {
  const int per_block = block_elements(type.type) / kGroup;
  auto* words = parts.weight.data<std::uint32_t>();
  std::array<Group, kMaxGroups> groups;
  bool exact = true;
  for (int g = 0; g < n_groups; ++g) {
    if (g % per_block == 0) {
      type.unpack(block, groups.data());
      block += block_bytes(type.type);
    }
    const Group& group = groups[g % per_block];
    const float bias = group.zero != 0
        ? -group.scale * static_cast<float>(group.zero)
        : group.bias;
    const std::size_t index = row * n_groups + g;
    const bool scale_fits = write_param(parts.scales, index, group.scale);
    const bool bias_fits = write_param(parts.biases, index, bias);
    exact = exact && scale_fits && bias_fits;
    pack_codes(group, type.form.bits, words + index * type.form.bits);
  }
  return exact;
}

} // namespace

mx::array dequantize(
    const GgufFile& file,
    const GgufTensor& tensor,
    InterleavedHeads heads) {
  const Rows rows(file, tensor, heads);
  return reshaped(
      dequantize_rows(file, tensor, heads, 0, static_cast<int>(rows.count())),
      shape_of(tensor));
}

mx::array dequantize_rows(
    const GgufFile& file,
    const GgufTensor& tensor,
    InterleavedHeads heads,
    int first,
    int n) {
  const Rows rows(file, tensor, heads);
  mx::array values = make_array({n, rows.cols()}, mx::float32);
  auto* out = values.data<float>();
  const auto count = static_cast<std::size_t>(n);
  parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      dequantize_row(
          tensor.type,
          rows.at(static_cast<std::size_t>(first) + row),
          rows.cols(),
          out + row * static_cast<std::size_t>(rows.cols()));
    }
  });
  return values;
}

mx::array load_plain(
    const GgufFile& file,
    const GgufTensor& tensor,
    InterleavedHeads heads) {
  const mx::Dtype dtype = plain_dtype(tensor.type);
  const auto bytes = file.bytes(tensor);
  if (heads.head_dim == 0 && tensor.offset % mx::size_of(dtype) == 0) {
    return view_array(
        bytes.data(), shape_of(tensor), dtype, file.mapping(tensor));
  }
  const Rows rows(file, tensor, heads);
  mx::array copy = make_array(shape_of(tensor), dtype);
  for (std::size_t row = 0; row < rows.count(); ++row) {
    std::memcpy(
        copy.data<std::byte>() + row * rows.bytes(),
        rows.at(row),
        rows.bytes());
  }
  return copy;
}

std::optional<AffineForm> affine_form(GgufType type) {
  const GroupedType* grouped = find_grouped(type);
  return grouped == nullptr ? std::nullopt : std::optional(grouped->form);
}

AffineParts split_affine(
    const GgufFile& file,
    const GgufTensor& tensor,
    InterleavedHeads heads) {
  const GroupedType& type = *find_grouped(tensor.type);
  const Rows rows(file, tensor, heads);
  const auto n_rows = static_cast<std::int32_t>(rows.count());
  const int n_groups = rows.cols() / kGroup;
  AffineParts parts{
      make_array({n_rows, n_groups * type.form.bits}, mx::uint32),
      make_array({n_rows, n_groups}, type.form.params),
      make_array({n_rows, n_groups}, type.form.params)};
  std::vector<std::uint8_t> exact(rows.count());
  parallel_for(rows.count(), 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      exact[row] = split_row(type, rows.at(row), row, n_groups, parts) ? 1 : 0;
    }
  });
  const auto inexact = std::find(exact.begin(), exact.end(), 0);
  if (inexact != exact.end()) {
    fail(
        ErrorKind::Unsupported,
        "[split_affine] {}: tensor '{}': found weights in row {} that are not "
        "finite or too large for float16, expected ordinary ones. Is the file "
        "damaged?",
        file.path().string(),
        tensor.name,
        inexact - exact.begin());
  }
  return parts;
}

} // namespace optiq::io
