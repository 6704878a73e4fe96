#include "optiq/server/service.h"

#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "support/fake_reply.h"
#include "support/served_script.h"

namespace optiq::server {
namespace {

using artifacts::Json;
using testing::Events;
using testing::FakeReply;
using testing::kScriptedAnswer;

class ServiceTest : public ::testing::Test {
 protected:
  std::shared_ptr<FakeReply> send(
      const std::string& method,
      const std::string& path,
      const std::string& body = "",
      Headers headers = {}) {
    auto reply = std::make_shared<FakeReply>();
    service_.handle(
        {.method = method,
         .path = path,
         .headers = std::move(headers),
         .body = body},
        reply);
    return reply;
  }
  std::shared_ptr<FakeReply> post(const std::string& path, const Json& body) {
    return send("POST", path, body.dump());
  }

  static Json chat(const std::string& content, Json more = Json::object()) {
    more["messages"] = Json::array({{{"role", "user"}, {"content", content}}});
    return more;
  }
  Json chat_answer(const std::string& content, Json more = Json::object()) {
    const auto reply =
        post("/v1/chat/completions", chat(content, std::move(more)));
    EXPECT_EQ(reply->wait_for_response().status, 200)
        << reply->wait_for_response().body;
    return reply->wait_for_json();
  }
  std::shared_ptr<FakeReply> stream(
      const std::string& content,
      Json more = Json::object()) {
    more["stream"] = true;
    return post("/v1/chat/completions", chat(content, std::move(more)));
  }
  Events chat_events(const std::string& content, Json more = Json::object()) {
    return testing::parse_events(
        stream(content, std::move(more))->wait_for_end());
  }
  /** The sample of a metric. */
  double metric(const std::string& name) {
    const std::string text =
        "\n" + send("GET", "/metrics")->wait_for_response().body;
    const std::size_t at = text.find("\n" + name + " ");
    return at == std::string::npos
        ? std::nan("")
        : std::stod(text.substr(at + name.size() + 2));
  }
  /** What it soon is: the engine's thread counts an answer after it has gone
   * out. */
  double metric_once_it_is(const std::string& name, double expected) {
    for (int i = 0; i < 1000 && metric(name) != expected; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return metric(name);
  }

  Service service_{
      testing::scripted_served(),
      {.max_concurrent = 4, .max_waiting = 4, .kv_bytes = 1u << 20}};
};

TEST_F(ServiceTest, AnswersAConversation) {
  const Json answer = chat_answer("Hi:");
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["model"], "scripted");
  EXPECT_EQ(answer["choices"].size(), 1u);
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], kScriptedAnswer);
  EXPECT_FALSE(choice["message"].contains("reasoning_content"));
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["logprobs"], nullptr);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 28);
  EXPECT_EQ(answer["usage"]["total_tokens"], 31);
  EXPECT_GT(answer["timings"]["prompt_ms"], 0);
}

TEST_F(ServiceTest, StreamsTheSameAnswer) {
  const auto reply =
      stream("Hi:", {{"stream_options", {{"include_usage", true}}}});
  const Events events = testing::parse_events(reply->wait_for_end());
  EXPECT_TRUE(events.is_done);
  EXPECT_EQ(events.joined("content"), kScriptedAnswer);
  EXPECT_EQ(events.joined("role"), "assistant"); // once
  const std::size_t n = events.chunks.size();
  for (std::size_t i = 0; i < n; ++i) {
    const Json& chunk = events.chunks[i];
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_EQ(chunk["id"], events.chunks[0]["id"]);
    EXPECT_EQ(chunk["choices"].size(), i + 1 < n ? 1u : 0u);
    EXPECT_EQ(chunk["usage"].is_null(), i + 1 < n);
  }
  EXPECT_EQ(events.chunks[n - 2]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(events.chunks[n - 1]["usage"]["completion_tokens"], 28);
}

TEST_F(ServiceTest, TellsReasoningFromTheAnswer) {
  const Json answer = chat_answer("Why?");
  const Json& message = answer["choices"][0]["message"];
  EXPECT_EQ(message["content"], kScriptedAnswer);
  EXPECT_EQ(message["reasoning_content"], "AB");
  EXPECT_EQ(message["reasoning"], "AB");
  EXPECT_EQ(
      answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 4);
  const Events events = chat_events("Why?");
  EXPECT_EQ(events.joined("reasoning_content"), "AB");
  EXPECT_EQ(events.joined("reasoning"), "AB");
  EXPECT_EQ(events.joined("content"), kScriptedAnswer);
}

TEST_F(ServiceTest, EndsBeforeAStopStringWhereverTokensCutIt) {
  for (const bool streams : {false, true}) {
    const Json more{{"stop", Json::array({"nothing", "fgh"})}};
    if (streams) {
      const Events events = chat_events(":", more);
      EXPECT_EQ(events.joined("content"), "abcde");
      EXPECT_EQ(events.chunks.back()["choices"][0]["finish_reason"], "stop");
    } else {
      const Json answer = chat_answer(":", more);
      EXPECT_EQ(answer["choices"][0]["message"]["content"], "abcde");
      EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
      EXPECT_EQ(answer["usage"]["completion_tokens"], 8);
    }
  }
}

TEST_F(ServiceTest, EndsAtMaxTokens) {
  const Json answer = chat_answer(":", {{"max_tokens", 3}});
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "abc");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  // The first byte of a character of two is no text.
  const Json half = chat_answer("z", {{"max_tokens", 1}});
  EXPECT_EQ(half["choices"][0]["message"]["content"], "\ufffd");
  const Json both =
      chat_answer(":", {{"max_tokens", 3}, {"max_completion_tokens", 2}});
  EXPECT_EQ(both["choices"][0]["message"]["content"], "ab");
}

