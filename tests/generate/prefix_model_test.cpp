#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/kernel_checks.h"
#include "support/scratch_folder.h"
#include "support/sequence_runner.h"
#include "support/tiny_model.h"

#include "optiq/generate/generator.h"
#include "optiq/io/safetensors.h"
#include "optiq/models/setup.h"

namespace optiq::generate {
namespace {

namespace mx = mlx::core;

using artifacts::Json;
using kernels::Compute;
using ModelPtr = std::shared_ptr<const models::Model>;
using Prompt = std::vector<std::int32_t>;
using testing::SequenceRunner;

constexpr int kVocab = 97; // of the random model; tiny-qwen3.5 has more
constexpr int kHidden = 64;
constexpr int kLayers = 4;
constexpr int kChunk = 100; // of prefill

/** Passes everything on and counts the tokens that are forwarded. */
class CountingModel final : public models::Model {
 public:
  explicit CountingModel(ModelPtr model) : model_(std::move(model)) {}

  std::size_t tokens() const {
    return tokens_;
  }

  mx::array embed(std::span<const std::int32_t> tokens) const override {
    tokens_ += tokens.size();
    return model_->embed(tokens);
  }

  const models::ModelInfo& info() const override {
    return model_->info();
  }
  std::vector<cache::LayerFormat> dense_layout(
      mx::Dtype kv_dtype) const override {
    return model_->dense_layout(kv_dtype);
  }
  mx::array run_layer(
      int layer,
      const mx::array& x,
      const nn::ForwardContext& context) const override {
    return model_->run_layer(layer, x, context);
  }
  mx::array logits(const mx::array& x, const nn::ForwardContext& context)
      const override {
    return model_->logits(x, context);
  }
  std::vector<models::Module> modules() const override {
    return model_->modules();
  }
  std::unique_ptr<models::Model> with_matrices(
      const models::MatricesByName& matrices) const override {
    return model_->with_matrices(matrices);
  }

