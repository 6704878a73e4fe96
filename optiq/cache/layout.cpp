#include "optiq/cache/layout.h"

#include <algorithm>

namespace optiq::cache {
namespace {

std::size_t recurrent_bytes(const RecurrentFormat& format) {
  return (format.conv_floats + format.state_floats) * sizeof(float);
}

/** The most blocks that a layer holds at once, as sequence_bytes. */
std::size_t most_blocks(
    const kernels::KvFormat& format,
    std::size_t n_tokens,
    std::size_t max_rows) {
  const std::size_t all = blocks_for(n_tokens);
  if (format.window == 0) {
    return all;
  }
  // The window before a chunk and the chunk, the first block begun anywhere.
  return std::min(
      all,
      blocks_for(format.window - 1 + max_rows + kernels::kKvBlockTokens - 1));
}

} // namespace

bool is_same(const kernels::KvFormat& a, const kernels::KvFormat& b) {
  return a.dtype == b.dtype && a.n_kv_heads == b.n_kv_heads &&
      a.head_dim == b.head_dim && a.window == b.window && a.codec == b.codec &&
      a.compute == b.compute;
}

bool is_same(std::span<const LayerFormat> a, std::span<const LayerFormat> b) {
  return std::equal(
      a.begin(),
      a.end(),
      b.begin(),
      b.end(),
      [](const LayerFormat& x, const LayerFormat& y) {
        const auto* kv = std::get_if<kernels::KvFormat>(&x);
        const auto* other = std::get_if<kernels::KvFormat>(&y);
        if (kv != nullptr && other != nullptr) {
          return is_same(*kv, *other);
        }
        return x.index() == y.index() &&
            (std::get_if<RecurrentFormat>(&x) != nullptr
                 ? std::get<RecurrentFormat>(x) == std::get<RecurrentFormat>(y)
                 : std::get<SharedFormat>(x) == std::get<SharedFormat>(y));
      });
}

std::size_t blocks_for(std::size_t n_tokens) {
  return (n_tokens + kernels::kKvBlockTokens - 1) / kernels::kKvBlockTokens;
}

std::size_t piece_bytes(const LayerFormat& format) {
  if (const auto* kv = std::get_if<kernels::KvFormat>(&format)) {
    return kv->block_bytes();
  }
  const auto* recurrent = std::get_if<RecurrentFormat>(&format);
  return recurrent != nullptr ? recurrent_bytes(*recurrent) : 0;
}

std::size_t block_bytes(std::span<const LayerFormat> layers) {
  std::size_t bytes = 0;
  for (const LayerFormat& layer : layers) {
    if (const auto* kv = std::get_if<kernels::KvFormat>(&layer)) {
      bytes += kv->block_bytes();
    }
  }
  return bytes;
}

std::size_t first_visible_block(const kernels::KvFormat& format, int position) {
  const int hidden =
      format.window == 0 ? 0 : std::max(0, position - format.window + 1);
  return static_cast<std::size_t>(hidden) / kernels::kKvBlockTokens;
}

std::size_t bytes_per_token(std::span<const LayerFormat> layers, int length) {
  std::size_t bytes = 0;
  for (const LayerFormat& layer : layers) {
    const auto* kv = std::get_if<kernels::KvFormat>(&layer);
    if (kv != nullptr && (kv->window == 0 || length < kv->window)) {
      bytes += kv->block_bytes() / kernels::kKvBlockTokens;
    }
  }
  return bytes;
}

std::size_t fixed_bytes(std::span<const LayerFormat> layers) {
  std::size_t bytes = 0;
  for (const LayerFormat& layer : layers) {
    if (const auto* recurrent = std::get_if<RecurrentFormat>(&layer)) {
      bytes += recurrent_bytes(*recurrent);
    }
  }
  return bytes;
}

std::size_t read_bytes(std::span<const LayerFormat> layers, int length) {
  std::size_t bytes = fixed_bytes(layers);
  for (const LayerFormat& layer : layers) {
    if (const auto* kv = std::get_if<kernels::KvFormat>(&layer)) {
      const int seen =
          kv->window == 0 ? length : std::min(length, kv->window - 1);
      bytes += kv->block_bytes() / kernels::kKvBlockTokens *
          static_cast<std::size_t>(seen);
    }
  }
  return bytes;
}

std::size_t sequence_bytes(
    std::span<const LayerFormat> layers,
    std::size_t n_tokens,
    std::size_t max_rows) {
  std::size_t bytes = fixed_bytes(layers);
  for (const LayerFormat& layer : layers) {
    if (const auto* kv = std::get_if<kernels::KvFormat>(&layer)) {
      bytes += kv->block_bytes() * most_blocks(*kv, n_tokens, max_rows);
    }
  }
  return bytes;
}

std::size_t sequence_bytes(
    std::span<const LayerFormat> layers,
    std::size_t n_tokens) {
  return sequence_bytes(layers, n_tokens, n_tokens);
}

} // namespace optiq::cache
