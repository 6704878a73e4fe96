#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "optiq/generate/logits_processors.h"
#include "optiq/generate/sampler.h"
#include "optiq/io/model_directory.h"

namespace optiq::generate {

/** How a model wants to be run: its generation_config.json. */
struct GenerationConfig {
  SamplerOptions sampler; // greedy unless the file says do_sample
  LogitsOptions logits;
  std::optional<int> max_new_tokens;
  std::optional<int> max_length; // of prompt and answer
  std::vector<std::string> stop_strings;
  /** One sentence for each value that is left out although it would change
   * what is drawn. */
  std::vector<std::string> notices;

  /** The length of an answer that nobody chose: max_new_tokens, else what
   * max_length leaves, else 256. Throws InvalidInput for a prompt to which
   * max_length leaves nothing. */
  int default_max_tokens(std::size_t n_prompt) const;
};

/**
 * Reads generation_config.json as transformers 5 does. Throws Corrupt for a
 * value of another type, InvalidInput for one out of range, Unsupported for one
 * that changes even greedy answers and is not implemented.
 */
GenerationConfig read_generation_config(const io::ModelDirectory& directory);

/** What is done with a key of generation_config.json. */
enum class KeyEffect {
  Honoured,
  Inert, // does not choose tokens of an answer of its own: nothing to do
  Noticed, // changes what is drawn; left out with a notice
  Refused, // changes greedy answers; an error unless it is neutral
};

struct GenerationKey {
  const char* name;
  KeyEffect effect;
};

/** Every key that transformers 5 knows, and what is done with it. A key that is
 * not listed does nothing there either. */
std::vector<GenerationKey> generation_keys();

} // namespace optiq::generate
