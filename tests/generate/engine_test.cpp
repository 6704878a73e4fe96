#include "optiq/generate/engine.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scripted_model.h"

namespace optiq::generate {
namespace {

constexpr std::int32_t kStop = 0;
constexpr int kVocab = 1000;
constexpr int kPositions = 2000;

/** K/V of 64 tokens of the scripted model. */
constexpr std::size_t kBlockBytes = 2 * 16 * 64 * 2;

cache::LayerFormat kv_layer() {
  return kernels::cpu_device().kv_format(
      {.dtype = mlx::core::bfloat16, .n_kv_heads = 1, .head_dim = 16});
}

/** What follows a token depends on it and on where it stands. */
std::int32_t next_token(std::int32_t token, int position) {
  return 1 + (token * 7 + position) % (kVocab - 1);
}

models::Setup scripted(std::function<void()> on_forward = nullptr) {
  return {
      std::make_shared<testing::ScriptedModel>(
          kVocab, kPositions, next_token, std::move(on_forward), kv_layer()),
      kernels::Compute::Fast};
}

/** What a request goes through, and what the test does then. */
struct Recorder final : RequestListener {
  void on_start(int n) override {
    cached = n;
    events += 's';
    act("start");
  }
  void on_prefill(int done, int total) override {
    prefilled.push_back(done);
    prompt = total;
    events += 'p';
    act("prefill");
  }
  bool on_token(const AnswerToken& token) override {
    tokens.push_back(token.id);
    answer.push_back(token);
    events += 't';
    act("token");
    return static_cast<int>(tokens.size()) != stop_after;
  }
  void on_end(const Ending& with) override {
    ending = with;
    events += 'e';
    act("end");
  }

  bool ended() const {
    return events.find('e') != std::string::npos;
  }
  void act(const std::string& event) const {
    if (on_event) {
      on_event(event);
    }
  }

  std::function<void(const std::string&)> on_event;
  int stop_after = -1;
  int cached = -1;
  int prompt = 0;
  std::vector<int> prefilled;
  std::vector<std::int32_t> tokens;
  std::vector<AnswerToken> answer;
  std::string events; // first letters
  Ending ending;
};

std::vector<std::int32_t> prompt_of(int name, int n) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    tokens[static_cast<std::size_t>(i)] = 1 + (name * 131 + i * i) % 900;
  }
  return tokens;
}

std::vector<std::int32_t> expected_answer(
    const std::vector<std::int32_t>& prompt,
    int n) {
  std::vector<std::int32_t> answer;
  std::int32_t last = prompt.back();
  for (int i = 0; i < n; ++i) {
    last = next_token(last, static_cast<int>(prompt.size()) + i - 1);
    answer.push_back(last);
  }
  return answer;
}

Request request_for(
    std::vector<std::int32_t> prompt,
    int max_tokens,
    const std::shared_ptr<RequestListener>& listener) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.listener = listener;
  return request;
}

