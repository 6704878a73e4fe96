// make_seeds <folder> <model directory>: writes <folder>/<target>/*, the inputs
// that the fuzz targets start from, out of the cases of the unit tests and the
// model of the repository. Templates come from make_template_seeds.py.
#include <cstdio>
#include <filesystem>

#include "io/gguf/small_model.h"
#include "io/safetensors_cases.h"
#include "server/http_cases.h"
#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"
#include "text/charsmap_for_tests.h"
#include "text/sentencepiece_for_tests.h"
#include "text/tokenizer_json_for_tests.h"

#include "optiq/artifacts/eval_result.h"
#include "optiq/artifacts/kv_config.h"
#include "optiq/artifacts/metadata.h"

namespace optiq::test {
namespace {

namespace fs = std::filesystem;
using artifacts::Json;

/** Numbers the seeds of a target. */
class Seeds {
 public:
  explicit Seeds(fs::path folder) : folder_(std::move(folder)) {
    fs::create_directories(folder_);
  }
  void add(const std::string& bytes) {
    write_file(folder_ / std::to_string(count_++), bytes);
  }

 private:
  fs::path folder_;
  int count_ = 0;
};

std::string documents(std::initializer_list<std::string> parts) {
  std::string all;
  for (const std::string& part : parts) {
    all += all.empty() ? part : std::string(1, '\0') + part;
  }
  return all;
}

void make_gguf(const fs::path& folder) {
  Seeds seeds(folder);
  for (const BrokenGguf& file : broken_gguf_files()) {
    if (file.bytes.size() <= 8192) {
      seeds.add(file.bytes);
    }
  }
  for (const SmallModel& model :
       {llama(), llama("qwen3"), llama("qwen2"), gemma()}) {
    seeds.add(model.bytes());
  }
  for (const std::uint32_t type : {2, 3, 6, 7, 8, 12, 13, 14, 30}) {
    seeds.add(gguf_with_tensors(
        {gguf_tensor("t", {256, 2}, type, 0)}, gguf_bytes(type, 512)));
  }
  constexpr std::size_t kValueBytes[] = {1, 1, 2, 2, 4, 4, 4, 1};
  for (std::uint32_t type = 0; type < 8; ++type) {
    seeds.add(gguf_with_value(
        gguf_value("k", type, u64(1).substr(0, kValueBytes[type]))));
  }
  seeds.add(gguf_with_value(gguf_text("k", "abc")));
  seeds.add(gguf_with_value(gguf_texts("k", {"a", "bc", ""})));
}

void make_gguf_model(const fs::path& folder) {
  // What changes nothing: the three small models come of it.
  Seeds seeds(folder);
  for (const char last : {0, 1, 2}) {
    seeds.add(std::string(64, '\0') + last);
  }
}

void make_safetensors(const fs::path& folder) {
  Seeds seeds(folder);
  const auto add = [&](const std::string& bytes) {
    if (bytes.size() > 8192) {
      return;
    }
    seeds.add(std::string(1, '\0') + bytes); // a whole file
    std::uint64_t length = 0;
    if (bytes.size() < sizeof(length)) {
      return;
    }
    std::memcpy(&length, bytes.data(), sizeof(length));
    if (length <= bytes.size() - sizeof(length)) {
      const auto n_data =
          static_cast<std::uint16_t>(bytes.size() - sizeof(length) - length);
      seeds.add(documents({bytes.substr(8, length), raw(n_data)}));
    }
  };
  for (const OddFile& file : odd_files()) {
    add(file.bytes);
  }
  for (const auto& files : {broken_frames(), broken_tensors()}) {
    for (const BrokenFile& file : files) {
      add(file.bytes);
    }
  }
}

/** A tokenizer.json with its first tokens only, and the merges among them. */
Json shortened(Json json, std::size_t n_tokens) {
  Json vocab = Json::object();
  for (const auto& [token, id] : json["model"]["vocab"].items()) {
    if (id < n_tokens) {
      vocab[token] = id;
    }
  }
  Json merges = Json::array();
  for (const Json& merge : json["model"]["merges"]) {
    const auto left = merge[0].get<std::string>();
    const auto right = merge[1].get<std::string>();
    if (vocab.contains(left) && vocab.contains(right) &&
        vocab.contains(left + right)) {
      merges.push_back(merge);
    }
  }
  auto next_id = vocab.size();
  for (Json& token : json["added_tokens"]) {
    if (!vocab.contains(token["content"].get<std::string>())) {
      token["id"] = next_id++;
    }
  }
  json["model"]["vocab"] = vocab;
  json["model"]["merges"] = merges;
  return json;
}

void make_tokenizer(const fs::path& folder, const fs::path& model) {
  Seeds seeds(folder);
  const Json tiny =
      shortened(Json::parse(read_file(model / "tokenizer.json")), 320);
  for (Json json :
       {tiny,
        text::byte_level_json({"a b", "ab c", "t h"}),
        text::byte_fallback_json()}) {
    seeds.add(documents({json.dump(), "abc the 42 \xf0\x9f\x98\x80"}));
    json["added_tokens"] = Json::array(
        {text::added_token(
             int(json["model"]["vocab"].size()), "<s>", {"special"}),
         text::added_token(
             int(json["model"]["vocab"].size()) + 1,
             "tag",
             {"normalized", "single_word", "lstrip", "rstrip"})});
    json["post_processor"] = Json::parse(R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [], "special_tokens": {"<s>":
        {"id": "<s>", "ids": [260], "tokens": ["<s>"]}}})");
    seeds.add(documents({json.dump(), "<s> tag  abtag\n"}));
  }
  // Every component beside the vocabulary.
  for (const char* part :
       {R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"},
          {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Prepend",
          "prepend": "_"}, {"type": "Replace", "pattern": {"Regex": "a+"},
          "content": "b"}, {"type": "Strip", "strip_left": true,
          "strip_right": true}]}})",
        R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
          {"type": "Digits", "individual_digits": true}, {"type": "Split",
          "pattern": {"Regex": "\\s+(?!\\S)|\\p{L}+"}, "behavior":
          "MergedWithPrevious", "invert": true}, {"type": "Whitespace"},
          {"type": "ByteLevel", "add_prefix_space": true, "use_regex": true}]}})",
        R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581",
          "prepend_scheme": "first", "split": true}})",
        R"({"decoder": {"type": "Sequence", "decoders": [{"type": "Replace",
          "pattern": {"String": "\u2581"}, "content": " "}, {"type":
          "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ",
          "start": 1, "stop": 0}]}})"}) {
    Json json = text::byte_fallback_json();
    json.update(Json::parse(part));
    seeds.add(documents({json.dump(), " Ab  cab 12"}));
  }
}

