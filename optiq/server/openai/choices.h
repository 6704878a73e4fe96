#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/server/job.h"
#include "optiq/server/kv_layouts.h"
#include "optiq/server/openai/answer_fields.h"
#include "optiq/server/service.h"
#include "optiq/text/reasoning.h"

namespace optiq::server::openai {

/** A prompt as the model sees it. */
struct EncodedPrompt {
  std::vector<std::int32_t> ids;
  bool starts_in_reasoning = false;
};

/** What of an answer is not in its fields. */
struct ChoiceOptions {
  std::optional<int> top_logprobs;
  /** Where reasoning is told from the answer. */
  std::optional<text::ReasoningMarkers> reasoning;
  std::string tenant; // who asks
  std::shared_ptr<const nn::Adapter> adapter; // to run with, or none
  std::string prompt_field; // where the prompt is
};

/**
 * The choices of an answer, n for each prompt, prompt by prompt: the fields
 * over the model's own defaults. Throws a RequestError for ids that the model
 * lacks, Errors for a K/V format that it cannot have.
 */
std::vector<Choice> make_choices(
    const ServedModel& model,
    KvLayouts& layouts,
    const AnswerFields& fields,
    const std::vector<EncodedPrompt>& prompts,
    const ChoiceOptions& options);

} // namespace optiq::server::openai