void finish(Engine& engine) {
  for (int i = 0; engine.step(); ++i) {
    ASSERT_LT(i, 100'000);
  }
}

TEST(Engine, AnswersOneRequest) {
  Engine engine(scripted(), {.prefill_chunk = 100});
  const auto listener = std::make_shared<Recorder>();
  const auto prompt = prompt_of(1, 250);
  engine.submit(request_for(prompt, 5, listener));
  EXPECT_EQ(engine.status().waiting, 1);
  finish(engine);
  EXPECT_EQ(listener->events, "spppttttte");
  EXPECT_EQ(listener->cached, 0);
  EXPECT_EQ(listener->prefilled, (std::vector<int>{100, 200, 250}));
  EXPECT_EQ(listener->prompt, 250);
  EXPECT_EQ(listener->tokens, expected_answer(prompt, 5));
  EXPECT_EQ(listener->ending.reason, FinishReason::Length);
  EXPECT_FALSE(listener->answer.front().logprob.has_value());
  const EngineStatus status = engine.status();
  EXPECT_EQ(status.running + status.waiting, 0);
  EXPECT_EQ(status.steps, 3u + 4u);
  EXPECT_EQ(status.prompt_tokens, 250u);
  EXPECT_EQ(status.answer_tokens, 5u);
  EXPECT_EQ(status.cache_bytes, status.prefix_bytes);
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(engine.status().steps, 7u);
}

TEST(Engine, EndsAtStopTokensAndWhereTheListenerSaysSo) {
  Engine engine(scripted(), {});
  const auto prompt = prompt_of(1, 20);
  const auto answer = expected_answer(prompt, 10);
  const auto at_token = std::make_shared<Recorder>();
  Request request = request_for(prompt, 10, at_token);
  request.stop_ids = {answer[4], kStop};
  engine.submit(std::move(request));
  const auto by_listener = std::make_shared<Recorder>();
  by_listener->stop_after = 3;
  engine.submit(request_for(prompt, 10, by_listener));
  finish(engine);
  EXPECT_EQ(at_token->tokens.size(), 4u);
  EXPECT_EQ(at_token->ending.reason, FinishReason::Stop);
  EXPECT_EQ(by_listener->tokens.size(), 3u);
  EXPECT_EQ(by_listener->ending.reason, FinishReason::Stop);
}

TEST(Engine, GivesLogprobsWhereTheyAreWanted) {
  Engine engine(scripted(), {});
  const auto listener = std::make_shared<Recorder>();
  Request request = request_for(prompt_of(1, 3), 2, listener);
  request.top_logprobs = 2;
  engine.submit(std::move(request));
  finish(engine);
  // One logit of 1 among zeros.
  const double mass = std::exp(1.0) + kVocab - 1;
  const AnswerToken& token = listener->answer.front();
  EXPECT_NEAR(token.logprob.value(), 1 - std::log(mass), 1e-5);
  ASSERT_EQ(token.top.size(), 2u);
  EXPECT_EQ(token.top[0].id, token.id);
  EXPECT_EQ(token.top[1].id, 0);
  EXPECT_NEAR(token.top[1].logprob, -std::log(mass), 1e-5);
}

TEST(Engine, CancelEndsWithinOneStep) {
  Engine engine(scripted(), {.max_running = 1});
  const auto running = std::make_shared<Recorder>();
  const auto waiting = std::make_shared<Recorder>();
  const auto id = engine.submit(request_for(prompt_of(1, 10), 100, running));
  const auto other = engine.submit(request_for(prompt_of(2, 10), 100, waiting));
  engine.step();
  engine.step();
  engine.cancel(id);
  engine.cancel(other);
  engine.cancel(RequestId{99});
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(running->events, "sptte");
  EXPECT_EQ(running->ending.reason, FinishReason::Cancelled);
  EXPECT_EQ(waiting->events, "e");
  EXPECT_EQ(waiting->ending.reason, FinishReason::Cancelled);
  EXPECT_EQ(engine.status().steps, 2u);
  engine.cancel(id);
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(running->events, "sptte");
}

TEST(Engine, ListenersMaySubmitAndCancel) {
  Engine engine(scripted(), {});
  const auto first = std::make_shared<Recorder>();
  const auto second = std::make_shared<Recorder>();
  const auto third = std::make_shared<Recorder>();
  RequestId second_id{};
  const auto id = engine.submit(request_for(prompt_of(1, 10), 100, first));
  first->on_event = [&](const std::string& event) {
    if (event == "start") {
      second_id = engine.submit(request_for(prompt_of(2, 10), 100, second));
    } else if (event == "token" && first->tokens.size() == 3) {
      engine.cancel(id);
      engine.cancel(second_id);
    } else if (event == "end") {
      engine.submit(request_for(prompt_of(3, 10), 2, third));
    }
  };
  finish(engine);
  EXPECT_EQ(first->ending.reason, FinishReason::Cancelled);
  EXPECT_EQ(first->tokens.size(), 3u);
  EXPECT_EQ(second->ending.reason, FinishReason::Cancelled);
  EXPECT_LE(second->tokens.size(), 3u);
  EXPECT_EQ(third->tokens, expected_answer(prompt_of(3, 10), 2));
}

TEST(Engine, AFailingListenerEndsItsOwnRequest) {
  for (const std::string event : {"start", "prefill", "token", "end"}) {
    SCOPED_TRACE(event);
    Engine engine(scripted(), {});
    const auto failing = std::make_shared<Recorder>();
    failing->on_event = [&](const std::string& now) {
      if (now == event) {
        throw std::runtime_error("the pipe is broken");
      }
    };
    const auto other = std::make_shared<Recorder>();
    engine.submit(request_for(prompt_of(1, 10), 5, failing));
    engine.submit(request_for(prompt_of(2, 10), 5, other));
    finish(engine);
    EXPECT_EQ(other->tokens, expected_answer(prompt_of(2, 10), 5));
    EXPECT_EQ(other->ending.reason, FinishReason::Length);
    EXPECT_EQ(failing->events.back(), 'e');
    EXPECT_EQ(
        std::count(failing->events.begin(), failing->events.end(), 'e'), 1);
    if (event != "end") {
      EXPECT_EQ(failing->ending.reason, FinishReason::Failed);
      EXPECT_THROW(
          std::rethrow_exception(failing->ending.error), std::runtime_error);
    }
    EXPECT_EQ(engine.status().cache_bytes, engine.status().prefix_bytes);
  }
}

TEST(Engine, AFailingForwardEndsItsRequestsAndNoOthers) {
  int forwards = 0;
  Engine engine(
      scripted([&] {
        if (++forwards == 3) {
          fail(ErrorKind::Io, "[test] the file became shorter");
        }
      }),
      {.max_running = 2});
  std::vector<std::shared_ptr<Recorder>> listeners;
  for (int i = 0; i < 3; ++i) {
    listeners.push_back(std::make_shared<Recorder>());
    engine.submit(request_for(prompt_of(i, 10), 5, listeners.back()));
  }
  finish(engine);
  for (const int i : {0, 1}) {
    EXPECT_EQ(listeners[i]->ending.reason, FinishReason::Failed);
    test::expect_error(ErrorKind::Io, {"shorter"}, [&] {
      std::rethrow_exception(listeners[i]->ending.error);
    });
  }
  EXPECT_EQ(listeners[2]->tokens, expected_answer(prompt_of(2, 10), 5));
}

TEST(Engine, RefusesWhatCannotBe) {
  Engine engine(scripted(), {.max_cache_bytes = 10 * kBlockBytes});
  const auto listener = std::make_shared<Recorder>();
  const auto refuses = [&](std::initializer_list<std::string> says,
                           auto change) {
    Request request = request_for(prompt_of(1, 10), 5, listener);
    change(request);
    test::expect_error(ErrorKind::InvalidInput, says, [&] {
      engine.submit(std::move(request));
    });
  };
  refuses({"no tokens"}, [](Request& r) { r.prompt.clear(); });
  refuses({"-1", "999"}, [](Request& r) { r.prompt[3] = -1; });
  refuses({"1000", "999"}, [](Request& r) { r.prompt[3] = 1000; });
  refuses({"max_tokens"}, [](Request& r) { r.max_tokens = 0; });
  refuses({"10", "1991", "2000"}, [](Request& r) { r.max_tokens = 1991; });
  refuses({"top_p"}, [](Request& r) { r.sampler.top_p = 2; });
  refuses({"temperature"}, [](Request& r) {
    r.sampler.temperature = std::numeric_limits<float>::quiet_NaN();
  });
  refuses({"presence"}, [](Request& r) { r.logits.presence_penalty = 3; });
  refuses({"top_logprobs", "1001", "1000"}, [](Request& r) {
    r.top_logprobs = 1001;
  });
  refuses(
      {"layout"}, [](Request& r) { r.layout = {cache::RecurrentFormat{}}; });
  // 640 tokens fit; the last one of an answer is not kept.
  refuses({"600", "42", "641"}, [](Request& r) {
    r.prompt = prompt_of(1, 600);
    r.max_tokens = 42;
  });
  refuses({"641", "1 new", "641"}, [](Request& r) {
    r.prompt = prompt_of(1, 641);
    r.clamp_max_tokens = true;
  });
  EXPECT_EQ(engine.status().waiting, 0);
  EXPECT_EQ(listener->events, "");
}

TEST(Engine, ShortensAnAnswerThatNobodyChose) {
  Engine engine(scripted(), {.max_cache_bytes = 10 * kBlockBytes});
  const auto by_pool = std::make_shared<Recorder>();
  Request request = request_for(prompt_of(1, 600), 9999, by_pool);
  request.clamp_max_tokens = true;
  engine.submit(request);
  const auto as_asked = std::make_shared<Recorder>();
  request.prompt = prompt_of(2, 10);
  request.max_tokens = 7;
  request.listener = as_asked;
  engine.submit(request);
  finish(engine);
  EXPECT_EQ(by_pool->tokens, expected_answer(prompt_of(1, 600), 41));
  EXPECT_EQ(by_pool->ending.reason, FinishReason::Length);
  EXPECT_EQ(as_asked->tokens.size(), 7u);
}

TEST(Engine, RefusesMoreThanTheQueueHolds) {
  Engine engine(scripted(), {.max_running = 2, .max_waiting = 3});
  const auto listener = std::make_shared<Recorder>();
  for (int i = 0; i < 5; ++i) {
    engine.submit(request_for(prompt_of(i, 10), 5, listener));
  }
  const auto refused = [&] {
    test::expect_error(ErrorKind::Exhausted, {"2", "3"}, [&] {
      engine.submit(request_for(prompt_of(9, 10), 5, listener));
    });
  };
  refused();
  engine.step();
  EXPECT_EQ(engine.status().running, 2);
  EXPECT_EQ(engine.status().waiting, 3);
  refused();
  finish(engine);
  engine.submit(request_for(prompt_of(9, 10), 5, listener));
  finish(engine);
  EXPECT_EQ(listener->tokens.size(), 6u * 5);
}

TEST(Engine, PreemptedAnswersGoOnAsIfNothingHadBeen) {
  // Five prompts fit, their answers do not.
  Engine engine(
      scripted(), {.max_cache_bytes = 12 * kBlockBytes, .max_running = 5});
  std::vector<std::shared_ptr<Recorder>> listeners;
  for (int i = 0; i < 5; ++i) {
    listeners.push_back(std::make_shared<Recorder>());
    Request request = request_for(prompt_of(i, 60 + i), 300, listeners.back());
    request.share_prefixes = i % 2 == 0;
    engine.submit(std::move(request));
  }
  finish(engine);
  EXPECT_GE(engine.status().preemptions, 3u);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(listeners[i]->tokens, expected_answer(prompt_of(i, 60 + i), 300));
    EXPECT_EQ(listeners[i]->ending.reason, FinishReason::Length);
    const std::string& events = listeners[i]->events;
    EXPECT_EQ(std::count(events.begin(), events.end(), 's'), 1);
    EXPECT_EQ(listeners[i]->prefilled.back(), 60 + i);
  }
  EXPECT_EQ(engine.status().cache_bytes, engine.status().prefix_bytes);
}

