#include "optiq/text/reasoning.h"

#include <algorithm>
#include <array>

namespace optiq::text {
namespace {

/** A pair of markers and the token with which the opening one begins. */
struct KnownMarkers {
  const char* open;
  const char* close;
  const char* first_token;
};

constexpr std::array kKnown{
    // Qwen 3 and 3.5, SmolLM3, DeepSeek R1
    KnownMarkers{"<think>", "</think>", "<think>"},
    KnownMarkers{"<|channel>thought", "<channel|>", "<|channel>"}, // Gemma 4
    KnownMarkers{"[THINK]", "[/THINK]", "[THINK]"}, // Ministral 3
    // Command A
    KnownMarkers{
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_THINKING|>"},
};

constexpr std::string_view kWhiteSpace = " \t\r\n";

} // namespace

std::optional<ReasoningMarkers> find_reasoning_markers(
    const ChatTemplate& chat_template,
    const Tokenizer& tokenizer) {
  const auto markers_where =
      [](const auto& is_wanted) -> std::optional<ReasoningMarkers> {
    const auto found = std::find_if(kKnown.begin(), kKnown.end(), is_wanted);
    if (found == kKnown.end()) {
      return std::nullopt;
    }
    return ReasoningMarkers{found->open, found->close};
  };
  if (auto written = markers_where([&](const KnownMarkers& known) {
        return chat_template.mentions(known.close);
      })) {
    return written;
  }
  return markers_where([&](const KnownMarkers& known) {
    return tokenizer.token_to_id(known.first_token) &&
        tokenizer.token_to_id(known.close);
  });
}

bool opens_reasoning(
    std::string_view rendered_prompt,
    const ReasoningMarkers& markers) {
  const auto last = rendered_prompt.find_last_not_of(kWhiteSpace);
  return last != std::string_view::npos &&
      rendered_prompt.substr(0, last + 1).ends_with(markers.open);
}

} // namespace optiq::text