void make_model_config(const fs::path& folder, const fs::path& model) {
  Seeds seeds(folder);
  const std::string generation = read_file(model / "generation_config.json");
  const std::string tokenizer = read_file(model / "tokenizer_config.json");
  for (const Json& config :
       {testing::sizes("llama"),
        testing::sizes("mistral"),
        testing::sizes("qwen3"),
        testing::gemma(16),
        testing::gemma4(),
        Json::parse(read_file(model / "config.json"))}) {
    seeds.add(documents({config.dump(), generation, tokenizer}));
  }
  for (const char* type : testing::kDenseFamilies) {
    seeds.add(documents({testing::dense(type).dump(), generation, tokenizer}));
  }
  Json scaled = testing::sizes("llama");
  scaled["rope_scaling"] = Json::parse(R"({"rope_type": "llama3", "factor": 8.0,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192})");
  scaled["layer_types"] = Json::array(
      {"full_attention",
       "sliding_attention",
       "full_attention",
       "sliding_attention"});
  scaled["sliding_window"] = 3;
  scaled["eos_token_id"] = Json::array({2, 3});
  scaled["quantization"] = {{"group_size", 32}, {"bits", 4}};
  seeds.add(documents(
      {scaled.dump(),
       R"({"do_sample": true, "temperature": 0.7, "min_p": 0.05})",
       R"({"eos_token": {"content": "ab"}, "chat_template": [{"name": "default",
         "template": "{{ messages[0].content }}"}]})"}));
}

void make_hub(const fs::path& folder) {
  Seeds seeds(folder);
  seeds.add(documents({"{}", "org/name@v1.0:small.gguf"}));
  seeds.add(documents({R"({"sha": ""})", "Qwen/Qwen3-0.6B@refs/pr/1"}));
}