TEST_F(ServiceTest, GivesSeveralChoices) {
  const Json answer = chat_answer("Hi:", {{"n", 3}, {"max_tokens", 2}});
  ASSERT_EQ(answer["choices"].size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["message"]["content"], "ab");
  }
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 6);
  const Events events = chat_events("Hi:", {{"n", 2}, {"max_tokens", 3}});
  EXPECT_EQ(events.joined("content", 0), "abc");
  EXPECT_EQ(events.joined("content", 1), "abc");
}

TEST_F(ServiceTest, GivesLogprobsThatReadBackBitByBit) {
  const Json answer = chat_answer(
      ":", {{"max_tokens", 2}, {"logprobs", true}, {"top_logprobs", 2}});
  const Json& content = answer["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  // Logit 1 among 259 zeros.
  const double expected = 1 - std::log(std::exp(1.0) + 259);
  EXPECT_EQ(content[0]["token"], "a");
  EXPECT_EQ(content[0]["bytes"], Json::array({97}));
  EXPECT_NEAR(content[0]["logprob"].get<double>(), expected, 1e-5);
  EXPECT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(content[0]["top_logprobs"][0]["token"], "a");
  const auto value = content[0]["logprob"].get<double>();
  EXPECT_EQ(static_cast<double>(static_cast<float>(value)), value);

  std::size_t n = 0;
  for (const Json& chunk :
       chat_events(":", {{"max_tokens", 2}, {"logprobs", true}}).chunks) {
    const Json& logprobs = chunk["choices"][0]["logprobs"];
    n += logprobs.is_null() ? 0 : logprobs["content"].size();
  }
  EXPECT_EQ(n, 2u);
}

TEST_F(ServiceTest, BiasesLogits) {
  const Json more{{"logit_bias", {{"113", 5}}}, {"max_tokens", 2}};
  EXPECT_EQ(chat_answer(":", more)["choices"][0]["message"]["content"], "qq");
}

TEST_F(ServiceTest, ContinuesTexts) {
  const auto answer = [&](const Json& body) {
    return post("/v1/completions", body)->wait_for_json();
  };
  const Json one = answer({{"prompt", "Hi:"}, {"max_tokens", 2}});
  EXPECT_EQ(one["object"], "text_completion");
  EXPECT_EQ(one["choices"][0]["text"], "ab");
  const Json several = answer(
      {{"prompt", Json::array({":", "q"})},
       {"n", 2},
       {"echo", true},
       {"max_tokens", 1}});
  ASSERT_EQ(several["choices"].size(), 4u);
  EXPECT_EQ(several["choices"][1]["text"], ":a");
  EXPECT_EQ(several["choices"][2]["text"], "qr");
  EXPECT_EQ(several["usage"]["prompt_tokens"], 2);
  const Json ids = answer(
      {{"prompt", Json::array({72, 58})}, {"max_tokens", 2}, {"logprobs", 1}});
  EXPECT_EQ(ids["choices"][0]["text"], "ab");
  EXPECT_EQ(ids["choices"][0]["logprobs"]["tokens"], Json::array({"a", "b"}));
  EXPECT_EQ(ids["choices"][0]["logprobs"]["text_offset"], Json::array({0, 1}));
  EXPECT_TRUE(ids["choices"][0]["logprobs"]["top_logprobs"][0].contains("a"));
  const Events events = testing::parse_events(post(
                                                  "/v1/completions",
                                                  {{"prompt", ":"},
                                                   {"max_tokens", 2},
                                                   {"stream", true},
                                                   {"echo", true}})
                                                  ->wait_for_end());
  EXPECT_EQ(events.joined("text"), ":ab");
}

TEST_F(ServiceTest, RefusesWithTheFieldAndLivesOn) {
  struct Case {
    const char* path;
    Json body;
    int status;
    const char* param;
    const char* code;
  };
  const std::vector<Case> cases{
      {"/v1/chat/completions",
       {{"x", 1}},
       400,
       "messages",
       "missing_required_parameter"},
      {"/v1/chat/completions",
       chat(":", {{"temperature", 3}}),
       400,
       "temperature",
       "invalid_value"},
      {"/v1/chat/completions",
       chat(":", {{"logit_bias", {{"260", 1}}}}),
       400,
       "logit_bias",
       "invalid_value"},
      {"/v1/chat/completions",
       chat(":", {{"model", "other"}}),
       404,
       "model",
       "model_not_found"},
      {"/v1/chat/completions", chat(""), 400, "messages", "invalid_value"},
      {"/v1/chat/completions",
       chat(":", {{"n", 9}}),
       400,
       "n",
       "invalid_value"},
      {"/v1/chat/completions",
       chat(":", {{"max_tokens", 100'001}}),
       400,
       "max_tokens",
       "context_length_exceeded"},
      {"/v1/chat/completions",
       chat(":", {{"kv_cache", {{"bits", 4}}}}),
       400,
       "kv_cache",
       "invalid_value"},
      {"/v1/chat/completions",
       chat(":", {{"chat_template_kwargs", {{"messages", 1}}}}),
       400,
       "chat_template_kwargs.messages",
       "invalid_value"},
      {"/v1/completions",
       {{"prompt", Json::array({260})}},
       400,
       "prompt",
       "invalid_value"},
  };
  for (const Case& c : cases) {
    for (const bool streams : {false, true}) {
      Json body = c.body;
      body["stream"] = streams;
      const auto reply = post(c.path, body);
      const Json error = reply->wait_for_json()["error"];
      EXPECT_EQ(reply->wait_for_response().status, c.status) << error;
      EXPECT_EQ(error["code"], c.code) << error;
      EXPECT_EQ(error["param"], *c.param == 0 ? Json() : Json(c.param));
      EXPECT_EQ(error["type"], "invalid_request_error");
    }
    EXPECT_EQ(chat_answer("Hi:")["usage"]["prompt_tokens"], 3);
  }
}

TEST_F(ServiceTest, SaysWhatItIgnored) {
  const auto reply =
      post("/v1/chat/completions", chat(":", {{"xtc", 1}, {"max_tokens", 1}}));
  const Headers headers = reply->wait_for_response().headers;
  EXPECT_EQ(headers, (Headers{{"x-optiq-ignored-fields", "xtc"}}));
  const auto streamed = stream(":", {{"xtc", 1}, {"max_tokens", 1}});
  streamed->wait_for_end();
  EXPECT_EQ(streamed->headers(), headers);
}

TEST_F(ServiceTest, TakesVariablesOfTheTemplate) {
  const Json answer = chat_answer(
      "Hi", {{"chat_template_kwargs", {{"suffix", ":"}}}, {"max_tokens", 1}});
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "a");
}

TEST_F(ServiceTest, RefusesWhenTheQueueIsFull) {
  std::vector<std::shared_ptr<FakeReply>> open;
  for (int i = 0; i < 4; ++i) { // two at once, so that they leave the queue
    open.push_back(stream("#"));
    open.back()->wait_for_bytes(600);
  }
  for (int i = 0; i < 4; ++i) {
    open.push_back(stream("#"));
    open.back()->wait_for_bytes(1);
  }
  const HttpResponse refused = stream("#")->wait_for_response();
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.headers.front().first, "retry-after");
  for (const auto& reply : open) {
    reply->go();
  }
  EXPECT_EQ(chat_answer("Hi:")["usage"]["prompt_tokens"], 3);
}

TEST_F(ServiceTest, EndsAnAnswerWhoseClientHasGone) {
  const auto reply = stream("#");
  reply->wait_for_bytes(1000);
  EXPECT_EQ(metric("optiq_answers_open"), 1);
  reply->go();
  EXPECT_EQ(metric_once_it_is("optiq_answers_open", 0), 0);
  EXPECT_EQ(metric_once_it_is("optiq_requests_running", 0), 0);
  EXPECT_EQ(metric("optiq_answers_total{end=\"abandoned\"}"), 1);
}

TEST_F(ServiceTest, AFailingForwardEndsItsAnswersAlone) {
  const auto whole = post("/v1/chat/completions", chat("!"));
  EXPECT_EQ(whole->wait_for_response().status, 500);
  EXPECT_EQ(whole->wait_for_json()["error"]["type"], "server_error");
  const Events events = chat_events("!");
  EXPECT_TRUE(events.chunks.back().contains("error"));
  EXPECT_FALSE(events.is_done);
  EXPECT_EQ(
      chat_answer("Hi:")["choices"][0]["message"]["content"], kScriptedAnswer);
  EXPECT_EQ(metric_once_it_is("optiq_answers_total{end=\"failed\"}", 2), 2);
}

TEST_F(ServiceTest, DrainsWithALastEvent) {
  const auto open = stream("#");
  const auto whole = post("/v1/chat/completions", chat("#"));
  open->wait_for_bytes(1000);
  service_.drain(std::chrono::milliseconds(20));
  const Events events = testing::parse_events(open->wait_for_end());
  EXPECT_EQ(events.chunks.back()["error"]["code"], "shutting_down");
  EXPECT_EQ(whole->wait_for_response().status, 503);
  EXPECT_EQ(stream("#")->wait_for_response().status, 503);
  EXPECT_EQ(send("GET", "/ready")->wait_for_response().status, 503);
  EXPECT_EQ(send("GET", "/health")->wait_for_response().status, 200);
}

TEST_F(ServiceTest, TurnsTextIntoTokensAndBack) {
  const Json tokens =
      post("/tokenize", {{"content", "Hi<think>"}})->wait_for_json();
  EXPECT_EQ(tokens["tokens"], Json::array({72, 105, 256}));
  EXPECT_EQ(tokens["count"], 3);
  const Json pieces =
      post("/tokenize", {{"content", "i\u00e9"}, {"with_pieces", true}})
          ->wait_for_json();
  EXPECT_EQ(
      pieces["tokens"],
      Json::parse(R"([{"id": 105, "piece": "i"}, {"id": 195, "piece": [195]},
                      {"id": 169, "piece": [169]}])"));
  EXPECT_EQ(
      post("/detokenize", {{"tokens", Json::array({72, 105})}})
          ->wait_for_json()["content"],
      "Hi");
  EXPECT_EQ(
      post("/apply-template", chat("Hi"))->wait_for_json()["prompt"], "Hi");
}

TEST_F(ServiceTest, DescribesItself) {
  EXPECT_EQ(send("GET", "/health")->wait_for_json()["status"], "ok");
  EXPECT_EQ(send("GET", "/ready")->wait_for_json()["status"], "ready");
  EXPECT_TRUE(send("GET", "/version")->wait_for_json().contains("version"));
  const Json models = send("GET", "/v1/models")->wait_for_json();
  EXPECT_EQ(models["data"][0]["id"], "scripted");
  EXPECT_EQ(
      send("GET", "/v1/models/scripted")->wait_for_json(), models["data"][0]);
  EXPECT_EQ(send("GET", "/v1/models/a/b")->wait_for_response().status, 404);
  const Json described = send("GET", "/v1/optiq/model")->wait_for_json();
  EXPECT_EQ(described["status"]["running"], 0);
  EXPECT_EQ(described["defaults"]["max_tokens"], 32768);
  EXPECT_EQ(send("GET", "/openapi.json")->wait_for_json()["openapi"], "3.1.0");
  EXPECT_EQ(send("GET", "/")->wait_for_response().status, 200);
}

TEST_F(ServiceTest, KnowsItsPathsAndMethods) {
  EXPECT_EQ(send("GET", "/nothing")->wait_for_response().status, 404);
  const HttpResponse wrong =
      send("GET", "/v1/chat/completions")->wait_for_response();
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers, (Headers{{"allow", "POST"}}));
  EXPECT_EQ(
      send("DELETE", "/v1/models")->wait_for_response().headers,
      (Headers{{"allow", "GET, HEAD"}}));
  EXPECT_EQ(send("HEAD", "/v1/models")->wait_for_response().status, 200);
}

TEST(Service, AsksForAKey) {
  Service service(
      testing::scripted_served(), {.access = {.api_keys = {"secret"}}});
  const auto status = [&](Headers headers) {
    auto reply = std::make_shared<FakeReply>();
    service.handle(
        {.method = "GET", .path = "/v1/models", .headers = std::move(headers)},
        reply);
    return reply->wait_for_response().status;
  };
  EXPECT_EQ(status({}), 401);
  EXPECT_EQ(status({{"authorization", "Bearer secret"}}), 200);
}

} // namespace
} // namespace optiq::server
