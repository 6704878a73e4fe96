#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "support/scripted_model.h"
#include "text/tokenizer_json_for_tests.h"

#include "optiq/server/service.h"

namespace optiq::testing {

/**
 * A model to serve without weights. Tokens are bytes, and four special ones.
 * Which token follows says the last one alone:
 *
 *   ':' -> "abc...z\u00e9", then the end    '#' -> "<more>" without end
 *   '?' -> "<think>AB</think>", then as ':'      '!' -> the forward fails
 */
inline constexpr std::int32_t kOpenThink = 256;
inline constexpr std::int32_t kCloseThink = 257;
inline constexpr std::int32_t kEnd = 258;
inline constexpr std::int32_t kForever = 259;
inline constexpr const char* kScriptedAnswer =
    "abcdefghijklmnopqrstuvwxyz\u00e9";

inline std::int32_t scripted_next(std::int32_t token, int /*position*/) {
  if (token >= 'a' && token < 'z') {
    return token + 1;
  }
  switch (token) {
    case ':':
    case kCloseThink:
      return 'a';
    case 'z':
      return 0xc3;
    case 0xc3:
      return 0xa9;
    case '?':
      return kOpenThink;
    case kOpenThink:
      return 'A';
    case 'A':
      return 'B';
    case 'B':
      return kCloseThink;
    case '#':
    case kForever:
      return kForever;
    case '!':
      fail(ErrorKind::Internal, "[script] a forward that fails");
    default:
      return kEnd;
  }
}

inline std::shared_ptr<const text::Tokenizer> scripted_tokenizer() {
  auto json = text::byte_level_json({});
  for (const auto& [id, content] :
       {std::pair{kOpenThink, "<think>"},
        std::pair{kCloseThink, "</think>"},
        std::pair{kEnd, "<|end|>"},
        std::pair{kForever, "<more>"}}) {
    json["added_tokens"].push_back(text::added_token(
        id,
        content,
        id == kForever ? std::vector<std::string>{}
                       : std::vector<std::string>{"special"}));
  }
  return text::Tokenizer::parse(json.dump(), "scripted");
}

/** Prompts are the contents of the messages, one after the other. */
inline constexpr const char* kScriptedTemplate =
    "{% for m in messages %}{{ m.content }}{% endfor %}{{ suffix }}";

struct ScriptedOptions {
  int max_positions = 100'000;
  bool fails = true; // at '!', which else ends the answer
  std::chrono::microseconds step_time{0}; // of one forward, whatever is in it
};

inline server::ServedModel scripted_served(
    const ScriptedOptions& options = {}) {
  const auto next = [fails = options.fails](std::int32_t token, int position) {
    return token == '!' && !fails ? kEnd : scripted_next(token, position);
  };
  const auto take_time = [step_time = options.step_time] {
    if (step_time.count() > 0) {
      std::this_thread::sleep_for(step_time);
    }
  };
  return {
      .id = "scripted",
      .setup =
          {std::make_shared<ScriptedModel>(
               260, options.max_positions, next, take_time),
           kernels::Compute::Fast},
      .tokenizer = scripted_tokenizer(),
      .chat_template = text::ChatTemplate::parse(kScriptedTemplate, "scripted"),
      .stop_ids = {kEnd},
      .description = artifacts::Json::object()};
}

} // namespace optiq::testing