 private:
  ModelPtr model_;
  mutable std::size_t tokens_ = 0;
};

/** A random Gemma 3: every other layer sees 100 tokens. */
ModelPtr windowed_model() {
  const Json config{
      {"model_type", "gemma3_text"},
      {"vocab_size", kVocab},
      {"hidden_size", kHidden},
      {"intermediate_size", 96},
      {"num_hidden_layers", kLayers},
      {"num_attention_heads", 2},
      {"num_key_value_heads", 1},
      {"head_dim", 64},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 1e4},
      {"max_position_embeddings", 4096},
      {"tie_word_embeddings", true},
      {"query_pre_attn_scalar", 64},
      {"sliding_window", 100},
      {"sliding_window_pattern", 2}};
  std::mt19937 random(3);
  std::vector<io::TensorToWrite> tensors;
  const auto add = [&](const std::string& name, const mx::Shape& shape) {
    mx::array values = io::make_array(shape, mx::float32);
    std::normal_distribution<float> normal(
        0.f, 1.f / std::sqrt(static_cast<float>(shape.back())));
    for (float& value : io::mutable_floats(values)) {
      value = normal(random);
    }
    tensors.push_back(
        {.name = name, .dtype = mx::float32, .shape = shape, .make = [values] {
           return values;
         }});
  };
  add("model.embed_tokens.weight", {kVocab, kHidden});
  add("model.norm.weight", {kHidden});
  for (int i = 0; i < kLayers; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    add(p + "self_attn.q_proj.weight", {128, kHidden});
    add(p + "self_attn.k_proj.weight", {64, kHidden});
    add(p + "self_attn.v_proj.weight", {64, kHidden});
    add(p + "self_attn.o_proj.weight", {kHidden, 128});
    add(p + "self_attn.q_norm.weight", {64});
    add(p + "self_attn.k_norm.weight", {64});
    add(p + "mlp.gate_proj.weight", {96, kHidden});
    add(p + "mlp.up_proj.weight", {96, kHidden});
    add(p + "mlp.down_proj.weight", {kHidden, 96});
    for (const char* norm :
         {"input_layernorm",
          "post_attention_layernorm",
          "pre_feedforward_layernorm",
          "post_feedforward_layernorm"}) {
      add(p + norm + ".weight", {kHidden});
    }
  }
  const test::ScratchFolder folder;
  io::write_safetensors(folder / "model.safetensors", tensors, {});
  test::write_file(folder / "config.json", config.dump());
  return models::load_model(io::ModelDirectory::open(folder.path()));
}

/** A way to keep K/V; method is not used at 0 bits (dense). */
struct Format {
  const char* name;
  artifacts::KvMethod method;
  double bits;
};
constexpr Format kFormats[] = {
    {"dense", artifacts::KvMethod::Affine, 0},
    {"affine 4", artifacts::KvMethod::Affine, 4},
    {"affine 2", artifacts::KvMethod::Affine, 2},
    {"turbo 4", artifacts::KvMethod::Turbo, 4},
    {"turbo 2.5", artifacts::KvMethod::Turbo, 2.5}};

/** The model with every layer's K/V in a format. */
models::Setup with_format(const ModelPtr& model, const Format& format) {
  std::vector<artifacts::KvLayer> kv;
  for (const int layer : models::kv_layers(*model)) {
    if (format.bits == 0) {
      break;
    }
    kv.push_back(
        {.layer_idx = layer,
         .codec = {
             .method = format.method,
             .key_bits = format.bits,
             .value_bits = format.bits}});
  }
  return {model, Compute::Fast, kv};
}

Prompt text(int name, std::size_t n) {
  std::mt19937 random(name);
  Prompt tokens(n);
  for (auto& token : tokens) {
    token = static_cast<std::int32_t>(random() % kVocab);
  }
  return tokens;
}

/** Eight prompts of different lengths: six begin alike for 200 tokens (3
 * blocks), two of these for 330 (5 blocks); one is a block, one a token. */
std::vector<Prompt> eight_prompts() {
  const Prompt common = text(1, 200);
  std::vector<Prompt> prompts;
  for (const int n : {1, 30, 57, 190}) {
    prompts.push_back(common);
    const Prompt own = text(10 + n, n);
    prompts.back().insert(prompts.back().end(), own.begin(), own.end());
  }
  Prompt longer = common;
  const Prompt more = text(2, 130);
  longer.insert(longer.end(), more.begin(), more.end());
  for (const int n : {8, 70}) {
    prompts.push_back(longer);
    const Prompt own = text(100 + n, n);
    prompts.back().insert(prompts.back().end(), own.begin(), own.end());
  }
  prompts.push_back(text(3, 64));
  prompts.push_back(text(4, 1));
  return prompts;
}

using Logits = std::vector<std::vector<float>>; // by step
constexpr int kSteps = 3;

std::vector<float> floats_of(const mx::array& x) {
  return {io::floats(x).begin(), io::floats(x).end()};
}

/** Logits of a prompt's last token and of kSteps given ones, on an engine that
 * has seen nothing else. */
Logits alone(const models::Setup& setup, const Prompt& prompt) {
  SequenceRunner runner(setup, {.prefill_chunk = kChunk});
  const auto sequence = runner.new_sequence();
  Logits logits{floats_of(runner.extend(*sequence, prompt, 1))};
  for (const std::int32_t token : text(5, kSteps)) {
    logits.push_back(floats_of(runner.extend(*sequence, {&token, 1}, 1)));
  }
  return logits;
}

/** Prefills what the runner has not kept, and keeps the prompt where it ends a
 * block. Returns the logits of the last token. */
std::vector<float> prefill(
    SequenceRunner& runner,
    const Prompt& prompt,
    cache::Sequence& sequence) {
  const std::span<const std::int32_t> tokens = prompt;
  const auto from = static_cast<std::size_t>(sequence.length());
  const std::size_t border = (tokens.size() - 1) / 64 * 64;
  if (border > from) {
    runner.extend(sequence, tokens.subspan(from, border - from), 1);
    runner.keep_prefix(tokens.first(border), sequence);
  }
  const auto at = static_cast<std::size_t>(sequence.length());
  return floats_of(runner.extend(sequence, tokens.subspan(at), 1));
}

/** The eight prompts in one runner that shares, decoding together. Returns how
 * many tokens were resumed. */
std::size_t expect_batch_equals(
    SequenceRunner& runner,
    const std::vector<Prompt>& prompts,
    const std::vector<Logits>& expected) {
  std::vector<std::unique_ptr<cache::Sequence>> sequences;
  std::size_t resumed = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    sequences.push_back(runner.resume(prompts[i]));
    resumed += static_cast<std::size_t>(sequences.back()->length());
    EXPECT_TRUE(testing::same_bits(
        prefill(runner, prompts[i], *sequences.back()), expected[i][0]))
        << i;
  }
  const Prompt next = text(5, kSteps);
  for (int step = 0; step < kSteps; ++step) {
    std::vector<SequenceRunner::Work> work;
    for (const auto& sequence : sequences) {
      work.push_back({sequence.get(), {&next[step], 1}});
    }
    const mx::array logits = runner.step(work);
    const auto vocab = static_cast<std::size_t>(logits.shape(1));
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_TRUE(testing::same_bits(
          io::floats(logits).subspan(i * vocab, vocab), expected[i][step + 1]))
          << i << " " << step;
    }
  }
  return resumed;
}

/** What eight sequences of these prompts, and a bit, take. */
std::size_t tight_cap(
    const SequenceRunner& runner,
    const std::vector<Prompt>& prompts) {
  std::size_t bytes = 0;
  for (const Prompt& prompt : prompts) {
    bytes +=
        cache::sequence_bytes(runner.layout(), prompt.size() + kSteps, kChunk);
  }
  return bytes + cache::fixed_bytes(runner.layout());
}

