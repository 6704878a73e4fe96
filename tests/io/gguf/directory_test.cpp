#include <cmath>
#include <functional>
#include <map>
#include <numbers>

#include <gtest/gtest.h>

#include "io/gguf/small_model.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

#include "optiq/io/array.h"
#include "optiq/io/model_directory.h"

namespace optiq::io {
namespace {

using artifacts::Json;
using test::expect_error;
using test::f32_value;
using test::gemma;
using test::kF16;
using test::kF32;
using test::kQ8_0;
using test::llama;
using test::ScratchFolder;
using test::SmallModel;

/** A model written to a file of its own. */
struct Opened {
  explicit Opened(
      const SmallModel& model,
      QuantizedForm form = QuantizedForm::Values)
      : directory([&] {
          test::write_file(folder / "small.gguf", model.bytes());
          return ModelDirectory::open(folder / "small.gguf", form);
        }()) {}
  ScratchFolder folder;
  ModelDirectory directory;
};

TEST(GgufModel, LlamaConfigSaysWhatTheMetadataSays) {
  const Opened opened(llama());
  EXPECT_EQ(
      opened.directory.config(),
      Json::parse(R"({"architectures": ["LlamaForCausalLM"],
        "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1,
        "intermediate_size": 64, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 4,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
        "max_position_embeddings": 128, "tie_word_embeddings": true,
        "eos_token_id": 3})"));
  EXPECT_EQ(
      opened.directory.generation_config(),
      Json::parse(R"({"eos_token_id": [3]})"));
}

TEST(GgufModel, GemmaConfigHasItsOwnKeys) {
  const Json config = Opened(gemma()).directory.config();
  EXPECT_EQ(config["model_type"], "gemma3_text");
  EXPECT_EQ(config["query_pre_attn_scalar"], 16);
  EXPECT_EQ(config["sliding_window"], 512);
  EXPECT_EQ(config["sliding_window_pattern"], 6);
  EXPECT_EQ(config["rope_local_base_freq"], 10000.0);
}

TEST(GgufModel, TensorsHaveHuggingFaceNamesShapesAndTypes) {
  SmallModel model = llama("qwen3");
  model.tensors["blk.0.attn_q_norm.weight"] = {{16}, kF32, ""};
  model.tensors["blk.0.attn_k_norm.weight"] = {{16}, kF32, ""};
  model.tensors["output.weight"] = {{32, 4}, kQ8_0, ""};
  const Opened opened(model);
  std::map<std::string, mx::Shape> found;
  for (const TensorInfo& info : opened.directory.tensors()) {
    found[info.name] = info.shape;
  }
  const std::string l = "model.layers.0.";
  const std::map<std::string, mx::Shape> expected = {
      {"model.embed_tokens.weight", {4, 32}},
      {"model.norm.weight", {32}},
      {"lm_head.weight", {4, 32}},
      {l + "input_layernorm.weight", {32}},
      {l + "post_attention_layernorm.weight", {32}},
      {l + "self_attn.q_proj.weight", {32, 32}},
      {l + "self_attn.k_proj.weight", {16, 32}},
      {l + "self_attn.v_proj.weight", {16, 32}},
      {l + "self_attn.o_proj.weight", {32, 32}},
      {l + "self_attn.q_norm.weight", {16}},
      {l + "self_attn.k_norm.weight", {16}},
      {l + "mlp.gate_proj.weight", {64, 32}},
      {l + "mlp.up_proj.weight", {64, 32}},
      {l + "mlp.down_proj.weight", {32, 64}}};
  EXPECT_EQ(found, expected);
  EXPECT_EQ(opened.directory.config()["tie_word_embeddings"], false);
}

TEST(GgufModel, WhatIsConvertedHasOneDtype) {
  const auto dtypes = [](std::uint32_t embeddings) {
    SmallModel model = llama();
    model.tensors["token_embd.weight"] = {{32, 4}, embeddings, ""};
    std::vector<mx::Dtype> found;
    const Opened opened(model);
    for (const TensorInfo& info : opened.directory.tensors()) {
      EXPECT_EQ(opened.directory.load(info.name).dtype(), info.dtype);
      found.push_back(info.dtype);
    }
    return found;
  };
  for (const auto& [embeddings, expected] :
       {std::pair{kQ8_0, mx::float16},
        std::pair{kF32, mx::float32},
        std::pair{kF16, mx::float16}}) {
    for (const mx::Dtype dtype : dtypes(embeddings)) {
      EXPECT_EQ(dtype, expected);
    }
  }
}

TEST(GgufModel, WhatFloat16CannotHoldIsRefused) {
  SmallModel model = llama();
  model.tensors["token_embd.weight"] = {{32, 4}, kQ8_0, ""};
  std::string large;
  for (int i = 0; i < 32; ++i) {
    large += test::raw(1e5f);
  }
  model.tensors["blk.0.attn_norm.weight"].bytes = large;
  const Opened opened(model);
  test::expect_error(
      ErrorKind::Unsupported, {"blk.0.attn_norm.weight", "65504"}, [&] {
        opened.directory.load("model.layers.0.input_layernorm.weight");
      });
}

TEST(GgufModel, ARunSeesMlxTriplesAndTheirWidths) {
  const Opened opened(llama(), QuantizedForm::Affine);
  const ModelDirectory& directory = opened.directory;
  const std::string module = "model.layers.0.mlp.down_proj";
  EXPECT_EQ(
      directory.config()["quantization"][module],
      Json::parse(R"({"group_size": 32, "bits": 8})"));
  EXPECT_EQ(directory.info(module + ".weight").shape, (mx::Shape{32, 16}));
  EXPECT_EQ(directory.info(module + ".scales").shape, (mx::Shape{32, 2}));
  EXPECT_FALSE(directory.config()["quantization"].contains("model.norm"));
  std::uint64_t stored = 0;
  for (const char* leaf : {".weight", ".scales", ".biases"}) {
    const mx::array loaded = directory.load(module + leaf);
    EXPECT_EQ(loaded.shape(), directory.info(module + leaf).shape);
    EXPECT_EQ(loaded.dtype(), directory.info(module + leaf).dtype);
    stored += directory.info(module + leaf).nbytes;
  }
  EXPECT_EQ(stored, 64u * 32 / 32 * 34); // what the file holds
  EXPECT_GT(directory.loaded_bytes(), 0u);
}

/** Rows 0, 1, 2... as F32, `cols` wide. */
std::string numbered_rows(int rows, int cols) {
  std::string bytes;
  for (int i = 0; i < rows * cols; ++i) {
    bytes += test::raw(static_cast<float>(i / cols));
  }
  return bytes;
}

TEST(GgufModel, OnlyLlamasQueriesAndKeysChangeTheirRows) {
  for (const auto& [name, interleaved] :
       {std::pair{"llama", true}, std::pair{"qwen3", false}}) {
    SmallModel model = llama(name);
    for (const char* leaf : {"attn_q.weight", "attn_output.weight"}) {
      model.tensors[std::string("blk.0.") + leaf] = {
          {32, 32}, kF32, numbered_rows(32, 32)};
    }
    model.tensors["blk.0.attn_q.bias"] = {{32}, kF32, numbered_rows(32, 1)};
    const Opened opened(model, QuantizedForm::Affine);
    const auto q =
        opened.directory.load("model.layers.0.self_attn.q_proj.weight");
    const auto bias =
        opened.directory.load("model.layers.0.self_attn.q_proj.bias");
    const auto o =
        opened.directory.load("model.layers.0.self_attn.o_proj.weight");
    for (int row = 0; row < 32; ++row) {
      const int head = row / 16;
      const int half = row % 16 / 8;
      const int pair = row % 8;
      const int stored = interleaved ? head * 16 + 2 * pair + half : row;
      EXPECT_EQ(floats(q)[row * 32], stored) << name << " row " << row;
      EXPECT_EQ(floats(bias)[row], stored) << name << " row " << row;
      EXPECT_EQ(floats(o)[row * 32], row) << name;
    }
  }
}

TEST(GgufModel, GemmasNormsLoseTheirOne) {
  SmallModel model = gemma();
  std::string ones;
  for (int i = 0; i < 32; ++i) {
    ones += test::raw(1.f + static_cast<float>(i) / 64);
  }
  model.tensors["blk.0.attn_norm.weight"].bytes = ones;
  const Opened shifted(model, QuantizedForm::Affine);
  const auto gain =
      shifted.directory.load("model.layers.0.input_layernorm.weight");
  EXPECT_EQ(floats(gain)[5], 5.f / 64);
  SmallModel plain = llama();
  plain.tensors["blk.0.attn_norm.weight"].bytes = ones;
  const Opened kept(plain, QuantizedForm::Affine);
  EXPECT_EQ(
      floats(kept.directory.load("model.layers.0.input_layernorm.weight"))[5],
      1 + 5.f / 64);
}

TEST(GgufModel, LlamaThreesScalingIsRecognized) {
  SmallModel model = llama();
  std::string divisors;
  for (int i = 0; i < 8; ++i) {
    const double wavelength =
        2 * std::numbers::pi * std::pow(1e6, 2.0 * i / 16);
    // Frequencies between 8192 / 4 and 8192 are blended (arXiv 2407.21783).
    const double blend = (8192 / wavelength - 1) / 3;
    const double divisor = wavelength < 2048 ? 1
        : wavelength > 8192                  ? 32
                                             : 1 / ((1 - blend) / 32 + blend);
    divisors += test::raw(static_cast<float>(divisor));
  }
  model.tensors["rope_freqs.weight"] = {{8}, kF32, divisors};
  const Opened opened(model);
  EXPECT_EQ(
      opened.directory.config()["rope_scaling"],
      Json::parse(R"({"rope_type": "llama3", "factor": 32.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192})"));
  EXPECT_FALSE(opened.directory.has("rope_freqs.weight"));
}

TEST(GgufModel, LinearScalingIsKept) {
  SmallModel model = llama();
  model.set_text("llama.rope.scaling.type", "linear");
  model.set(
      "llama.rope.scaling.factor", f32_value("llama.rope.scaling.factor", 8));
  EXPECT_EQ(
      Opened(model).directory.config()["rope_scaling"],
      Json::parse(R"({"rope_type": "linear", "factor": 8.0})"));
}

TEST(GgufModel, YarnIsWhatTheConfigSaid) {
  SmallModel model = llama();
  const std::string scaling = "llama.rope.scaling.";
  model.set_text(scaling + "type", "yarn");
  model.set(scaling + "factor", f32_value(scaling + "factor", 4));
  model.set_u32(scaling + "original_context_length", 64);
  model.set(
      scaling + "yarn_beta_fast", f32_value(scaling + "yarn_beta_fast", 16));
  EXPECT_EQ(
      Opened(model).directory.config()["rope_scaling"],
      Json::parse(R"({"rope_type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 64, "beta_fast": 16.0,
        "beta_slow": 1.0})"));
}

TEST(GgufModel, OlmosWindowsMakeItTheThird) {
  SmallModel model = llama("olmo2");
  model.tensors.erase("blk.0.attn_norm.weight");
  model.tensors.erase("blk.0.ffn_norm.weight");
  EXPECT_EQ(Opened(model).directory.config()["model_type"], "olmo2");
  model.set_u32("olmo2.attention.sliding_window", 100);
  const std::string pattern = "olmo2.attention.sliding_window_pattern";
  model.set(pattern, test::gguf_array(pattern, 7, 1, std::string(1, '\1')));
  const Json config = Opened(model).directory.config();
  EXPECT_EQ(config["model_type"], "olmo3");
  EXPECT_EQ(config["sliding_window"], 100);
  EXPECT_EQ(config["layer_types"], Json::array({"sliding_attention"}));
}

TEST(GgufModel, SideFilesAreTexts) {
  const Opened opened(llama());
  const ModelDirectory& directory = opened.directory;
  EXPECT_FALSE(directory.side_file("README.md"));
  const Json tokenizer =
      Json::parse(directory.side_file("tokenizer.json").value());
  EXPECT_EQ(tokenizer["model"]["vocab"]["ab"], 2);
  EXPECT_EQ(tokenizer["added_tokens"][0]["content"], "<end>");
  const Json config =
      Json::parse(directory.side_file("tokenizer_config.json").value());
  EXPECT_EQ(config["eos_token"], "<end>");
  const ScratchFolder to;
  directory.copy_side_files(to.path());
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    EXPECT_EQ(test::read_file(to / name), directory.side_file(name)) << name;
  }
}

TEST(GgufModel, NamedTemplatesBecomeAList) {
  SmallModel model = llama();
  model.set_text("tokenizer.chat_template", "plain");
  model.set_text("tokenizer.chat_template.tool_use", "tools");
  const Json config = Json::parse(
      Opened(model).directory.side_file("tokenizer_config.json").value());
  EXPECT_EQ(
      config["chat_template"],
      Json::parse(R"([{"name": "default", "template": "plain"},
                      {"name": "tool_use", "template": "tools"}])"));
}

/** What is wrong with a model, and what the message must say. */
struct WrongModel {
  friend void PrintTo(const WrongModel& wrong, std::ostream* out) {
    *out << wrong.name;
  }

