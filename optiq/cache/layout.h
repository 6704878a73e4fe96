#pragma once

#include <cstddef>
#include <span>
#include <variant>

#include "optiq/kernels/kv_format.h"

/** What a model's layers keep of a sequence, and the one place that counts the
 * bytes of it. */
namespace optiq::cache {

/** A layer whose memory of the past is a fixed-size float32 state. */
struct RecurrentFormat {
  std::size_t conv_floats = 0;
  std::size_t state_floats = 0;

  bool operator==(const RecurrentFormat&) const = default;
};

/** A layer that attends to the K/V of an earlier one and keeps nothing. */
struct SharedFormat {
  int layer = 0;

  bool operator==(const SharedFormat&) const = default;
};

/** What one layer keeps per sequence. Data, so that a format is a row. */
using LayerFormat =
    std::variant<kernels::KvFormat, RecurrentFormat, SharedFormat>;

/** Whether blocks of one are blocks of the other, on one device. */
bool is_same(const kernels::KvFormat& a, const kernels::KvFormat& b);
bool is_same(std::span<const LayerFormat> a, std::span<const LayerFormat> b);

/** Blocks that hold so many tokens. */
std::size_t blocks_for(std::size_t n_tokens);
/** Bytes of one piece of a layer's memory: a block, a state, 0 if shared. */
std::size_t piece_bytes(const LayerFormat& format);
/** Bytes of 64 tokens over all layers, as they are allocated: in windows too.
 */
std::size_t block_bytes(std::span<const LayerFormat> layers);
/** The first block that a token at `position` or later sees. */
std::size_t first_visible_block(const kernels::KvFormat& format, int position);

/** What one more token costs over all layers when `length` are there: a layer
 * whose window is full costs nothing more. */
std::size_t bytes_per_token(
    std::span<const LayerFormat> layers,
    int length = 0);
/** What a sequence costs before its first token. */
std::size_t fixed_bytes(std::span<const LayerFormat> layers);
/** What a token that follows `length` others reads: K/V within the windows,
 * states. */
std::size_t read_bytes(std::span<const LayerFormat> layers, int length);
/** The most that a sequence holds at once while it grows to `n_tokens` by at
 * most `max_rows` at a time, in whole blocks. */
std::size_t sequence_bytes(
    std::span<const LayerFormat> layers,
    std::size_t n_tokens,
    std::size_t max_rows);
/** The same of one that takes them all at once. */
std::size_t sequence_bytes(
    std::span<const LayerFormat> layers,
    std::size_t n_tokens);

} // namespace optiq::cache
