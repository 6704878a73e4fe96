#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/tiny_model.h"

#include "optiq/generate/engine.h"
#include "optiq/models/setup.h"

/** Requests that run together and alone, and must bring the same bits. */
namespace optiq::generate::equality {

using kernels::Compute;
using Layout = std::vector<cache::LayerFormat>;
using ModelPtr = std::shared_ptr<const models::Model>;
using Tokens = std::vector<std::int32_t>;

inline constexpr int kRequests = 32;
inline constexpr int kAnswer = 6;
inline constexpr int kTop = 3;

struct Answer final : RequestListener {
  void on_start(int n) override {
    cached = n;
  }
  bool on_token(const AnswerToken& token) override {
    tokens.push_back(token);
    return true;
  }
  void on_end(const Ending& with) override {
    ending = with;
  }

  int cached = 0;
  std::vector<AnswerToken> tokens;
  Ending ending;
};

using AnswerPtr = std::shared_ptr<Answer>;

inline bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

inline void
expect_same(const Answer& found, const Answer& expected, int index) {
  ASSERT_EQ(found.ending.reason, FinishReason::Length) << index;
  ASSERT_EQ(found.tokens.size(), expected.tokens.size()) << index;
  for (std::size_t i = 0; i < expected.tokens.size(); ++i) {
    const AnswerToken& a = found.tokens[i];
    const AnswerToken& b = expected.tokens[i];
    ASSERT_EQ(a.id, b.id) << index << " " << i;
    ASSERT_TRUE(same_bits(a.logprob.value(), b.logprob.value()))
        << index << " " << i;
    ASSERT_EQ(a.top.size(), static_cast<std::size_t>(kTop));
    for (std::size_t k = 0; k < a.top.size(); ++k) {
      ASSERT_EQ(a.top[k].id, b.top[k].id) << index << " " << i;
      ASSERT_TRUE(same_bits(a.top[k].logprob, b.top[k].logprob));
    }
  }
}

Layout
layout_of(const models::Model& model, artifacts::KvMethod method, double bits) {
  std::vector<artifacts::KvLayer> kv;
  for (const int layer : models::kv_layers(model)) {
    kv.push_back(
        {.layer_idx = layer,
         .codec = {.method = method, .key_bits = bits, .value_bits = bits}});
  }
  return models::cache_layout(model, Compute::Fast, kv);
}

/** Dense, affine 4 and turbo 4. */
inline std::vector<Layout> three_layouts(const models::Model& model) {
  return {
      models::cache_layout(model, Compute::Fast),
      layout_of(model, artifacts::KvMethod::Affine, 4),
      layout_of(model, artifacts::KvMethod::Turbo, 4)};
}

/** Different prompts of 3 to 127 tokens; half are drawn from, with penalties.
 */
inline Request request_of(int index, const Layout& layout) {
  static const Tokens text = testing::arithmetic_tokens(600);
  Request request;
  const auto begin = text.begin() + 11 * index;
  request.prompt.assign(begin, begin + 3 + 4 * index);
  request.max_tokens = kAnswer;
  request.top_logprobs = kTop;
  request.layout = layout;
  if (index % 2 == 1) {
    request.sampler.temperature = 0.9f;
    request.sampler.seed = static_cast<std::uint64_t>(index);
    request.logits.repetition_penalty = 1.1f;
  }
  return request;
}

inline AnswerPtr submit(Engine& engine, Request request) {
  const auto answer = std::make_shared<Answer>();
  request.listener = answer;
  engine.submit(std::move(request));
  return answer;
}

inline void finish(Engine& engine) {
  while (engine.step()) {
  }
}

/** What a request brings on an engine that has nothing else to do. */
inline AnswerPtr alone(const models::Setup& setup, const Request& request) {
  Engine engine(setup, {});
  const AnswerPtr answer = submit(engine, request);
  finish(engine);
  return answer;
}

/** Runs requests together; each must bring what it brings alone. */
inline EngineStatus expect_as_alone(
    const models::Setup& setup,
    EngineOptions options,
    const std::vector<Request>& requests,
    const std::vector<AnswerPtr>& expected) {
  Engine engine(setup, options);
  std::vector<AnswerPtr> answers;
  for (const Request& request : requests) {
    answers.push_back(submit(engine, request));
  }
  finish(engine);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    expect_same(*answers[i], *expected[i], static_cast<int>(i));
  }
  return engine.status();
}

