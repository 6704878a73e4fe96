#include "optiq/server/openai/logprobs.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace optiq::server::openai {
namespace {

using artifacts::Json;
using generate::AnswerToken;
using generate::ScoredToken;

/** JSON has no infinity; OpenAI writes this for what is next to impossible. */
constexpr double kImpossible = -9999.0;

/** A float as the double of the same value: it is read back bit by bit. */
Json logprob(float value) {
  return std::isfinite(value) ? Json(static_cast<double>(value))
                              : Json(kImpossible);
}

/** The token's text; bytes that are no UTF-8 become U+FFFD. */
std::string text_of(const std::string& bytes) {
  const std::string quoted =
      Json(bytes).dump(-1, ' ', false, Json::error_handler_t::replace);
  return Json::parse(quoted).get<std::string>();
}

Json scored(std::int32_t id, float value, const text::Tokenizer& tokenizer) {
  const std::string bytes = tokenizer.token_bytes(id);
  Json list = Json::array();
  for (const char c : bytes) {
    list.push_back(static_cast<unsigned char>(c));
  }
  return {
      {"token", text_of(bytes)},
      {"logprob", logprob(value)},
      {"bytes", std::move(list)}};
}

} // namespace

Json chat_logprobs(
    std::span<const AnswerToken> tokens,
    const text::Tokenizer& tokenizer) {
  Json content = Json::array();
  for (const AnswerToken& token : tokens) {
    Json entry = scored(token.id, token.logprob.value_or(0), tokenizer);
    Json top = Json::array();
    for (const ScoredToken& other : token.top) {
      top.push_back(scored(other.id, other.logprob, tokenizer));
    }
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json text_logprobs(
    std::span<const AnswerToken> tokens,
    const text::Tokenizer& tokenizer,
    std::size_t& offset) {
  Json texts = Json::array();
  Json values = Json::array();
  Json tops = Json::array();
  Json offsets = Json::array();
  for (const AnswerToken& token : tokens) {
    const std::string text = text_of(tokenizer.token_bytes(token.id));
    Json top = Json::object();
    for (const ScoredToken& other : token.top) {
      // Tokens of the same text share a name; the more probable one has it.
      const std::string name = text_of(tokenizer.token_bytes(other.id));
      if (!top.contains(name)) {
        top[name] = logprob(other.logprob);
      }
    }
    offsets.push_back(offset);
    offset += count_characters(text);
    texts.push_back(text);
    values.push_back(logprob(token.logprob.value_or(0)));
    tops.push_back(std::move(top));
  }
  return {
      {"tokens", std::move(texts)},
      {"token_logprobs", std::move(values)},
      {"top_logprobs", std::move(tops)},
      {"text_offset", std::move(offsets)}};
}

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
      }));
}

} // namespace optiq::server::openai
