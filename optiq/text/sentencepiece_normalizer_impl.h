#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "optiq/text/charsmap_impl.h"
#include "optiq/text/prefix_trie_impl.h"

namespace optiq::text {

/** U+2581, which stands for a space in pieces. */
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

/** The normalizer of a SentencePiece model. */
struct SentencePieceNormalizer {
  enum class DummySpace {
    None,
    FirstPart, // of a text that added tokens cut
    EveryPart,
  };

  std::optional<CharsMap> charsmap;
  std::optional<PrefixTrie> user_defined; // are left as they are
  DummySpace dummy_space = DummySpace::FirstPart;
  bool dummy_space_behind = false; // treat_whitespace_as_suffix
  bool remove_extra_spaces = true; // at both ends, and of runs all but one
  bool mark_spaces = true; // escape_whitespaces

  /** `text` is valid UTF-8. `at_start`: it begins the whole input. */
  std::string apply(std::string_view text, bool at_start) const;

 private:
  std::string_view take(std::string_view& text) const;
};

} // namespace optiq::text
