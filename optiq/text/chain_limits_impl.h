#pragma once

#include <cstddef>
#include <string_view>

#include "optiq/text/json_fields_impl.h"

namespace optiq::text {

/**
 * Bounds what a chain of steps (normalizer, pre-tokenizer, decoder) may cost,
 * while it is read: a file of a few kilobytes could ask for a million steps, or
 * for so many doublings that one letter exceeds any memory.
 */
class ChainLimits {
 public:
  /** One more step; refuses the field that is too much. */
  void add_step(const JsonField& field);
  /** The last step replaces `pattern` (not empty). */
  void add_replacement(
      std::string_view pattern,
      std::string_view content,
      const JsonField& field);

 private:
  std::size_t steps_ = 0;
  double growth_ = 1; // how many times as long a text can become
};

} // namespace optiq::text
