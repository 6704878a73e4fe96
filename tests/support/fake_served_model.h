#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "../text/tokenizer_json_for_tests.h"
#include "scripted_model.h"

#include "optiq/server/service.h"

namespace optiq::testing {

/** What a fake model says, and how fast. */
struct FakeModel {
  /** Bytes that all differ: behind each comes the next, behind the last one the
   * end, or the first again; behind any other byte the first. */
  std::string answer = "abcdefghijklmnopqrstuvwxyz0123456789 ";
  bool ends = false;
  int max_positions = 4096;
  std::chrono::microseconds step_time{0}; // of one forward, whatever is in it
};

/** Its vocabulary: the bytes, then these. */
inline constexpr std::int32_t kMessageStart = 256;
inline constexpr std::int32_t kMessageEnd = 257;
inline constexpr int kFakeVocabulary = 258;

inline constexpr const char* kFakeChatTemplate =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

inline std::shared_ptr<const models::Model> make_fake_model(
    const FakeModel& fake) {
  std::vector<std::int32_t> next(kFakeVocabulary, fake.answer.front());
  for (std::size_t i = 0; i + 1 < fake.answer.size(); ++i) {
    next[static_cast<unsigned char>(fake.answer[i])] =
        static_cast<unsigned char>(fake.answer[i + 1]);
  }
  if (fake.ends) {
    next[static_cast<unsigned char>(fake.answer.back())] = kMessageEnd;
  }
  return std::make_shared<ScriptedModel>(
      kFakeVocabulary,
      fake.max_positions,
      [next](std::int32_t token, int) {
        return next[static_cast<std::size_t>(token)];
      },
      [step_time = fake.step_time] {
        if (step_time.count() > 0) {
          std::this_thread::sleep_for(step_time);
        }
      });
}

inline std::shared_ptr<const text::Tokenizer> make_fake_tokenizer() {
  auto json = text::byte_level_json({});
  json["added_tokens"] = artifacts::Json::array(
      {text::added_token(kMessageStart, "<|im_start|>", {"special"}),
       text::added_token(kMessageEnd, "<|im_end|>", {"special"})});
  return text::Tokenizer::parse(json.dump(), "fake");
}

/** A model without weights, whose tokens are bytes, ready to be served. */
inline server::ServedModel make_fake_served_model(const FakeModel& fake = {}) {
  return {
      .id = "fake",
      .setup = models::Setup(make_fake_model(fake), kernels::Compute::Fast),
      .tokenizer = make_fake_tokenizer(),
      .chat_template = text::ChatTemplate::parse(kFakeChatTemplate, "fake"),
      .stop_ids = {kMessageEnd},
      .description = artifacts::Json::object()};
}

} // namespace optiq::testing