void make_artifacts(const fs::path& folder) {
  namespace a = artifacts;
  const a::Plan plan{
      .method = artifacts::PlanMethod::Optiq,
      .candidate_bits = {4, 8},
      .target_bpw = 4.5,
      .target_bytes = 600'000'000,
      .layers =
          {{.name = "lm_head",
            .bits = 8,
            .parameters = 64,
            .is_protected = true},
           {.name = "q_proj", .bits = 4, .parameters = 32, .kl = 0.1}},
      .achieved_bpw = 4.5,
      .file_bytes = 1000,
      .file_bpw = 4.7,
      .predicted_kl = 0.1,
      .prior_weight = 0.1,
      .measured_kl = 0.2};
  Seeds seeds(folder);
  for (const Json& json :
       {a::to_json(plan),
        a::to_json(a::Metadata{
            .tool_version = "0.1.0",
            .base_model = "org/name",
            .reference = "bf16",
            .calibration = "mix",
            .calibration_hash = "00ff",
            .compute = "exact",
            .plan = plan}),
        a::to_json(a::Sensitivity{
            .base_model = "m",
            .candidate_bits = {4, 8},
            .key = "abc",
            .layers =
                {{.name = "z",
                .parameters = 7,
                .kl = {{4, 0.1}, {8, 1e-5}},
                .kl_stderr = {{4, 1e-3}, {8, 0.0}},
                .relative_kl = {{4, 0.3}, {8, 0.1}}}}}),
        a::to_json(
            a::KvConfig{
                {{.layer_idx = 3,
   .codec = {.method = a::KvMethod::Affine, .key_bits = 4, .value_bits = 2}},
                 {.layer_idx = 7,
                 .codec =
                      {.method = a::KvMethod::Turbo,
                      .key_bits = 2.5,
                      .value_bits = 3,
                      .rotation = a::KvRotation::Orthogonal,
                      .seed = 7}}}}),
        a::to_json(
            std::vector<a::KvLayerSensitivity>{
                {.layer_idx = 3,
              .layer_name = "model.layers.3",
              .n_kv_heads = 2,
              .head_dim = 64,
              .candidates =
                     {{{a::KvMethod::Affine, 4, 4}, 0.1, 144},
                      {{a::KvMethod::Turbo, 0, 2.5}, 0.2, 80}}}}),
        a::to_json(a::EvalResult{
            .model = "m",
 .reference = "r",
 .data = "d",
 .compute = "exact",
 .simd = "AVX2",
 .scores =
                a::KlScores{
                    .mean_kl = 0.1,
        .tokens = 9,
        .rows = 2,
        .row_kl = {0.1, 0.2}}}),
        a::to_json(a::EvalResult{
            .model = "m",
 .compute = "fast",
 .scores = a::PerplexityScores{.ppl = 3}}),
        a::to_json(a::EvalResult{
            .model = "m",
 .compute = "int8",
 .scores = a::ExactMatchScores{.count = 3}}),
        a::to_json(a::EvalResult{
            .model = "m",
 .compute = "fast",
 .scores = a::NeedleScores{
     .lengths = {64}, .depths = {0, 1}, .trials = 4, .right = {{4, 3}}}})}) {
    seeds.add(a::dump_json(json, 1));
  }
  seeds.add(R"([{"layer_idx": 0, "bits": 4}])"); // as the Python original's
  seeds.add("1.5GiB");
}

void make_sentencepiece(const fs::path& folder) {
  using text::proto_bytes;
  using text::proto_number;
  using text::SentencePiece;
  using Kind = text::SentencePieceModel::Kind;
  Seeds seeds(folder);
  std::vector<text::TestPiece> pieces = {
      {"\u2581", -3},
      {"a", -2},
      {"b", -2},
      {"ab", -1},
      {"\u2581ab", -0.5f},
      {"l", -4, SentencePiece::Type::Unused},
      {"lo", -2, SentencePiece::Type::Unused},
      {" wOR", 0, SentencePiece::Type::UserDefined}};
  const std::string charsmap = text::two_rules().bytes(text::kTwoRulesTexts);
  for (const Kind kind : {Kind::Unigram, Kind::Bpe, Kind::Char}) {
    seeds.add(text::sentencepiece_model(kind, pieces));
    seeds.add(text::sentencepiece_model(
        kind,
        pieces,
        proto_bytes(2, proto_number(24, 1)) +
            proto_bytes(3, proto_bytes(2, charsmap) + proto_number(4, 0))));
  }
  for (const text::TestPiece& piece : text::byte_pieces()) {
    pieces.push_back(piece);
  }
  seeds.add(text::sentencepiece_model(
      Kind::Bpe, pieces, proto_bytes(2, proto_number(35, 1))));
}

void make_http_request(const fs::path& folder) {
  Seeds seeds(folder);
  for (const server::HttpCase& request : server::http_cases()) {
    seeds.add("\a" + request.bytes); // in pieces of seven bytes
  }
}

} // namespace
} // namespace optiq::test

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: make_seeds <folder> <model directory>\n");
    return 2;
  }
  using namespace optiq::test;
  const fs::path folder = argv[1];
  const fs::path model = argv[2];
  make_gguf(folder / "gguf");
  make_gguf_model(folder / "gguf_model");
  make_safetensors(folder / "safetensors");
  make_tokenizer(folder / "tokenizer", model);
  make_sentencepiece(folder / "sentencepiece");
  make_model_config(folder / "model_config", model);
  make_artifacts(folder / "artifacts");
  make_hub(folder / "hub");
  make_http_request(folder / "http_request");
}
