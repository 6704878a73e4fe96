#include "optiq/server/openai/chat_request.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/refused_field.h"

#include "optiq/server/openai/messages.h"

namespace optiq::server::openai {
namespace {

using artifacts::Json;

Json body_with(const std::string& field, const Json& value) {
  Json body{{"messages", Json::array({{{"role", "user"}, {"content", "Hi"}}})}};
  if (!field.empty()) {
    body[field] = value;
  }
  return body;
}

ChatRequest read(const std::string& field, const Json& value) {
  return read_chat_request(body_with(field, value));
}

/** What each field takes at the ends of its range, and what lies beyond. */
struct Range {
  const char* field;
  std::vector<Json> taken;
  std::vector<Json> refused;
};

const std::vector<Range> kRanges{
    {"temperature", {0, 2, 0.7}, {-0.01, 2.01, "1", true, Json::array()}},
    {"top_p", {0.001, 1}, {0, 1.01, -1, "1"}},
    {"top_k", {0, 1, 2147483647}, {-1, 2147483648, 1.5, "1"}},
    {"min_p", {0, 0.999}, {1, -0.01}},
    {"typical_p", {0.001, 1}, {0, 1.01}},
    {"repetition_penalty", {0.001, 10}, {0, 10.1, -1}},
    {"presence_penalty", {-2, 2}, {-2.01, 2.01}},
    {"frequency_penalty", {-2, 2}, {-2.01, 2.01}},
    {"n", {1, 128}, {0, 129, -1, 1.5, "2"}},
    {"max_tokens", {1, 2147483647}, {0, -1, 2147483648, 1.5, "5"}},
    {"max_completion_tokens", {1}, {0, -5}},
    {"seed",
     {std::numeric_limits<std::int64_t>::min(),
      std::numeric_limits<std::int64_t>::max(),
      0},
     {1.5, "1", std::numeric_limits<std::uint64_t>::max()}},
    {"stop",
     {"x", Json::array(), Json::array({"x", "y"})},
     {"", Json::array({""}), 1, Json(std::vector<std::string>(17, "x"))}},
    {"stream", {true, false}, {"true", 1}},
    {"logprobs", {true, false}, {1, "true"}},
    {"logit_bias",
     {Json::object(), {{"0", -100}, {"7", 100}}},
     {{{"0", 101}}, {{"0", "1"}}, {{"x", 1}}, {{"-1", 1}}, {{"1.5", 1}}, 3}},
    {"model", {"m"}, {1, Json::array()}},
    {"tools", {Json::array()}, {Json::array({{{"type", "function"}}}), 1}},
    {"tool_choice", {"auto", "none"}, {"required", Json::object()}},
    {"response_format",
     {{{"type", "text"}}},
     {{{"type", "json_object"}}, {{"type", "json_schema"}}}},
    {"modalities", {Json::array({"text"})}, {Json::array({"text", "audio"})}},
    {"adapter", {"", "base", "a", "a*0.5+b"}, {1, Json::array()}},
    {"adapters",
     {"a*0.5+b",
      Json::array(),
      Json::array({{{"id", "a"}, {"weight", 0.5}}, {{"id", "team/b"}}})},
     {1,
      Json::array({"a"}),
      Json::array({Json::object()}),
      Json::array({{{"id", "a+b"}}}),
      Json::array({{{"id", "base"}}}),
      Json::array({{{"id", "a"}, {"weight", 101}}}),
      Json(std::vector<Json>(9, Json{{"id", "a"}}))}},
    {"chat_template_kwargs", {{{"enable_thinking", false}}}, {"x", 1}},
    {"reasoning_effort", {"none", "high"}, {"huge", 1}},
    {"user", {"somebody"}, {1}},
    {"kv_cache",
     {{{"bits", 4}},
      {{"bits", "4,2"}, {"method", "turbo"}, {"rotation", "orthogonal"}},
      {{"key_bits", 8}, {"group_size", 32}},
      {{"method", "dense"}}},
     {Json::object(),
      {{"bits", 9}},
      {{"bits", "four"}},
      {{"bits", "4,"}},
      {{"bits", 4}, {"method", "dense"}},
      {{"bits", 4}, {"method", "other"}},
      {{"bits", 4}, {"group_size", 48}},
      {{"bits", 4}, {"seed", -1}},
      4}},
};

TEST(ChatRequest, TakesEveryFieldUpToItsEnds) {
  for (const Range& range : kRanges) {
    for (const Json& value : range.taken) {
      EXPECT_NO_THROW(read(range.field, value)) << range.field << " " << value;
    }
    EXPECT_NO_THROW(read(range.field, nullptr)) << range.field;
  }
}

TEST(ChatRequest, RefusesWhatIsBeyondAndNamesTheField) {
  for (const Range& range : kRanges) {
    for (const Json& value : range.refused) {
      const ApiError error =
          testing::refusal_of([&] { read(range.field, value); });
      EXPECT_EQ(error.status, 400);
      EXPECT_EQ(error.param.rfind(range.field, 0), 0u)
          << range.field << " " << value << ": " << error.param;
      EXPECT_NE(error.message.find(range.field), std::string::npos)
          << error.message;
    }
  }
}

TEST(ChatRequest, ReadsWhatWasSent) {
  const ChatRequest request = read_chat_request(Json::parse(R"({
    "messages": [{"role": "user", "content": "Hi"}],
    "temperature": 0.25, "top_k": 7, "seed": -3, "n": 2, "stop": "x",
    "max_tokens": 5, "max_completion_tokens": 6, "stream": true,
    "stream_options": {"include_usage": true}, "logprobs": true,
    "top_logprobs": 20, "logit_bias": {"7": 1.5},
    "kv_cache": {"bits": "4,2", "method": "turbo", "seed": 9}})"));
  const AnswerFields& answer = request.answer;
  EXPECT_EQ(answer.sampling.temperature, 0.25f);
  EXPECT_EQ(answer.sampling.top_k, 7);
  EXPECT_EQ(answer.sampling.seed, -3);
  EXPECT_FALSE(answer.sampling.top_p);
  EXPECT_EQ(answer.sampling.logit_bias.at(7), 1.5f);
  EXPECT_EQ(answer.n, 2);
  EXPECT_EQ(answer.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(answer.max_tokens, 5);
  EXPECT_EQ(answer.max_completion_tokens, 6);
  EXPECT_TRUE(answer.stream && answer.include_usage && request.logprobs);
  EXPECT_EQ(request.top_logprobs, 20);
  const artifacts::KvCodec codec{
      .method = artifacts::KvMethod::Turbo,
      .key_bits = 4,
      .value_bits = 2,
      .seed = 9};
  EXPECT_EQ(answer.kv_cache, codec);
}

TEST(ChatRequest, ReadsAdaptersAsASelection) {
  const auto selection = [](const char* field, const Json& value) {
    return read(field, value).answer.adapter;
  };
  EXPECT_EQ(selection("adapter", nullptr), std::nullopt);
  EXPECT_EQ(selection("adapter", "a*0.5+b"), "a*0.5+b");
  EXPECT_EQ(selection("adapters", "a+b"), "a+b");
  EXPECT_EQ(selection("adapters", Json::array()), "");
  EXPECT_EQ(
      selection(
          "adapters",
          Json::array(
              {{{"id", "team/a"}, {"weight", -0.25}},
               {{"id", "b"}, {"weight", 1e-7}},
               {{"id", "c"}, {"weight", nullptr}}})),
      "team/a*-0.25+b*1e-07+c");
  testing::expect_refused("adapters", "invalid_value", "both adapter", [] {
    read_chat_request(Json::parse(R"({
      "messages": [{"role": "user", "content": "Hi"}],
      "adapter": "a", "adapters": "b"})"));
  });
}

TEST(ChatRequest, RefusesFieldsThatContradict) {
  testing::expect_refused("top_logprobs", "invalid_value", "logprobs", [] {
    read("top_logprobs", 3);
  });
  testing::expect_refused("stream_options", "invalid_value", "stream", [] {
    read("stream_options", Json::object());
  });
}

TEST(ChatRequest, RefusesMessagesThatAreNone) {
  const auto refused = [](const Json& messages, const std::string& param) {
    const ApiError error = testing::refusal_of([&] {
      read_chat_request({{"messages", messages}});
    });
    EXPECT_EQ(error.param, param) << error.message;
  };
  refused(nullptr, "messages");
  refused(Json::array(), "messages");
  refused("Hi", "messages");
  refused(Json::array({"Hi"}), "messages[0]");
  refused(Json::array({{{"content", "Hi"}}}), "messages[0].role");
  refused(Json::array({{{"role", "robot"}}}), "messages[0].role");
  refused(
      Json::array({{{"role", "user"}, {"content", 1}}}), "messages[0].content");
  refused(
      Json::parse(
          R"([{"role": "user", "content": [{"type": "image_url", "text": ""}]}])"),
      "messages[0].content[0].type");
  refused(
      Json::parse(R"([{"role": "assistant", "tool_calls": [{"id": "1"}]}])"),
      "messages[0].tool_calls");
}

TEST(ChatRequest, GivesTemplatesTheMessagesThatTheyKnow) {
  const Json messages = Json::parse(R"([
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "name": "Anna",
     "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "content": null, "reasoning": "hm", "extra": 1}])");
  check({{"messages", messages}}, schema_of(chat_fields()), "test");
  EXPECT_EQ(template_messages(messages), Json::parse(R"([
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "ab", "name": "Anna"},
    {"role": "assistant", "content": "", "reasoning_content": "hm"}])"));
}

} // namespace
} // namespace optiq::server::openai