inline std::vector<AnswerPtr> all_alone(
    const models::Setup& setup,
    const std::vector<Request>& requests) {
  std::vector<AnswerPtr> answers;
  for (const Request& request : requests) {
    answers.push_back(alone(setup, request));
  }
  return answers;
}

/** 32 requests together, in each of three formats and in all of them. */
inline void expect_batches_change_no_bit(const models::Setup& setup) {
  const std::vector<Layout> layouts = three_layouts(*setup.model);
  const EngineOptions options{.prefill_chunk = 128, .max_running = kRequests};
  std::vector<Request> mixed;
  std::vector<AnswerPtr> expected_mixed;
  for (std::size_t format = 0; format < layouts.size(); ++format) {
    SCOPED_TRACE(format);
    std::vector<Request> requests;
    for (int i = 0; i < kRequests; ++i) {
      requests.push_back(request_of(i, layouts[format]));
    }
    const auto expected = all_alone(setup, requests);
    expect_as_alone(setup, options, requests, expected);
    for (std::size_t i = format; i < requests.size(); i += layouts.size()) {
      mixed.push_back(requests[i]);
      expected_mixed.push_back(expected[i]);
    }
  }
  expect_as_alone(setup, options, mixed, expected_mixed);
}

/** Answers that grow by two blocks where there is room for one each. */
inline void expect_preemption_changes_no_bit(const models::Setup& setup) {
  const std::vector<Layout> layouts = three_layouts(*setup.model);
  std::vector<Request> mixed;
  std::vector<AnswerPtr> expected_mixed;
  const auto run = [&](const std::vector<Request>& requests,
                       const std::vector<AnswerPtr>& expected) {
    std::size_t bytes = 0;
    for (const Request& request : requests) {
      bytes += cache::sequence_bytes(request.layout, 2 * 64);
    }
    const EngineStatus status =
        expect_as_alone(setup, {.max_cache_bytes = bytes}, requests, expected);
    EXPECT_GT(status.preemptions, 0u);
  };
  for (std::size_t format = 0; format < layouts.size(); ++format) {
    SCOPED_TRACE(format);
    std::vector<Request> requests;
    for (int i = 13; i < 17; ++i) { // prompts of 55 to 67 tokens
      requests.push_back(request_of(i, layouts[format]));
      requests.back().max_tokens = 90;
    }
    const auto expected = all_alone(setup, requests);
    run(requests, expected);
    mixed.push_back(requests[format]);
    expected_mixed.push_back(expected[format]);
  }
  run(mixed, expected_mixed);
}

/** A conversation of `n` tokens goes on with 20 more. */
inline void expect_second_turns_change_no_bit(
    const models::Setup& setup,
    std::size_t n) {
  const Tokens text = testing::arithmetic_tokens(n + 20);
  const auto cut = text.begin() + static_cast<std::ptrdiff_t>(n);
  for (const Layout& layout : three_layouts(*setup.model)) {
    Engine engine(setup, {});
    Request first = request_of(0, layout);
    first.prompt.assign(text.begin(), cut);
    const AnswerPtr answer = submit(engine, first);
    finish(engine);
    Request second = first;
    for (const AnswerToken& token : answer->tokens) {
      second.prompt.push_back(token.id);
    }
    second.prompt.insert(second.prompt.end(), cut, text.end());
    const AnswerPtr resumed = submit(engine, second);
    finish(engine);
    // The last token of an answer was never computed.
    EXPECT_EQ(resumed->cached, static_cast<int>(n) + kAnswer - 1);
    expect_same(*resumed, *alone(setup, second), 0);
    // The same turn anew.
    const AnswerPtr again = submit(engine, second);
    finish(engine);
    EXPECT_GE(again->cached, resumed->cached);
    expect_same(*again, *resumed, 1);
  }
}

} // namespace optiq::generate::equality
