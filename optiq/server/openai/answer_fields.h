#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/kv_codec.h"
#include "optiq/generate/sampling_choice.h"
#include "optiq/server/fields.h"

namespace optiq::server::openai {

/** How the tokens of an answer are chosen; what is absent is as the model's own
 * defaults. */
struct SamplingFields : generate::SamplingChoice {
  std::map<std::int32_t, float> logit_bias;
  std::optional<std::int64_t> seed;
};

/** What chat completions and completions have in common. */
struct AnswerFields {
  std::optional<std::string> model;
  bool stream = false;
  bool has_stream_options = false;
  bool include_usage = false;
  int n = 1;
  std::vector<std::string> stop;
  std::optional<int> max_tokens;
  std::optional<int> max_completion_tokens;
  SamplingFields sampling;
  /** None: as the server was started. */
  std::optional<artifacts::KvCodec> kv_cache;
  /** A selection of adapters, as adapters::AdapterSet::find takes it. */
  std::optional<std::string> adapter;
  const char* adapter_field = nullptr; // that it was in
};

/** The most choices of an answer. */
inline constexpr int kMaxChoices = 128;
/** The most adapters that run together in one. */
inline constexpr std::size_t kMaxAdapters = 8;

Fields<AnswerFields> answer_fields();

/** Fields of OpenAI's that say nothing about the answer's tokens: they are
 * taken and have no effect. */
std::vector<Member> inert_members();

/** Throws a RequestError for fields that contradict each other. */
void check_answer_fields(const AnswerFields& fields, const std::string& where);

} // namespace optiq::server::openai
