#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "optiq/text/chat_template.h"
#include "optiq/text/tokenizer.h"

namespace optiq::text {

/** What a model writes around the reasoning that comes before its answer. */
struct ReasoningMarkers {
  std::string open; // "<think>"
  std::string close; // "</think>"

  bool operator==(const ReasoningMarkers&) const = default;
};

/** The known pair of which the template has the closing marker, or both are
 * tokens of the vocabulary; nothing for a model that does not reason. */
std::optional<ReasoningMarkers> find_reasoning_markers(
    const ChatTemplate& chat_template,
    const Tokenizer& tokenizer);

/** Whether an answer to this prompt begins as reasoning: the prompt ends with
 * the opening marker, white space aside. One that a message of the
 * conversation mentions does not count. */
bool opens_reasoning(
    std::string_view rendered_prompt,
    const ReasoningMarkers& markers);

} // namespace optiq::text
