#include "optiq/cache/sequence.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "optiq/base/error.h"

namespace optiq::cache {

Sequence::Sequence(
    std::shared_ptr<BlockPool> pool,
    std::vector<LayerFormat> layers)
    : pool_(std::move(pool)),
      layers_(std::move(layers)),
      tables_(layers_.size()) {
  grow(state_pieces());
}

Sequence::~Sequence() {
  shrink(std::vector<std::size_t>(layers_.size(), 0));
}

std::size_t Sequence::bytes() const {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    // Hidden blocks are a prefix.
    const auto& table = tables_[i];
    const auto held = std::find_if(table.begin(), table.end(), [](auto block) {
      return block != kernels::BlockId::None;
    });
    bytes +=
        static_cast<std::size_t>(table.end() - held) * piece_bytes(layers_[i]);
  }
  return bytes;
}

void Sequence::reserve(int n_tokens) {
  std::vector<std::size_t> pieces(layers_.size());
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    pieces[i] = std::holds_alternative<kernels::KvFormat>(layers_[i])
        ? std::max(
              tables_[i].size(),
              blocks_for(static_cast<std::size_t>(std::max(0, n_tokens))))
        : tables_[i].size();
  }
  grow(pieces);
}

void Sequence::commit(int n_tokens) {
  length_ += n_tokens;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const auto* kv = std::get_if<kernels::KvFormat>(&layers_[i]);
    if (kv == nullptr) {
      continue;
    }
    // Hidden blocks are a prefix; those before the last None went earlier.
    for (std::size_t b = first_visible_block(*kv, length_);
         b > 0 && tables_[i][b - 1] != kernels::BlockId::None;
         --b) {
      pool_->release(tables_[i][b - 1], piece_bytes(layers_[i]));
      tables_[i][b - 1] = kernels::BlockId::None;
    }
  }
}

bool Sequence::resume(
    int n_tokens,
    const std::vector<std::vector<kernels::BlockId>>& blocks,
    const Sequence* states) {
  assert(length_ == 0);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (!std::holds_alternative<kernels::KvFormat>(layers_[i])) {
      continue;
    }
    assert(tables_[i].empty());
    tables_[i] = blocks[i];
    for (const kernels::BlockId block : blocks[i]) {
      if (block != kernels::BlockId::None) {
        pool_->share(block);
      }
    }
  }
  if (n_tokens % kernels::kKvBlockTokens != 0) {
    if (!pool_->make_room(block_bytes(layers_))) {
      drop_kv();
      return false;
    }
    copy_last_blocks();
  }
  if (states != nullptr) {
    copy_states(*states);
  }
  length_ = n_tokens;
  return true;
}

void Sequence::copy_last_blocks() {
  try {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (std::holds_alternative<kernels::KvFormat>(layers_[i])) {
        const std::size_t bytes = piece_bytes(layers_[i]);
        const kernels::BlockId own = pool_->allocate(bytes);
        const kernels::BlockId last = std::exchange(tables_[i].back(), own);
        pool_->copy(own, last, bytes);
        pool_->release(last, bytes);
      }
    }
  } catch (...) {
    drop_kv(); // the system had less than the cap
    throw;
  }
}

void Sequence::drop_kv() {
  shrink(state_pieces());
}

void Sequence::copy_states(const Sequence& from) {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (std::holds_alternative<RecurrentFormat>(layers_[i])) {
      pool_->copy(
          tables_[i].front(), from.tables_[i].front(), piece_bytes(layers_[i]));
    }
  }
}

std::vector<std::size_t> Sequence::state_pieces() const {
  std::vector<std::size_t> pieces(layers_.size());
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    pieces[i] = std::holds_alternative<RecurrentFormat>(layers_[i]) ? 1 : 0;
  }
  return pieces;
}

void Sequence::grow(const std::vector<std::size_t>& pieces) {
  std::vector<std::size_t> before(layers_.size());
  std::size_t asked = 0;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    before[i] = tables_[i].size();
    asked += (pieces[i] - before[i]) * piece_bytes(layers_[i]);
  }
  if (!pool_->make_room(asked)) {
    fail(
        ErrorKind::Exhausted,
        "[Sequence::reserve] cache memory: found {} of {} bytes in use, "
        "expected room for {} more. Use a shorter context or fewer sequences, "
        "or raise the limit.",
        pool_->used_bytes(),
        pool_->max_bytes(),
        asked);
  }
  try {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      tables_[i].reserve(pieces[i]);
      while (tables_[i].size() < pieces[i]) {
        tables_[i].push_back(pool_->allocate(piece_bytes(layers_[i])));
      }
    }
  } catch (...) {
    // The system had less than the cap: give back what this call took.
    shrink(before);
    throw;
  }
}

void Sequence::shrink(const std::vector<std::size_t>& pieces) {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    while (tables_[i].size() > pieces[i]) {
      if (tables_[i].back() != kernels::BlockId::None) {
        pool_->release(tables_[i].back(), piece_bytes(layers_[i]));
      }
      tables_[i].pop_back();
    }
  }
}

} // namespace optiq::cache
