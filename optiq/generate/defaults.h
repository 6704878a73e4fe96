#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "optiq/generate/sampler.h"
#include "optiq/io/model_directory.h"
#include "optiq/text/chat_template.h"
#include "optiq/text/tokenizer.h"

namespace optiq::generate {

/** The model's tokenizer.json, else its tokenizer.model. Throws NotFound,
 * Corrupt, Unsupported. */
std::shared_ptr<const text::Tokenizer> load_tokenizer(
    const io::ModelDirectory& directory);

/** The model's chat template. Throws NotFound when it has none. */
text::ChatTemplate load_chat_template(const io::ModelDirectory& directory);

/** generation_config.json's sampling (temperature, top_p, top_k, min_p) when
 * it says do_sample, else greedy. */
SamplerOptions default_sampler(const io::ModelDirectory& directory);

/** Ids that end a completion: eos_token_id of generation_config.json, or of
 * config.json without one, and the tokenizer's own eos token. */
std::vector<std::int32_t> stop_ids(
    const io::ModelDirectory& directory,
    const text::Tokenizer& tokenizer);

} // namespace optiq::generate
