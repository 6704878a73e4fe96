#pragma once

#include <cstddef>
#include <cstdint>

namespace optiq::kernels::cpu {

/** Whether queries meet blocks of bfloat16 on tiles: all rows of a head_dim or
 * none, as the order of sums is another than that of dots. Per 32 channels, or
 * tokens, sum + (even + odd), each a chain of fused multiply-adds (TDPBF16PS).
 */
bool attends_on_tiles(std::size_t head_dim);

/** This thread's tiles for so many queries at once; given back at the end. */
class QueryTiles {
 public:
  QueryTiles() = default;
  ~QueryTiles();
  QueryTiles(const QueryTiles&) = delete;
  QueryTiles& operator=(const QueryTiles&) = delete;

  /** Up to 16. */
  void set_rows(std::size_t rows);

 private:
  std::size_t rows_ = 0; // none are in use
};

/** Queries and a block of keys [head_dim / 2][64 tokens][2 channels]. */
struct KeyTiles {
  const std::uint16_t* const* queries = nullptr; // [n] rows of [head_dim]
  std::size_t n = 0;
  std::size_t head_dim = 0;
  const std::byte* keys = nullptr;
  float* scores = nullptr; // row r from scores + r * stride on
  std::size_t stride = 0;
  const std::byte* next = nullptr; // as many bytes to fetch, or null
};

/** scores[r][t] = queries[r] . keys[t] for all 64 tokens. */
void score_tiles(const KeyTiles& tiles, QueryTiles& shape);

/** Weights and a block of values [32 pairs of tokens][head_dim][2 tokens]. */
struct ValueTiles {
  const std::uint16_t* weights = nullptr; // row r from + r * weight_stride on
  std::size_t weight_stride = 0;
  std::size_t n = 0;
  std::size_t head_dim = 0;
  const std::byte* values = nullptr;
  float* sums = nullptr; // row r from sums + r * stride on
  std::size_t stride = 0;
  const std::byte* next = nullptr;
};

/** sums[r] += sum over the 64 tokens of weights[r][t] values[t]. */
void add_value_tiles(const ValueTiles& tiles, QueryTiles& shape);

/** Whether a weight of zero keeps every token of a block out of a sum. */
bool all_finite(const std::byte* values, std::size_t head_dim);

/** The block with zeros in place of the tokens outside [begin, end). */
void copy_tokens(
    const std::byte* values,
    std::size_t head_dim,
    std::size_t begin,
    std::size_t end,
    std::byte* to);

} // namespace optiq::kernels::cpu
