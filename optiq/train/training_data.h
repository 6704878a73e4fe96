#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "optiq/text/chat_template.h"
#include "optiq/text/tokenizer.h"
#include "optiq/train/backpropagation.h"

/**
 * Texts to train on, JSONL, one object a line (blank lines are skipped):
 *   {"messages": [{"role": str, "content": str, ...}...], "tools": [...]?}
 *   {"prompt": str, "completion": str}
 *   {"text": str}
 * Messages, and prompt and completion as a user's and an assistant's, go
 * through the model's chat template.
 */
namespace optiq::train {

/** Which tokens are to be learned. */
enum class LearnedPart {
  LastAnswer, // what the assistant says last
  AllAnswers, // and in every turn before
  Everything, // prompts too
};

/** What turns lines into tokens, of one model. */
struct TrainingEncoder {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::optional<text::ChatTemplate> chat; // none: only texts can be read
  std::optional<std::int32_t> end_of_text; // behind a text
};

struct TrainingDataOptions {
  LearnedPart learned = LearnedPart::AllAnswers;
  int max_tokens = 2048; // of an example; what is longer is cut
};

/** The lines of a file. */
struct ExampleSet {
  std::vector<Example> examples;
  std::size_t n_cut = 0; // of them were longer than max_tokens
};

/**
 * Every line of a file as an example, each learned token of weight 1: of an
 * answer its tokens up to the last special one (the end of the turn), which is
 * learned too, and nothing behind it. Prompts and answers are encoded apart, as
 * they are when an answer is generated. A text is learned whole, its end of
 * text included.
 *
 * Throws InvalidInput, naming file and line, for a line that is none of these,
 * in which nothing is to be learned, or whose conversation the template
 * rewrites as it grows; InvalidInput for a file without lines; Corrupt for
 * what is no JSON; NotFound, Denied, Io.
 */
ExampleSet load_examples(
    const std::filesystem::path& path,
    const TrainingEncoder& encoder,
    const TrainingDataOptions& options = {});

/** SHA-256 of tokens, labels and weights, in hexadecimal digits. */
std::string hash_of(std::span<const Example> examples);

} // namespace optiq::train
