#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace optiq::text {

/** Ids a vocabulary may have; the largest published one has 262144. */
constexpr std::uint32_t kMaxTokens = 4u << 20;

/** Strings by id and ids by string: one buffer, one table of ids. */
class Vocabulary {
 public:
  /** False when the id is taken. `id` < kMaxTokens. */
  bool add(std::string_view token, std::uint32_t id);
  /** Builds the index, after the last `add`; a token that has two ids, if
   * there is one. */
  std::optional<std::string> index();

  std::optional<std::uint32_t> find(std::string_view token) const;
  /** Absent for ids that are free. */
  std::optional<std::string_view> token(std::uint32_t id) const;
  std::size_t count() const {
    return count_;
  }
  /** Largest id + 1. */
  std::uint32_t id_limit() const {
    return static_cast<std::uint32_t>(entries_.size());
  }

 private:
  static constexpr std::uint32_t kFree = ~0u;
  struct Entry {
    std::uint32_t begin = 0;
    std::uint32_t size = kFree;
  };
  std::size_t slot_of(std::string_view token) const;

  std::string buffer_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> slots_; // open addressing, a power of two
  std::size_t count_ = 0;
};

} // namespace optiq::text
