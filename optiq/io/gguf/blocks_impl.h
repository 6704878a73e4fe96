#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "optiq/io/gguf/dequantize.h"

/** How the blocks of GGUF's quantized types are decoded. */
namespace optiq::io {

inline constexpr int kSuperBlock = 256; // elements of a K block
inline constexpr int kMaxGroups = kSuperBlock / kGgufGroup;

/** 32 codes with what turns them into values: scale * (code - zero) for the
 * symmetric types, scale * code + bias for the others (zero = 0). */
struct Group {
  float scale = 0.f;
  float bias = 0.f;
  int zero = 0;
  std::array<std::uint8_t, kGgufGroup> codes{};
};

/** A type whose values are affine in codes, in groups of 32. */
struct GroupedType {
  GgufType type;
  AffineForm form;
  void (*unpack)(const std::byte* block, Group* groups);
};

/** Null for the other types. */
const GroupedType* find_grouped(GgufType type);

/** The block_elements(type) values of one block, of any type. */
void decode_block(GgufType type, const std::byte* block, float* out);

} // namespace optiq::io
