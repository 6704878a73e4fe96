// Blocks, all numbers little-endian, d and m float16, codes q unsigned. A byte
// holds the low four bits of two codes: q[i] and, in its high nibble, q[i +
// 16], in the K types q[i + 32] of each 64.
//
//   Q4_0  d q[32]:4                          d * (q - 8)
//   Q4_1  d m q[32]:4                        d * q + m
//   Q5_0  d high[32]:1 q[32]:4               d * (q - 16)
//   Q5_1  d m high[32]:1 q[32]:4             d * q + m
//   Q8_0  d q[32]:8 (signed)                 d * q
//   Q4_K  d m sm[8]:6+6 q[256]:4             (d * s) * q - (m * sm)
//   Q5_K  d m sm[8]:6+6 high[256]:1 q[256]:4 (d * s) * q - (m * sm)
//   Q6_K  q[256]:4 high[256]:2 s[16]:8 d     (d * s) * (q - 32)
//
// Products of a scale and a code are exact in float32, so each value is rounded
// once, however it is computed.
#include "optiq/io/gguf_dequantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include <mlx/types/half_types.h>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"

namespace optiq::io {
namespace {

constexpr int kGroup = kGgufGroup;
constexpr int kSuperBlock = 256; // elements of a K block
constexpr int kMaxGroups = kSuperBlock / kGroup;

/** 32 codes with what turns them into values: scale * (code - zero) for the
 * symmetric types, scale * code + bias for the others (zero = 0). */
struct Group {
  float scale = 0.f;
  float bias = 0.f;
  int zero = 0;
  std::array<std::uint8_t, kGroup> codes{};
};

std::uint8_t byte_at(const std::byte* at) {
  return std::to_integer<std::uint8_t>(*at);
}

float half_at(const std::byte* at) {
  mx::float16_t half;
  std::memcpy(&half, at, sizeof(half));
  return static_cast<float>(half);
}

void unpack_nibbles(const std::byte* at, Group& group) {
  for (int i = 0; i < kGroup / 2; ++i) {
    group.codes[i] = byte_at(at + i) & 15;
    group.codes[i + kGroup / 2] = byte_at(at + i) >> 4;
  }
}

void add_high_bits(const std::byte* at, Group& group) {
  std::uint32_t high = 0;
  std::memcpy(&high, at, sizeof(high));
  for (int i = 0; i < kGroup; ++i) {
    group.codes[i] |= (high >> i & 1) << 4;
  }
}

void unpack_q4_0(const std::byte* block, Group* group) {
  group->scale = half_at(block);
  group->zero = 8;
  unpack_nibbles(block + 2, *group);
}

void unpack_q4_1(const std::byte* block, Group* group) {
  group->scale = half_at(block);
  group->bias = half_at(block + 2);
  unpack_nibbles(block + 4, *group);
}

void unpack_q5_0(const std::byte* block, Group* group) {
  group->scale = half_at(block);
  group->zero = 16;
  unpack_nibbles(block + 6, *group);
  add_high_bits(block + 2, *group);
}

void unpack_q5_1(const std::byte* block, Group* group) {
  group->scale = half_at(block);
  group->bias = half_at(block + 2);
  unpack_nibbles(block + 8, *group);
  add_high_bits(block + 4, *group);
}

void unpack_q8_0(const std::byte* block, Group* group) {
  group->scale = half_at(block);
  group->zero = 128;
  for (int i = 0; i < kGroup; ++i) {
    group->codes[i] = byte_at(block + 2 + i) ^ 0x80; // signed + 128
  }
}

/** Scales and minima of a K block, six bits each in twelve bytes: the first
 * four pairs in the low bits of bytes 0-3 and 4-7; of the last four the low
 * nibbles in bytes 8-11, the two high bits on top of bytes 0-7. */
void unpack_k_scales(const std::byte* block, Group* groups) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  const std::byte* packed = block + 4;
  for (int i = 0; i < 4; ++i) {
    const int a = byte_at(packed + i);
    const int b = byte_at(packed + 4 + i);
    const int c = byte_at(packed + 8 + i);
    groups[i].scale = d * static_cast<float>(a & 63);
    groups[i].bias = -(m * static_cast<float>(b & 63));
    groups[i + 4].scale = d * static_cast<float>((c & 15) | (a >> 6) << 4);
    groups[i + 4].bias = -(m * static_cast<float>((c >> 4) | (b >> 6) << 4));
  }
}

void unpack_k_nibbles(const std::byte* at, Group* groups) {
  for (int g = 0; g < kMaxGroups; g += 2) {
    for (int i = 0; i < kGroup; ++i) {
      const int pair = byte_at(at + g / 2 * kGroup + i);
      groups[g].codes[i] = pair & 15;
      groups[g + 1].codes[i] = pair >> 4;
    }
  }
}

void unpack_q4_k(const std::byte* block, Group* groups) {
  unpack_k_scales(block, groups);
  unpack_k_nibbles(block + 16, groups);
}

void unpack_q5_k(const std::byte* block, Group* groups) {
  unpack_k_scales(block, groups);
  unpack_k_nibbles(block + 48, groups);
  for (int g = 0; g < kMaxGroups; ++g) {
    for (int i = 0; i < kGroup; ++i) {
      groups[g].codes[i] |= (byte_at(block + 16 + i) >> g & 1) << 4;
    }
  }
}

/** A type in groups of 32. */
struct GroupedType {
  GgufType type;
  AffineForm form;
  void (*unpack)(const std::byte* block, Group* groups);
};

// A scale of a K type is a product of 17 bits: more than float16 holds.
const GroupedType kGroupedTypes[] = {
    {GgufType::Q4_0, {4, mx::float16}, unpack_q4_0},
    {GgufType::Q4_1, {4, mx::float16}, unpack_q4_1},
    {GgufType::Q5_0, {5, mx::float16}, unpack_q5_0},
    {GgufType::Q5_1, {5, mx::float16}, unpack_q5_1},
    {GgufType::Q8_0, {8, mx::float16}, unpack_q8_0},
    {GgufType::Q4_K, {4, mx::float32}, unpack_q4_k},
    {GgufType::Q5_K, {5, mx::float32}, unpack_q5_k},
};

const GroupedType* find_grouped(GgufType type) {
  const auto* found = std::find_if(
      std::begin(kGroupedTypes),
      std::end(kGroupedTypes),
      [&](const GroupedType& row) { return row.type == type; });
  return found == std::end(kGroupedTypes) ? nullptr : found;
}

void dequantize_q6_k(const std::byte* block, float* out) {
  const std::byte* high = block + 128;
  const std::byte* scales = block + 192;
  const float d = half_at(block + 208);
  for (int i = 0; i < kSuperBlock; ++i) {
    // Each half of 128: nibble i / 64 of byte i % 64, bit pair i / 32 of byte
    // i % 32.
    const int half = i / 128;
    const int at = i % 128;
    const int low = byte_at(block + half * 64 + at % 64) >> at / 64 * 4 & 15;
    const int top = byte_at(high + half * 32 + at % 32) >> at / 32 * 2 & 3;
    const auto scale = static_cast<std::int8_t>(byte_at(scales + i / 16));
    out[i] = d * static_cast<float>(scale) *
        static_cast<float>((low | top << 4) - 32);
  }
}

void values_of(const Group& group, float* out) {
  for (int i = 0; i < kGroup; ++i) {
    const auto code = static_cast<float>(group.codes[i] - group.zero);
    out[i] =
        group.zero != 0 ? group.scale * code : group.scale * code + group.bias;
  }
}

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
  const GroupedType* grouped = find_grouped(type);
  const int elements = block_elements(type);
  std::array<Group, kMaxGroups> groups;
  for (int col = 0; col < cols; col += elements) {
    if (grouped != nullptr) {
      grouped->unpack(row, groups.data());
      for (int g = 0; g < elements / kGroup; ++g) {
        values_of(groups[g], out + col + g * kGroup);
      }
    } else if (type == GgufType::Q6_K) {
      dequantize_q6_k(row, out + col);
    } else if (type == GgufType::F16) {
      out[col] = half_at(row);
    } else if (type == GgufType::BF16) {
      const std::uint32_t bits = byte_at(row) << 16 | byte_at(row + 1) << 24;
      std::memcpy(out + col, &bits, sizeof(bits));
    } else {
      std::memcpy(out + col, row, sizeof(float));
    }
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
  mx::array values = make_array(shape_of(tensor), mx::float32);
  auto* out = values.data<float>();
  parallel_for(rows.count(), 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      dequantize_row(
          tensor.type,
          rows.at(row),
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
    return view_array(bytes.data(), shape_of(tensor), dtype, file.mapping());
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
