#include <bit>
#include <functional>

#include "optiq/text/vocabulary_impl.h"

namespace optiq::text {

bool Vocabulary::add(std::string_view token, std::uint32_t id) {
  if (id >= entries_.size()) {
    entries_.resize(std::size_t{id} + 1);
  }
  Entry& entry = entries_[id];
  if (entry.size != kFree) {
    return false;
  }
  entry.begin = static_cast<std::uint32_t>(buffer_.size());
  entry.size = static_cast<std::uint32_t>(token.size());
  buffer_ += token;
  ++count_;
  return true;
}

/** Slot that holds the token's id, or the free one where it belongs. */
std::size_t Vocabulary::slot_of(std::string_view token) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = std::hash<std::string_view>{}(token)&mask;
  while (slots_[slot] != kFree && this->token(slots_[slot]) != token) {
    slot = (slot + 1) & mask;
  }
  return slot;
}

std::optional<std::string> Vocabulary::index() {
  slots_.assign(std::bit_ceil(2 * count_ + 1), kFree);
  for (std::uint32_t id = 0; id < id_limit(); ++id) {
    const auto text = token(id);
    if (!text) {
      continue;
    }
    std::uint32_t& slot = slots_[slot_of(*text)];
    if (slot != kFree) {
      return std::string(*text);
    }
    slot = id;
  }
  return std::nullopt;
}

std::optional<std::uint32_t> Vocabulary::find(std::string_view token) const {
  const std::uint32_t id = slots_[slot_of(token)];
  return id == kFree ? std::nullopt : std::optional(id);
}

std::optional<std::string_view> Vocabulary::token(std::uint32_t id) const {
  if (id >= entries_.size() || entries_[id].size == kFree) {
    return std::nullopt;
  }
  return std::string_view(buffer_).substr(
      entries_[id].begin, entries_[id].size);
}

} // namespace optiq::text
