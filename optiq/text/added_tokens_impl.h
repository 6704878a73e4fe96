#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace optiq::text {

/** An entry of `added_tokens`. */
struct AddedToken {
  std::uint32_t id = 0;
  std::string content;
  bool single_word = false; // only where no word character touches it
  bool lstrip = false; // takes the blanks before it
  bool rstrip = false; // takes the blanks after it
  bool normalized = false; // is looked for after normalization
  bool special = false; // skip_special_tokens drops it
};

/** A part of a text: an added token, or text between them. */
struct TextSection {
  std::string_view text; // empty for a token
  const AddedToken* token; // null: plain text
};

/** Finds added tokens: leftmost, longest, without overlap. */
class AddedTokenFinder {
 public:
  /** `pattern` is what to look for, not empty; `token` outlives the finder. The
   * later of two with one pattern counts. */
  void add(std::string_view pattern, const AddedToken& token);
  std::vector<TextSection> split(std::string_view text) const;

 private:
  struct Found {
    const AddedToken* token;
    std::size_t size;
  };
  Found longest_at(std::string_view text, std::size_t at) const;

  // A trie: edges by node << 8 | byte; node 0 is the root.
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;
  std::vector<const AddedToken*> token_at_{nullptr};
  std::array<bool, 256> starts_{}; // whether a pattern begins with the byte
};

} // namespace optiq::text
