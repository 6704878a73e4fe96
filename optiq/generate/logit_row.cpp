#include "optiq/generate/logit_row.h"

#include <algorithm>

namespace optiq::generate {

using kernels::kLogitBlock;

LogitRow::LogitRow(std::size_t n)
    : n_(n), blocks_(kernels::count_logit_blocks(n)) {}

LogitRow::LogitRow(std::span<const float> logits) : LogitRow(logits.size()) {
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    blocks_[b] = logits.data() + b * kLogitBlock;
  }
}

float& LogitRow::change(std::int32_t id) {
  if (copy_of_block_.empty()) {
    copy_of_block_.assign(blocks_.size(), kNotCopied);
  }
  const auto i = static_cast<std::size_t>(id);
  const std::size_t b = i / kLogitBlock;
  std::int32_t& copy = copy_of_block_[b];
  if (copy == kNotCopied) {
    copy = static_cast<std::int32_t>(copies_.size());
    Block& made = copies_.emplace_back();
    std::ranges::copy(block(b), made.begin());
    blocks_[b] = made.data();
  }
  return copies_[static_cast<std::size_t>(copy)][i % kLogitBlock];
}

void LogitRow::fill(float value) {
  copies_.clear();
  copy_of_block_.assign(blocks_.size(), kNotCopied);
  copies_.emplace_back().fill(value);
  std::ranges::fill(blocks_, copies_.front().data());
}

} // namespace optiq::generate