  const char* name;
  ErrorKind kind;
  const char* culprit;
  std::function<void(SmallModel&)> change;
  bool in_tokenizer = false;
};

std::string types_of(std::initializer_list<std::uint32_t> types) {
  std::string items;
  for (const std::uint32_t type : types) {
    items += test::u32(type);
  }
  return test::gguf_array("tokenizer.ggml.token_type", 5, types.size(), items);
}

std::vector<WrongModel> wrong_models() {
  const auto bad = ErrorKind::Corrupt;
  const auto unsupported = ErrorKind::Unsupported;
  const auto u32 = [](const char* key, std::uint32_t value) {
    return [=](SmallModel& m) { m.set_u32(key, value); };
  };
  const auto text = [](const char* key, const char* value) {
    return [=](SmallModel& m) { m.set_text(key, value); };
  };
  const auto without = [](const char* key) {
    return [=](SmallModel& m) { m.values.erase(key); };
  };
  const auto tensor = [](const char* name, const SmallModel::Tensor& value) {
    return [=](SmallModel& m) { m.tensors[name] = value; };
  };
  return {
      {"no_architecture",
       unsupported,
       "general.architecture",
       without("general.architecture")},
      {"architecture_bert",
       unsupported,
       "'bert'",
       text("general.architecture", "bert")},
      {"no_layers", bad, "llama.block_count", without("llama.block_count")},
      {"layers_0", bad, "llama.block_count", u32("llama.block_count", 0)},
      {"layers_2000", bad, "llama.block_count", u32("llama.block_count", 2000)},
      {"heads_2000",
       bad,
       "llama.attention.head_count",
       u32("llama.attention.head_count", 2000)},
      {"kv_heads_per_layer",
       bad,
       "llama.attention.head_count_kv",
       [](SmallModel& m) {
         const std::string key = "llama.attention.head_count_kv";
         m.set(key, test::gguf_array(key, 4, 1, test::u32(1)));
       }},
      {"partial_rotation",
       unsupported,
       "llama.rope.dimension_count",
       u32("llama.rope.dimension_count", 8)},
      {"one_part_of_three",
       ErrorKind::NotFound,
       "-00001-of-00003.gguf",
       u32("split.count", 3)},
      {"epsilon_nan",
       bad,
       "llama.attention.layer_norm_rms_epsilon",
       [](SmallModel& m) {
         const std::string key = "llama.attention.layer_norm_rms_epsilon";
         m.set(key, f32_value(key, std::nanf("")));
       }},
      {"scaling_dynamic",
       unsupported,
       "'dynamic'",
       text("llama.rope.scaling.type", "dynamic")},
      {"yarn_without_factor",
       bad,
       "llama.rope.scaling.factor",
       text("llama.rope.scaling.type", "yarn")},
      {"one_list_of_factors",
       bad,
       "rope_factors_short.weight",
       tensor("rope_factors_long.weight", {{8}, kF32, numbered_rows(8, 1)})},
      {"rows_of_a_bias",
       bad,
       "'blk.0.attn_q.bias'",
       tensor("blk.0.attn_q.bias", {{16}, kF32, ""})},
      {"divisors_of_another_kind",
       unsupported,
       "rope_freqs.weight",
       tensor("rope_freqs.weight", {{8}, kF32, numbered_rows(8, 1)})},
      {"divisors_too_few",
       bad,
       "rope_freqs.weight",
       tensor("rope_freqs.weight", {{4}, kF32, ""})},
      {"no_embeddings",
       bad,
       "token_embd.weight",
       [](SmallModel& m) { m.tensors.erase("token_embd.weight"); }},
      {"tensor_unknown",
       unsupported,
       "'blk.0.ffn_gate_exps.weight'",
       tensor("blk.0.ffn_gate_exps.weight", {{32}, kF32, ""})},
      {"tensor_of_layer_1",
       unsupported,
       "'blk.1.attn_norm.weight'",
       tensor("blk.1.attn_norm.weight", {{32}, kF32, ""})},
      {"tensor_of_layer_00",
       unsupported,
       "'blk.00.attn_norm.weight'",
       tensor("blk.00.attn_norm.weight", {{32}, kF32, ""})},
      {"rows_of_q",
       bad,
       "'blk.0.attn_q.weight'",
       tensor("blk.0.attn_q.weight", {{32, 48}, kF32, ""})},
      {"tokenizer_bert",
       unsupported,
       "'bert'",
       text("tokenizer.ggml.model", "bert"),
       true},
      {"pre_unknown",
       unsupported,
       "'a-rule-of-tomorrow'",
       text("tokenizer.ggml.pre", "a-rule-of-tomorrow"),
       true},
      {"no_tokens",
       bad,
       "tokenizer.ggml.tokens",
       without("tokenizer.ggml.tokens"),
       true},
      {"no_scores",
       bad,
       "tokenizer.ggml.scores",
       [](SmallModel& m) {
         m.set_text("tokenizer.ggml.model", "llama");
         m.set_u32("tokenizer.ggml.bos_token_id", 0);
       },
       true},
      {"piece_too_long",
       unsupported,
       "token 1 has 1025 bytes",
       [](SmallModel& m) {
         const std::string t = "tokenizer.ggml.";
         m.set_text(t + "model", "llama");
         m.set_u32(t + "bos_token_id", 0);
         m.set(
             t + "tokens",
             test::gguf_texts(
                 t + "tokens",
                 {std::string(1024, 'a'), std::string(1025, 'a'), "a", "b"}));
         m.set(
             t + "scores",
             test::gguf_array(t + "scores", 6, 4, std::string(16, '\0')));
       },
       true},
      {"types_too_few",
       bad,
       "tokenizer.ggml.token_type",
       [](SmallModel& m) {
         m.set("tokenizer.ggml.token_type", types_of({1, 1, 1}));
       },
       true},
      {"token_twice",
       bad,
       "tokens 0 and 2",
       [](SmallModel& m) {
         const std::string key = "tokenizer.ggml.tokens";
         m.set(key, test::gguf_texts(key, {"a", "b", "a", "<end>"}));
       },
       true},
      {"token_not_utf8",
       bad,
       "token 1 is not UTF-8",
       [](SmallModel& m) {
         const std::string key = "tokenizer.ggml.tokens";
         m.set(key, test::gguf_texts(key, {"a", "\xff", "ab", "<end>"}));
       },
       true},
      {"merge_without_space",
       bad,
       "merge 0",
       [](SmallModel& m) {
         const std::string key = "tokenizer.ggml.merges";
         m.set(key, test::gguf_texts(key, {"ab"}));
       },
       true},
      {"merge_of_no_token",
       bad,
       "merge 1",
       [](SmallModel& m) {
         const std::string key = "tokenizer.ggml.merges";
         m.set(key, test::gguf_texts(key, {"a b", "a c"}));
       },
       true},
  };
}

class WrongGgufModel : public testing::TestWithParam<WrongModel> {};

TEST_P(WrongGgufModel, IsRefusedAndNamesTheCulprit) {
  SmallModel model = llama();
  GetParam().change(model);
  expect_error(GetParam().kind, {"small.gguf", GetParam().culprit}, [&] {
    const Opened opened(model);
    if (GetParam().in_tokenizer) {
      opened.directory.side_file("tokenizer.json");
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Cases,
    WrongGgufModel,
    testing::ValuesIn(wrong_models()),
    [](const auto& info) { return info.param.name; });

} // namespace
} // namespace optiq::io
