#include "optiq/server/openai/completion_request.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/refused_field.h"

namespace optiq::server::openai {
namespace {

using artifacts::Json;
using Ids = std::vector<std::int32_t>;

std::vector<Prompt> prompts_of(const char* json) {
  return read_completion_request({{"prompt", Json::parse(json)}}).prompts;
}

TEST(CompletionRequest, ReadsPromptsOfEveryKind) {
  EXPECT_EQ(prompts_of(R"("Hi")"), std::vector<Prompt>{std::string("Hi")});
  EXPECT_EQ(prompts_of("[1, 2]"), (std::vector<Prompt>{Ids{1, 2}}));
  EXPECT_EQ(
      prompts_of(R"(["a", ""])"),
      (std::vector<Prompt>{std::string("a"), std::string()}));
  EXPECT_EQ(
      prompts_of("[[1], [2, 3]]"), (std::vector<Prompt>{Ids{1}, Ids{2, 3}}));
}

TEST(CompletionRequest, RefusesPromptsThatAreNone) {
  for (const char* json :
       {"null",
        "1",
        "[]",
        "[[]]",
        R"(["a", 1])",
        R"([1, "a"])",
        "[-1]",
        "[1.5]",
        "[2147483648]",
        R"({"a": 1})"}) {
    testing::expect_refused(
        "prompt",
        std::string(json) == "null"            ? "missing_required_parameter"
            : json[0] == '1' || json[0] == '{' ? "invalid_type"
                                               : "invalid_value",
        "prompt",
        [&] { prompts_of(json); });
  }
}

TEST(CompletionRequest, RefusesWhatIsNotSupportedYet) {
  const auto refused = [](const char* json, const char* param) {
    testing::expect_refused(
        param, "unsupported_parameter", "not supported yet", [&] {
          read_completion_request(Json::parse(json));
        });
  };
  refused(R"({"prompt": "a", "suffix": "b"})", "suffix");
  refused(R"({"prompt": "a", "best_of": 2})", "best_of");
  refused(R"({"prompt": "a", "echo": true, "logprobs": 0})", "echo");
  const auto request = read_completion_request(
      Json::parse(R"({"prompt": "a", "best_of": 2, "n": 2, "suffix": ""})"));
  EXPECT_EQ(request.answer.n, 2);
}

TEST(CompletionRequest, TakesLogprobsUpTo20) {
  for (const int n : {0, 20}) {
    EXPECT_EQ(
        read_completion_request({{"prompt", "a"}, {"logprobs", n}}).logprobs,
        n);
  }
  for (const Json& n : {Json(21), Json(-1), Json(true)}) {
    EXPECT_EQ(
        testing::refusal_of([&] {
          read_completion_request({{"prompt", "a"}, {"logprobs", n}});
        }).param,
        "logprobs");
  }
}

} // namespace
} // namespace optiq::server::openai
