#pragma once

#include <cstddef>
#include <string_view>

namespace optiq {

/** What untrusted, non-empty bytes begin with. */
struct Utf8Step {
  enum class Kind { Character, Invalid, Incomplete } kind;
  std::size_t length; // of the character, or of what one U+FFFD replaces
};

Utf8Step step_utf8(std::string_view bytes);

} // namespace optiq
