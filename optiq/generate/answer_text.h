#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/text/reasoning.h"
#include "optiq/text/tokenizer.h"

namespace optiq::generate {

struct AnswerTextOptions {
  /** End the answer where one of them is complete first; of several that end
   * at the same character the longest. They see special tokens and markers,
   * too. Valid UTF-8, none empty. */
  std::vector<std::string> stop_strings;
  /** The answer ends after the stop string (transformers), not before it
   * (OpenAI). */
  bool keep_stop_string = false;
  std::optional<text::ReasoningMarkers> reasoning;
  bool starts_in_reasoning = false; // opens_reasoning(prompt)
};

/**
 * The text of an answer, given out as it becomes certain: whole characters,
 * nothing of a stop string or a marker before it is known not to be one.
 * Special tokens are no text. How the tokens cut the text changes nothing of
 * the whole.
 *
 * Reasoning is what stands between the markers. It may begin the answer, white
 * space aside; later on only a marker that begins with a special token opens
 * it. Newlines after the opening marker and around the closing one belong to
 * none of both parts, as Qwen's templates cut a turn, so that a turn given back
 * renders to what the model wrote.
 */
class AnswerText {
 public:
  /** Throws InvalidInput for a stop string that is empty or no UTF-8, and for
   * an answer that starts in reasoning without markers. */
  AnswerText(
      std::shared_ptr<const text::Tokenizer> tokenizer,
      AnswerTextOptions options);
  ~AnswerText();
  AnswerText(AnswerText&&) noexcept;
  AnswerText& operator=(AnswerText&&) noexcept;

  struct Piece {
    std::string content;
    std::string reasoning;
    bool stopped = false; // by a stop string; what follows is no text
    std::string stop_string; // the one
  };
  /** What became certain with this token; nothing after the end. */
  Piece push(std::int32_t token);
  /** The rest, where the answer ends without a stop string. */
  Piece finish();
  /** How many of the tokens were reasoning: from the one that opens it to the
   * one that closes it. */
  int reasoning_tokens() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace optiq::generate