void expect_sharing_changes_no_bit(const ModelPtr& dense) {
  const std::vector<Prompt> prompts = eight_prompts();
  for (const Format& format : kFormats) {
    SCOPED_TRACE(format.name);
    const models::Setup setup = with_format(dense, format);
    std::vector<Logits> expected;
    for (const Prompt& prompt : prompts) {
      expected.push_back(alone(setup, prompt));
    }
    SequenceRunner runner(setup, {.prefill_chunk = kChunk});
    expect_batch_equals(runner, prompts, expected);
    // All that was kept at the ends is found again.
    std::size_t ends = 0;
    for (const Prompt& prompt : prompts) {
      ends += (prompt.size() - 1) / 64 * 64;
    }
    const std::size_t found = expect_batch_equals(runner, prompts, expected);
    if (cache::fixed_bytes(runner.layout()) > 0) {
      EXPECT_EQ(found, ends);
    } else {
      EXPECT_GE(found, ends); // K/V alone can be cut in a block, too
    }

    // Texts that come in between drive out what was kept.
    SequenceRunner tight(
        setup,
        {.prefill_chunk = kChunk,
         .max_cache_bytes = tight_cap(runner, prompts)});
    for (const int n_others : {4, 16}) {
      for (int i = 0; i < n_others; ++i) {
        prefill(tight, text(50 + n_others + i, 150), *tight.new_sequence());
      }
      const std::size_t resumed = expect_batch_equals(tight, prompts, expected);
      EXPECT_LT(resumed, ends) << n_others;
      EXPECT_GT(resumed, 0u) << n_others;
    }
  }
}

TEST(PrefixSharing, ChangesNoBitOfAHybrid) {
  expect_sharing_changes_no_bit(testing::load_tiny_model());
}

TEST(PrefixSharing, ChangesNoBitWithWindows) {
  expect_sharing_changes_no_bit(windowed_model());
}

TEST(PrefixSharing, SeparatesKeys) {
  SequenceRunner runner({windowed_model(), Compute::Fast}, {});
  const Prompt prompt = text(1, 150);
  const auto sequence = runner.resume(prompt, "a");
  runner.extend(*sequence, std::span(prompt).first(128), 1);
  runner.keep_prefix(std::span(prompt).first(128), *sequence, "a");
  EXPECT_EQ(runner.resume(prompt, "b")->length(), 0);
  EXPECT_EQ(runner.resume(prompt)->length(), 0);
  EXPECT_EQ(runner.resume(prompt, "a")->length(), 128);
}

/** Questions behind a common beginning of n tokens. */
std::vector<Prompt> questions(std::size_t n) {
  std::vector<Prompt> prompts(12, text(1, n));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const Prompt own = text(20 + static_cast<int>(i), 10 + 3 * i);
    prompts[i].insert(prompts[i].end(), own.begin(), own.end());
  }
  return prompts;
}

TEST(GenerateBatch, PrefillsACommonBeginningOnce) {
  for (const ModelPtr& model : {testing::load_tiny_model(), windowed_model()}) {
    const std::vector<Prompt> prompts = questions(210);
    std::size_t all = 0;
    for (const Prompt& prompt : prompts) {
      all += prompt.size();
    }
    const auto run = [&](bool share, int batch, std::size_t max_bytes) {
      const auto counting = std::make_shared<CountingModel>(model);
      Engine engine(
          {counting, Compute::Fast},
          {.max_cache_bytes = max_bytes, .max_running = batch});
      std::vector<Prompt> answers;
      for (const Completion& completion : generate_batch(
               engine, prompts, {.max_tokens = 4, .share_prefixes = share})) {
        answers.push_back(completion.tokens);
      }
      // Three steps forward a token; the fourth is not run.
      return std::pair{answers, counting->tokens() - 3 * prompts.size()};
    };
    constexpr std::size_t kRoom = std::size_t{1} << 30;
    const auto [answers, forwarded] = run(false, 8, kRoom);
    EXPECT_EQ(forwarded, all);
    // Whole blocks while the first one runs; K/V without states to the token.
    const bool has_states =
        cache::fixed_bytes(model->dense_layout(mx::bfloat16)) > 0;
    const std::size_t common = has_states ? 192 : 210;
    for (const std::size_t batch : {1, 5, 8}) {
      const auto [shared, fewer] = run(true, static_cast<int>(batch), kRoom);
      EXPECT_EQ(shared, answers) << batch;
      EXPECT_EQ(
          fewer, all - (batch - 1) * 192 - (prompts.size() - batch) * common)
          << batch;
      // With just the memory that it takes without sharing.
      const std::size_t one = cache::sequence_bytes(
          model->dense_layout(mx::bfloat16), prompts.back().size() + 4, 512);
      EXPECT_EQ(run(true, static_cast<int>(batch), batch * one).first, answers)
          << batch;
    }
  }
}

} // namespace
} // namespace optiq::generate