TEST(Engine, StreamsFlowWhileALongPromptIsComputed) {
  Engine engine(
      scripted(), {.prefill_chunk = 256, .prefill_chunk_beside_answers = 64});
  const auto stream = std::make_shared<Recorder>();
  engine.submit(request_for(prompt_of(1, 10), 100, stream));
  engine.step();
  const auto long_one = std::make_shared<Recorder>();
  engine.submit(request_for(prompt_of(2, 1500), 5, long_one));
  engine.step();
  const auto short_one = std::make_shared<Recorder>();
  engine.submit(request_for(prompt_of(3, 30), 5, short_one));
  engine.step();
  // It has its first token after one step, the stream one more each time.
  EXPECT_EQ(short_one->tokens.size(), 1u);
  EXPECT_EQ(stream->tokens.size(), 3u);
  EXPECT_LE(engine.status().last_step_rows, 64 + 1);
  EXPECT_EQ(engine.status().last_step_sequences, 3);
  int steps = 0;
  for (; long_one->tokens.empty(); ++steps) {
    const std::size_t before = stream->tokens.size();
    engine.step();
    EXPECT_EQ(stream->tokens.size(), before + 1);
  }
  EXPECT_LE(steps, 1500 / 60);
  finish(engine);
}

TEST(Engine, ASecondTurnComputesOnlyWhatIsNew) {
  Engine engine(scripted(), {});
  const auto first = std::make_shared<Recorder>();
  auto conversation = prompt_of(1, 700);
  engine.submit(request_for(conversation, 50, first));
  finish(engine);
  conversation.insert(
      conversation.end(), first->tokens.begin(), first->tokens.end());
  const auto more = prompt_of(2, 20);
  conversation.insert(conversation.end(), more.begin(), more.end());
  const auto second = std::make_shared<Recorder>();
  engine.submit(request_for(conversation, 50, second));
  // The answer's last token was never computed.
  finish(engine);
  EXPECT_EQ(second->cached, 700 + 49);
  EXPECT_EQ(second->tokens, expected_answer(conversation, 50));
  EXPECT_EQ(engine.status().prompt_tokens, 700u + 21);
  EXPECT_EQ(engine.status().cached_tokens, 749u);
  // Another tenant shares nothing, nor does who does not want to.
  const auto stranger = std::make_shared<Recorder>();
  Request request = request_for(conversation, 1, stranger);
  request.prefix_key = "another key";
  engine.submit(std::move(request));
  const auto recluse = std::make_shared<Recorder>();
  request = request_for(conversation, 1, recluse);
  request.share_prefixes = false;
  engine.submit(std::move(request));
  finish(engine);
  EXPECT_EQ(stranger->cached, 0);
  EXPECT_EQ(recluse->cached, 0);
}

TEST(Engine, ACommonBeginningIsComputedOnce) {
  Engine engine(scripted(), {.max_running = 6});
  std::vector<std::shared_ptr<Recorder>> listeners;
  for (int i = 0; i < 6; ++i) {
    auto prompt = prompt_of(1, 500);
    const auto own = prompt_of(10 + i, 20);
    prompt.insert(prompt.end(), own.begin(), own.end());
    listeners.push_back(std::make_shared<Recorder>());
    engine.submit(request_for(prompt, 3, listeners.back()));
  }
  finish(engine);
  EXPECT_EQ(engine.status().prompt_tokens, 6u * 520 - 5 * 500);
  for (int i = 1; i < 6; ++i) {
    EXPECT_EQ(listeners[i]->cached, 500);
  }
}

} // namespace
} // namespace optiq::generate
