#include "optiq/generate/generation_config.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

#include "optiq/io/safetensors.h"

namespace optiq::generate {
namespace {

using artifacts::Json;

GenerationConfig read(const Json& config) {
  const test::ScratchFolder folder;
  io::write_safetensors(folder / "model.safetensors", {}, {});
  test::write_file(folder / "config.json", "{}");
  test::write_file(folder / "generation_config.json", config.dump());
  return read_generation_config(io::ModelDirectory::open(folder.path()));
}

TEST(GenerationConfig, ReadsGemmasSampling) {
  const SamplerOptions sampler =
      read({{"do_sample", true}, {"top_k", 64}, {"top_p", 0.95}}).sampler;
  EXPECT_EQ(sampler.temperature, 1.f);
  EXPECT_EQ(sampler.top_k, 64);
  EXPECT_EQ(sampler.top_p, 0.95f);
  EXPECT_EQ(sampler.order, FilterOrder::Transformers);
}

TEST(GenerationConfig, HasTheDefaultsOfTransformers) {
  EXPECT_EQ(read({{"do_sample", true}}).sampler.top_k, 50);
  const auto greedy = read({{"temperature", 0.6}, {"top_p", 5}});
  EXPECT_EQ(greedy.sampler.temperature, 0.f);
  EXPECT_EQ(greedy.logits, LogitsOptions{});
}

TEST(GenerationConfig, ReadsWhatChangesLogits) {
  const LogitsOptions logits = read({{"repetition_penalty", 1.1},
                                     {"presence_penalty", 0.5},
                                     {"frequency_penalty", 1},
                                     {"no_repeat_ngram_size", 3},
                                     {"bad_words_ids", {{1}, {2, 3}}},
                                     {"suppress_tokens", {4}},
                                     {"begin_suppress_tokens", {5, 6}},
                                     {"forced_bos_token_id", 7},
                                     {"forced_eos_token_id", {8, 9}},
                                     {"min_length", 10}})
                                   .logits;
  EXPECT_EQ(
      logits,
      (LogitsOptions{
          .repetition_penalty = 1.1f,
          .presence_penalty = .5f,
          .frequency_penalty = 1.f,
          .no_repeat_ngram_size = 3,
          .bad_words = {{1}, {2, 3}},
          .min_length = 10,
          .forced_bos = 7,
          .forced_eos = {8, 9},
          .suppressed = {4},
          .suppressed_first = {5, 6}}));
  EXPECT_EQ(
      read({{"min_length", 10}, {"min_new_tokens", 2}}).logits,
      (LogitsOptions{.min_new_tokens = 2}));
}

TEST(GenerationConfig, EveryHonouredKeyIsRead) {
  const Json values = {
      {"do_sample", true},
      {"temperature", 0.7},
      {"top_k", 7},
      {"top_p", 0.7},
      {"min_p", 0.1},
      {"typical_p", 0.7},
      {"epsilon_cutoff", 0.1},
      {"eta_cutoff", 0.1},
      {"repetition_penalty", 2},
      {"presence_penalty", 1},
      {"frequency_penalty", 1},
      {"no_repeat_ngram_size", 2},
      {"bad_words_ids", {{1}}},
      {"suppress_tokens", {1}},
      {"begin_suppress_tokens", {1}},
      {"forced_bos_token_id", 1},
      {"forced_eos_token_id", 1},
      {"min_length", 1},
      {"min_new_tokens", 1},
      {"max_length", 1},
      {"max_new_tokens", 1},
      {"stop_strings", "stop"},
  };
  const auto is_same = [](const GenerationConfig& a,
                          const GenerationConfig& b) {
    const SamplerOptions& s = a.sampler;
    const SamplerOptions& t = b.sampler;
    return s.temperature == t.temperature && s.top_k == t.top_k &&
        s.top_p == t.top_p && s.min_p == t.min_p &&
        s.typical_p == t.typical_p && s.epsilon_cutoff == t.epsilon_cutoff &&
        s.eta_cutoff == t.eta_cutoff && a.logits == b.logits &&
        a.max_length == b.max_length && a.max_new_tokens == b.max_new_tokens &&
        a.stop_strings == b.stop_strings;
  };
  for (const GenerationKey& key : generation_keys()) {
    if (key.effect != KeyEffect::Honoured ||
        std::string(key.name) == "eos_token_id") { // by stop_ids
      continue;
    }
    ASSERT_TRUE(values.contains(key.name)) << key.name;
    // Keys of drawing mean nothing without do_sample.
    Json config = {{"do_sample", std::string(key.name) != "do_sample"}};
    const auto without = read(config);
    config[key.name] = values[key.name];
    EXPECT_FALSE(is_same(read(config), without)) << key.name;
  }
}

TEST(GenerationConfig, ChoosesTheLengthOfAnAnswer) {
  EXPECT_EQ(read(Json::object()).default_max_tokens(7), 256);
  EXPECT_EQ(read({{"max_length", 20}}).default_max_tokens(7), 13);
  EXPECT_EQ(
      read({{"max_length", 20}, {"max_new_tokens", 5}}).default_max_tokens(99),
      5);
  test::expect_error(
      ErrorKind::InvalidInput, {"20 prompt tokens", "max_length of 20"}, [] {
        (void)read({{"max_length", 20}}).default_max_tokens(20);
      });
}

TEST(GenerationConfig, SaysWhatItDoesNot) {
  EXPECT_TRUE(read({{"top_h", 0.4}}).notices.empty()); // greedy
  const auto drawn = read({{"top_h", 0.4}, {"do_sample", true}});
  ASSERT_EQ(drawn.notices.size(), 1u);
  EXPECT_NE(drawn.notices[0].find("'top_h' is 0.4"), std::string::npos);
  EXPECT_EQ(read({{"max_time", 2.0}}).notices.size(), 1u);

  const Json asks_for_nothing = {
      {"num_beams", 1},
      {"guidance_scale", 1.0},
      {"encoder_repetition_penalty", 1},
      {"token_healing", false},
      {"penalty_alpha", 0},
      {"sequence_bias", nullptr},
      {"constraints", Json::array()},
      {"num_assistant_tokens", 5},
      {"something_new", 5}};
  EXPECT_TRUE(read(asks_for_nothing).notices.empty());
  for (const GenerationKey& key : generation_keys()) {
    if (key.effect == KeyEffect::Refused) {
      test::expect_error(
          ErrorKind::Unsupported, {key.name, "is 3", "Remove the key"}, [&] {
            read({{key.name, 3}});
          });
    }
  }
}

TEST(GenerationConfig, RefusesValuesOutOfRangeWithTheFilesName) {
  test::expect_error(
      ErrorKind::InvalidInput, {"generation_config.json", "top_p is 5"}, [] {
        read({{"do_sample", true}, {"top_p", 5}});
      });
  test::expect_error(
      ErrorKind::InvalidInput,
      {"generation_config.json", "repetition_penalty is 0"},
      [] {
        read({{"repetition_penalty", 0}});
      });
  test::expect_error(
      ErrorKind::InvalidInput,
      {"generation_config.json", "'max_new_tokens' is 0"},
      [] {
        read({{"max_new_tokens", 0}});
      });
  test::expect_error(
      ErrorKind::Corrupt, {"generation_config.json", "bad_words_ids"}, [] {
        read({{"bad_words_ids", {1}}});
      });
}

} // namespace
} // namespace optiq::generate
