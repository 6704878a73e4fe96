#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/fake_reply.h"
#include "support/prometheus.h"
#include "support/served_tiny.h"

#include "optiq/generate/engine.h"
#include "optiq/server/service.h"

namespace optiq::server {
namespace {

using artifacts::Json;
using testing::FakeReply;
using testing::questions;
using testing::served_tiny;

constexpr int kTop = 3;

/** Formats of K/V: none is that of the server. */
const std::vector<Json> kFormats{
    nullptr,
    {{"bits", "8,4"}, {"group_size", 32}},
    {{"bits", 3.5}, {"method", "turbo"}}};

Json body_of(const std::string& question, const Json& kv_cache) {
  return {
      {"messages", Json::array({{{"role", "user"}, {"content", question}}})},
      {"seed", 7},
      {"temperature", 0.8},
      {"max_tokens", 12},
      {"logprobs", true},
      {"top_logprobs", kTop},
      {"kv_cache", kv_cache}};
}

std::shared_ptr<FakeReply>
post(Service& service, const Json& body, const std::string& key = "") {
  auto reply = std::make_shared<FakeReply>();
  service.handle(
      {.method = "POST",
       .path = "/v1/chat/completions",
       .headers = {{"x-api-key", key}},
       .body = body.dump()},
      reply);
  return reply;
}

testing::PrometheusPage metrics(Service& service) {
  auto reply = std::make_shared<FakeReply>();
  service.handle({.method = "GET", .path = "/metrics"}, reply);
  return testing::PrometheusPage(reply->wait_for_response().body);
}

/** What an engine of its own says, one request at a time. */
class Recorder final : public generate::RequestListener {
 public:
  bool on_token(const generate::AnswerToken& token) override {
    tokens.push_back(token);
    return true;
  }
  void on_end(const generate::Ending&) override {}

  std::vector<generate::AnswerToken> tokens;
};

artifacts::KvCodec codec_of(const Json& kv_cache) {
  return kv_cache.contains("method")
      ? artifacts::
            KvCodec{.method = artifacts::KvMethod::Turbo, .key_bits = 3.5, .value_bits = 3.5}
      : artifacts::KvCodec{
            .method = artifacts::KvMethod::Affine,
            .key_bits = 8,
            .value_bits = 4,
            .group_size = 32};
}

std::vector<generate::AnswerToken> answer_alone(
    const ServedModel& model,
    const std::string& question,
    const Json& kv_cache) {
  std::vector<artifacts::KvLayer> kv;
  if (!kv_cache.is_null()) {
    for (const int layer : models::kv_layers(*model.setup.model)) {
      kv.push_back({.layer_idx = layer, .codec = codec_of(kv_cache)});
    }
  }
  generate::Engine engine(
      {model.setup.model, model.setup.compute, kv}, {.max_running = 1});
  generate::SamplerOptions sampler = model.defaults.sampler;
  sampler.temperature = 0.8f;
  sampler.order = generate::FilterOrder::MlxLm;
  sampler.seed = 7;
  const auto recorder = std::make_shared<Recorder>();
  engine.submit(
      {.prompt = model.tokenizer->encode(
           model.chat_template->render_chat(
               Json::array({{{"role", "user"}, {"content", question}}}), true),
           false),
       .max_tokens = 12,
       .logits = model.defaults.logits,
       .sampler = sampler,
       .stop_ids = model.stop_ids,
       .top_logprobs = kTop,
       .listener = recorder});
  while (engine.step()) {
  }
  return recorder->tokens;
}

/** The floats that JSON carries are those of the engine, bit by bit. */
void expect_same_logprobs(
    const Json& answer,
    const std::vector<generate::AnswerToken>& tokens) {
  const Json& content = answer["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), tokens.size()) << answer;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_EQ(content[i]["logprob"].get<float>(), tokens[i].logprob.value());
    ASSERT_EQ(content[i]["top_logprobs"].size(), tokens[i].top.size());
    for (std::size_t k = 0; k < tokens[i].top.size(); ++k) {
      EXPECT_EQ(
          content[i]["top_logprobs"][k]["logprob"].get<float>(),
          tokens[i].top[k].logprob);
    }
  }
}

TEST(ServiceModel, ConcurrentAnswersEqualThoseAloneInEveryFormat) {
  const ServedModel model = served_tiny();
  Service service(model, {.max_concurrent = 12, .max_waiting = 96});
  const auto prompts = questions(8);
  std::vector<std::shared_ptr<FakeReply>> replies;
  for (const std::string& prompt : prompts) {
    for (const Json& format : kFormats) {
      replies.push_back(post(service, body_of(prompt, format)));
    }
  }
  // All of them first: one engine at a time may compute.
  std::vector<Json> answers;
  for (const auto& reply : replies) {
    answers.push_back(reply->wait_for_json());
  }
  const std::size_t n = kFormats.size();
  for (std::size_t i = 0; i < answers.size(); ++i) {
    expect_same_logprobs(
        answers[i], answer_alone(model, prompts[i / n], kFormats[i % n]));
  }
}

TEST(ServiceModel, SaysWhatATokenCostsInTheServersFormat) {
  // Of 2 heads of 64 values: affine 8 and 4 bits with a bf16 scale and bias per
  // group of 32 in layer 3, dense bf16 in layer 7.
  Service service(
      served_tiny({{.layer_idx = 3, .codec = codec_of(Json::object())}}), {});
  const double packed = 2 * ((64.0 * 8 / 8 + 2 * 4) + (64.0 * 4 / 8 + 2 * 4));
  const double dense = 2 * 2 * 64.0 * 2;
  EXPECT_EQ(metrics(service)["optiq_kv_bytes_per_token"], packed + dense);
}

TEST(ServiceModel, TakesWhatAnEarlierTurnKeptFromItsOwnTenantOnly) {
  Service service(served_tiny(), {.access = {.api_keys = {"one", "two"}}});
  std::string text;
  for (const std::string& question : questions(20)) {
    text += question + " ";
  }
  const auto cached = [&](const std::string& key) {
    return post(service, body_of(text, nullptr), key)
        ->wait_for_json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        .get<int>();
  };
  EXPECT_EQ(cached("one"), 0);
  EXPECT_GT(cached("one"), 100);
  EXPECT_EQ(cached("two"), 0);
}

} // namespace
} // namespace optiq::server
