#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/sequence_runner.h"
#include "support/small_checkpoint.h"

#include "optiq/io/array.h"
#include "optiq/models/checkpoint.h"
#include "optiq/models/forward.h"
#include "optiq/models/model.h"

namespace optiq::models {
namespace {

using artifacts::Json;
using testing::dense;
using testing::gemma;
using testing::gemma4;
using testing::kVocab;
using testing::sizes;
using testing::write_model;

std::shared_ptr<const Model> make_model(
    const Json& config,
    const std::vector<std::string>& extra = {}) {
  const test::ScratchFolder folder;
  write_model(folder.path(), config, extra);
  return load_model(io::ModelDirectory::open(folder.path()));
}

std::vector<std::int32_t> random_tokens(int n) {
  std::mt19937 random(5);
  std::uniform_int_distribution<std::int32_t> any(0, kVocab - 1);
  std::vector<std::int32_t> tokens(n);
  for (auto& token : tokens) {
    token = any(random);
  }
  return tokens;
}

bool bit_equal(const mx::array& a, const mx::array& b) {
  return a.shape() == b.shape() &&
      std::memcmp(a.data<float>(), b.data<float>(), a.nbytes()) == 0;
}

/** A forward of the tokens from layer `first` on x, on a fresh past. */
mx::array run_from(
    const models::Setup& setup,
    int first,
    const mx::array& x,
    const std::vector<std::int32_t>& tokens) {
  return Forward(setup).add_fresh(tokens).run_layers(
      first, setup.model->info().n_layers, x);
}

TEST(Embedding, RefusesTokensWithoutARowByNameAndNumber) {
  // In Gemma 4 a second table, here a shorter one, is read by the same ids.
  Json config = gemma4();
  config["vocab_size_per_layer_input"] = kVocab - 8;
  const auto model = make_model(config);
  const models::Setup setup(model, kernels::Compute::Exact);
  for (const std::int32_t token : {-1, kVocab}) {
    const std::vector<std::int32_t> tokens = {0, token};
    test::expect_error(
        ErrorKind::InvalidInput,
        {"embed_tokens:", std::to_string(token), std::to_string(kVocab)},
        [&] { model->embed(tokens); });
  }
  const std::vector<std::int32_t> tokens = {kVocab - 8};
  model->embed(tokens);
  test::expect_error(
      ErrorKind::InvalidInput,
      {"embed_tokens_per_layer:", std::to_string(kVocab - 8)},
      [&] { Forward(setup).add_fresh(tokens).run(); });
}

TEST(LastLayer, FewRowsKeepTheirBits) {
  const auto tokens = random_tokens(70);
  for (const Json& config : {gemma4(), gemma(65), sizes("llama")}) {
    const models::Setup setup(make_model(config), kernels::Compute::Exact);
    const mx::array all = logits_of(
        setup, run_from(setup, 0, setup.model->embed(tokens), tokens));
    for (const std::vector<int>& wanted :
         {std::vector<int>{69}, {0, 5, 69}, {3, 4, 5}, {}}) {
      const auto pool = std::make_shared<cache::BlockPool>(1 << 30);
      cache::Sequence sequence(pool, setup.layout);
      const mx::array rows = Forward(setup).add(sequence, tokens, wanted).run();
      EXPECT_TRUE(bit_equal(rows, io::take_rows(all, wanted)))
          << config["model_type"] << ", " << wanted.size() << " rows";
    }
  }
}

TEST(SharedKv, TakesNoMemoryAndDropsStoredProjections) {
  const auto model = make_model(gemma4());
  const auto layout = cache_layout(*model, kernels::Compute::Exact);
  EXPECT_EQ(std::get<cache::SharedFormat>(layout[2]).layer, 0);
  EXPECT_EQ(std::get<cache::SharedFormat>(layout[3]).layer, 1);
  EXPECT_EQ(
      cache::sequence_bytes(layout, 200, 1),
      cache::sequence_bytes(std::span(layout).first(2), 200, 1));
  // The test's directory has k_proj in every layer, as published ones do.
  for (const Module& module : model->modules()) {
    EXPECT_FALSE(
        module.id.layer >= 2 && module.id.role == artifacts::ModuleRole::Key);
  }
}

TEST(SharedKv, ChunksDoNotChangeABit) {
  const auto tokens = random_tokens(140);
  const auto model = make_model(gemma4());
  const auto run = [&](int chunk) {
    testing::SequenceRunner runner(
        {model, kernels::Compute::Fast}, {.prefill_chunk = chunk});
    return runner.extend(*runner.new_sequence(), tokens, 140);
  };
  const mx::array whole = run(140);
  for (const int chunk : {1, 63, 65}) {
    EXPECT_TRUE(bit_equal(run(chunk), whole)) << chunk;
  }
}

// As sensitivity does: states of the original before the changed layer, then
// the changed model from there.
TEST(SharedKv, RerunsFromTheLayerWhoseKvIsRead) {
  const auto tokens = random_tokens(70);
  for (const Json& config : {gemma4(), sizes("llama")}) {
    const auto model = make_model(config);
    const models::Setup setup(model, kernels::Compute::Exact);
    for (const Module& module : model->modules()) {
      if (module.id.role != artifacts::ModuleRole::AttentionOutput) {
        continue;
      }
      const int first = model->rerun_from(module.id.layer);
      EXPECT_LE(first, module.id.layer);
      const mx::array zeros = io::make_array(
          {module.matrix.out_features(), module.matrix.in_features()},
          mx::float32);
      const models::Setup changed = setup.with_model(model->with_matrices(
          {{module.name, kernels::cpu_device().dense(zeros)}}));
      const mx::array state = Forward(setup).add_fresh(tokens).run_layers(
          0, first, model->embed(tokens));
      EXPECT_TRUE(bit_equal(
          run_from(changed, first, state, tokens),
          run_from(changed, 0, changed.model->embed(tokens), tokens)))
          << module.name;
    }
  }
}

// The cap is what sequence_bytes promises: a sequence that kept a hidden block
// would run out.
TEST(SlidingWindow, ChunksDoNotChangeABitAndMemoryStaysBounded) {
  const auto tokens = random_tokens(140);
  for (const int window : {1, 65}) {
    const models::Setup setup(
        make_model(gemma(window)), kernels::Compute::Exact);
    const auto run = [&](int chunk) {
      testing::SequenceRunner runner(
          setup,
          {.prefill_chunk = chunk,
           .max_cache_bytes = cache::sequence_bytes(setup.layout, 140, chunk)});
      return runner.extend(*runner.new_sequence(), tokens, 140);
    };
    const mx::array whole = run(140);
    for (const int chunk : {1, 63, 65}) {
      EXPECT_TRUE(bit_equal(run(chunk), whole)) << window << " " << chunk;
    }
  }
}

TEST(SlidingWindow, BatchesDoNotChangeABit) {
  const auto tokens = random_tokens(320);
  const auto model = make_model(gemma(65));
  testing::SequenceRunner runner(
      {model, kernels::Compute::Fast}, {.prefill_chunk = 128});
  const std::vector<int> lengths{10, 64, 65, 130, 300};
  std::vector<std::unique_ptr<cache::Sequence>> batch;
  std::vector<std::unique_ptr<cache::Sequence>> alone;
  for (const int length : lengths) {
    for (auto* sequences : {&batch, &alone}) {
      sequences->push_back(runner.new_sequence());
      runner.extend(
          *sequences->back(), {tokens.data(), std::size_t(length)}, 1);
    }
  }
  for (int step = 0; step < 8; ++step) {
    std::vector<testing::SequenceRunner::Work> work;
    for (const auto& sequence : batch) {
      work.push_back({sequence.get(), {&tokens[300 + step], 1}});
    }
    const mx::array together = runner.step(work);
    for (std::size_t i = 0; i < alone.size(); ++i) {
      const mx::array one =
          runner.extend(*alone[i], {&tokens[300 + step], 1}, 1);
      ASSERT_TRUE(bit_equal(io::row_range(together, int(i), 1), one))
          << i << " " << step;
    }
  }
}

// A last-layer query reaches (window - 1) tokens back per layer, no further.
TEST(SlidingWindow, ForgetsWhatNoLayerSees) {
  Json config = sizes("mistral");
  config["sliding_window"] = 20; // in all 4 layers
  const auto model = make_model(config);
  auto tokens = random_tokens(200);
  const auto last = [&] {
    testing::SequenceRunner runner({model, kernels::Compute::Exact}, {});
    return runner.extend(*runner.new_sequence(), tokens, 1);
  };
  const mx::array before = last();
  const int reach = 4 * 19;
  tokens[199 - reach - 1] = (tokens[199 - reach - 1] + 1) % kVocab;
  EXPECT_TRUE(bit_equal(last(), before));
  tokens[199 - reach] = (tokens[199 - reach] + 1) % kVocab;
  EXPECT_FALSE(bit_equal(last(), before));
}

/** One of each family, and what Llama may have besides. */
std::vector<Json> dense_configs() {
  std::vector<Json> configs;
  for (const char* type : testing::kDenseFamilies) {
    configs.push_back(dense(type));
  }
  Json dynamic = sizes("llama");
  dynamic["max_position_embeddings"] = 50;
  dynamic["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 4.0}};
  configs.push_back(dynamic);
  Json longrope = dense("phi3");
  longrope["original_max_position_embeddings"] = 50;
  longrope["rope_scaling"] = {
      {"type", "longrope"},
      {"long_factor", {1.0, 2.0, 3.0, 4.0}},
      {"short_factor", {1.0, 1.0, 1.0, 1.0}}};
  configs.push_back(longrope);
  return configs;
}

TEST(DenseFamilies, ChunksDoNotChangeABit) {
  const auto tokens = random_tokens(100);
  const std::span<const std::int32_t> all(tokens);
  for (const Json& config : dense_configs()) {
    const auto model = make_model(config);
    testing::SequenceRunner whole(
        {model, kernels::Compute::Fast}, {.prefill_chunk = 100});
    const mx::array expected = whole.extend(*whole.new_sequence(), all, 100);
    testing::SequenceRunner runner(
        {model, kernels::Compute::Fast}, {.prefill_chunk = 63});
    const auto sequence = runner.new_sequence();
    const mx::array first = runner.extend(*sequence, all.first(96), 96);
    EXPECT_TRUE(bit_equal(first, io::row_range(expected, 0, 96)))
        << config["model_type"];
    for (int i = 96; i < 100; ++i) {
      const mx::array row = runner.extend(*sequence, all.subspan(i, 1), 1);
      EXPECT_TRUE(bit_equal(row, io::row_range(expected, i, 1)))
          << config["model_type"] << " " << i;
    }
  }
}

// transformers 5 words RoPE by the kind of layer, earlier ones once for all.
TEST(DenseFamilies, ReadRopeByTheKindOfLayer) {
  const auto tokens = random_tokens(70);
  const Json yarn{
      {"rope_type", "yarn"},
      {"factor", 4.0},
      {"original_max_position_embeddings", 50}};
  const auto logits = [&](const Json& config) {
    testing::SequenceRunner runner(
        {make_model(config), kernels::Compute::Fast}, {.prefill_chunk = 70});
    return runner.extend(*runner.new_sequence(), tokens, 70);
  };
  Json flat = dense("olmo3");
  flat["rope_scaling"] = yarn;
  Json by_kind = dense("olmo3");
  by_kind.erase("rope_theta");
  by_kind["rope_parameters"]["full_attention"] = yarn;
  by_kind["rope_parameters"]["full_attention"]["rope_theta"] = 1e4;
  by_kind["rope_parameters"]["sliding_attention"] = {
      {"rope_type", "default"}, {"rope_theta", 1e4}};
  EXPECT_TRUE(bit_equal(logits(flat), logits(by_kind)));
  by_kind["rope_parameters"]["sliding_attention"] = yarn;
  by_kind["rope_parameters"]["sliding_attention"]["rope_theta"] = 1e4;
  EXPECT_FALSE(bit_equal(logits(flat), logits(by_kind)));
}

TEST(DenseFamilies, KnowTheirWindows) {
  const auto windows_of = [](const Json& config) {
    std::vector<int> windows;
    for (const auto& format : make_model(config)->dense_layout(mx::bfloat16)) {
      windows.push_back(std::get<kernels::KvFormat>(format).window);
    }
    return windows;
  };
  using Windows = std::vector<int>;
  EXPECT_EQ(windows_of(dense("gemma2")), (Windows{65, 0, 65, 0}));
  EXPECT_EQ(windows_of(dense("olmo3")), (Windows{65, 65, 65, 0}));
  EXPECT_EQ(windows_of(dense("cohere2")), (Windows{65, 65, 65, 0}));
  EXPECT_EQ(windows_of(dense("phi3")), (Windows{0, 0, 0, 0}));
  Json phi = dense("phi3");
  phi["sliding_window"] = 30;
  EXPECT_EQ(windows_of(phi), (Windows{30, 30, 30, 30}));
  Json qwen = dense("qwen2");
  qwen["use_sliding_window"] = true;
  qwen["max_window_layers"] = 3;
  qwen["sliding_window"] = 30;
  EXPECT_EQ(windows_of(qwen), (Windows{0, 0, 0, 30}));
}

TEST(DenseFamilies, ReachThePositionsOfTheirRope) {
  Json config = sizes("llama");
  const auto positions = [&](const Json& scaling) {
    config["rope_scaling"] = scaling;
    return make_model(config)->info().max_positions;
  };
  EXPECT_EQ(positions({{"rope_type", "linear"}, {"factor", 4.0}}), 4096);
  EXPECT_EQ(positions({{"rope_type", "dynamic"}, {"factor", 4.0}}), 4 * 4096);
  EXPECT_EQ(
      positions(
          {{"rope_type", "yarn"},
           {"factor", 4.0},
           {"original_max_position_embeddings", 2048}}),
      8192);
}

TEST(DenseFamilies, FusedProjectionsAreModules) {
  const auto model = make_model(dense("phi3"));
  const auto modules = model->modules();
  ASSERT_EQ(modules.size(), 1u + 4 * 4);
  EXPECT_EQ(modules[1].name, "model.layers.0.self_attn.qkv_proj");
  EXPECT_EQ(modules[1].matrix.out_features(), 128);
  EXPECT_EQ(modules[3].name, "model.layers.0.mlp.gate_up_proj");
}

// A tower's tensors are set aside, and every spelling of a checkpoint becomes
// mlx-lm's.
TEST(Mistral3, HasItsLanguageModelUnderMlxNames) {
  for (const char* prefix :
       {"language_model.model.", "model.language_model."}) {
    const test::ScratchFolder folder;
    write_model(folder.path(), sizes("llama"));
    const auto file =
        io::SafetensorsFile::open(folder.path() / "model.safetensors");
    std::vector<io::TensorToWrite> tensors;
    const auto add = [&](const std::string& name, const mx::array& values) {
      tensors.push_back(
          {name, values.dtype(), values.shape(), [values] { return values; }});
    };
    for (const auto& tensor : file.tensors()) {
      add(prefix + tensor.name.substr(std::string("model.").size()),
          file.load(tensor));
    }
    add("vision_tower.patch_conv.weight",
        io::make_array({2, 2, 3, 3}, mx::float32));
    const test::ScratchFolder out;
    io::write_safetensors(out.path() / "model.safetensors", tensors, {});
    Json text = sizes("mistral");
    test::write_file(
        out.path() / "config.json",
        Json{{"model_type", "mistral3"}, {"text_config", text}}.dump());
    const auto model = load_model(io::ModelDirectory::open(out.path()));
    EXPECT_EQ(
        model->modules()[1].name,
        "language_model.model.layers.0.self_attn.q_proj");
    EXPECT_TRUE(model->info().tied_head);
  }
}

TEST(Layout, FollowsTheLayerKinds) {
  Json config = gemma(100);
  config["layer_types"] = {
      "sliding_attention",
      "full_attention",
      "full_attention",
      "sliding_attention"};
  std::vector<int> windows;
  for (const auto& format : make_model(config)->dense_layout(mx::bfloat16)) {
    windows.push_back(std::get<kernels::KvFormat>(format).window);
  }
  EXPECT_EQ(windows, (std::vector<int>{100, 0, 0, 100}));
}

TEST(Layout, HasEveryModuleUnderItsMlxName) {
  const auto model = make_model(sizes("llama"));
  const auto modules = model->modules();
  ASSERT_EQ(modules.size(), 1u + 4 * 7);
  EXPECT_EQ(modules[0].name, "model.embed_tokens");
  EXPECT_EQ(modules[0].id.role, artifacts::ModuleRole::Embedding);
  EXPECT_EQ(modules[8].name, "model.layers.1.self_attn.q_proj");
  EXPECT_EQ(modules[8].id, artifacts::module_id(modules[8].name));
  EXPECT_EQ(modules[8].id.layer, 1);
}

TEST(Head, IsTiedWhereTheConfigIsSilentAndItIsMissing) {
  Json config = sizes("llama");
  EXPECT_TRUE(make_model(config)->info().tied_head);
  // Stored all the same: dropped.
  EXPECT_TRUE(make_model(config, {"lm_head.weight"})->info().tied_head);
  config.erase("tie_word_embeddings");
  EXPECT_TRUE(make_model(config)->info().tied_head);
  EXPECT_FALSE(make_model(config, {"lm_head.weight"})->info().tied_head);
  config["tie_word_embeddings"] = false;
  test::expect_error(
      ErrorKind::NotFound, {"lm_head.weight"}, [&] { make_model(config); });
}

TEST(Checkpoint, DropsStoredFrequenciesAndRefusesStrangers) {
  const std::string attention = "model.layers.0.self_attn.";
  make_model(sizes("llama"), {attention + "rotary_emb.inv_freq"});
  test::expect_error(ErrorKind::Corrupt, {"q_norm.weight", "no place"}, [&] {
    make_model(sizes("llama"), {attention + "q_norm.weight"});
  });
}

TEST(Config, RefusesByNameWhatIsNotRun) {
  struct Case {
    const char* model_type;
    const char* key;
    Json value;
    ErrorKind kind;
    const char* named;
  };
  const Json mrope{{"rope_type", "mrope"}, {"factor", 4.0}};
  const Json short_list{{"rope_type", "longrope"}, {"long_factor", {1.0, 2.0}}};
  const Json no_blend{
      {"rope_type", "llama3"},
      {"factor", 8.0},
      {"low_freq_factor", 4.0},
      {"high_freq_factor", 4.0}};
  using enum ErrorKind;
  const std::vector<Case> cases{
      {"qwen3", "attention_bias", true, Unsupported, "attention_bias"},
      {"qwen2", "mlp_bias", true, Unsupported, "mlp_bias"},
      {"cohere2", "layer_types", "all", Corrupt, "layer_types"},
      {"gemma3_text",
       "rope_traditional",
       true,
       Unsupported,
       "rope_traditional"},
      {"llama", "rope_scaling", mrope, Unsupported, "mrope"},
      {"llama", "rope_scaling", short_list, Corrupt, "long_factor"},
      {"smollm3", "no_rope_layers", {1, 0}, Corrupt, "no_rope_layers"},
      {"smollm3", "no_rope_layers", {1, 0, 2, 1}, Corrupt, "no_rope_layers"},
      {"granite", "residual_multiplier", nullptr, Corrupt, "residual_"},
      {"gemma2", "sliding_window", nullptr, Corrupt, "sliding_window"},
      {"glm4", "partial_rotary_factor", 0.2, Unsupported, "3 channels"},
      {"ministral3", "rope_parameters", nullptr, Corrupt, "rope_parameters"},
      {"llama", "rope_scaling", no_blend, Corrupt, "high_freq_factor"},
      {"llama", "rope_scaling", "yarn", Corrupt, "rope_scaling"},
      {"llama", "partial_rotary_factor", 0.5, Unsupported, "partial_rotary"},
      {"llama", "hidden_act", "gelu", Unsupported, "gelu"},
      {"llama", "head_dim", 15, Unsupported, "head_dim"},
      {"llama", "num_key_value_heads", 3, Corrupt, "num_key_value_heads"},
      {"llama",
       "layer_types",
       Json::array({"full_attention"}),
       Corrupt,
       "layer_types"},
      {"llama",
       "layer_types",
       Json::array({"chunked", "chunked", "chunked", "chunked"}),
       Unsupported,
       "chunked"},
      {"llama", "rms_norm_eps", 0.0, Corrupt, "rms_norm_eps"},
      {"qwen3", "use_sliding_window", true, Corrupt, "max_window_layers"},
      {"qwen3", "head_dim", nullptr, Corrupt, "head_dim"},
      {"gemma3_text",
       "final_logit_softcapping",
       30.0,
       Unsupported,
       "final_logit_softcapping"},
      {"gemma3_text",
       "use_bidirectional_attention",
       true,
       Unsupported,
       "use_bidirectional_attention"},
      {"gemma3_text", "hidden_activation", "silu", Unsupported, "silu"},
      {"gemma4_text",
       "enable_moe_block",
       true,
       Unsupported,
       "enable_moe_block"},
      {"gemma4_text",
       "num_kv_shared_layers",
       4,
       Corrupt,
       "num_kv_shared_layers"},
      {"gemma4_text", "num_kv_shared_layers", 3, Corrupt, "layer 1"},
      {"gemma3_text", "sliding_window", nullptr, Corrupt, "sliding_window"}};
  for (const Case& c : cases) {
    const std::string type = c.model_type;
    Json config = type == "gemma3_text" ? gemma(64)
        : type == "gemma4_text"         ? gemma4()
                                        : dense(type);
    config[c.key] = c.value;
    test::expect_error(
        c.kind, {c.named, "config.json"}, [&] { make_model(config); });
  }
}

} // namespace
} // namespace optiq::models
