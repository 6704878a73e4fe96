// "<config.json>\0<generation_config.json>\0<tokenizer_config.json>" beside the
// weights of a small model of that model_type: loads it, and where it loads,
// lets it say two tokens.
#include <map>

#include "fuzz/fuzz_support.h"
#include "support/small_checkpoint.h"
#include "text/tokenizer_json_for_tests.h"

#include "optiq/generate/defaults.h"
#include "optiq/generate/generation_config.h"
#include "optiq/generate/generator.h"

namespace optiq::fuzz {
namespace {

using artifacts::Json;

/** Folders with weights and a tokenizer, by model_type. */
const std::map<std::string, std::filesystem::path>& folders() {
  static const auto kFolders = [] {
    std::map<std::string, std::filesystem::path> made;
    std::vector<Json> configs{
        testing::sizes("llama"),
        testing::sizes("qwen3"),
        testing::gemma(16),
        testing::gemma4()};
    for (const char* type : testing::kDenseFamilies) {
      configs.push_back(testing::dense(type));
    }
    for (const Json& config : configs) {
      const auto type = config["model_type"].get<std::string>();
      made[type] = scratch() / type;
      std::filesystem::create_directory(made[type]);
      testing::write_model(made[type], config);
      test::write_file(
          made[type] / "tokenizer.json", text::byte_fallback_json().dump());
    }
    made["mistral"] = made["llama"];
    return made;
  }();
  return kFolders;
}

const std::filesystem::path& folder_of(std::string_view config) {
  const Json json = Json::parse(config, nullptr, false);
  const std::string type = json.is_object() && json.contains("model_type") &&
          json["model_type"].is_string()
      ? json["model_type"].get<std::string>()
      : "";
  const auto found = folders().find(type);
  return found == folders().end() ? folders().at("llama") : found->second;
}

void run(
    const io::ModelDirectory& directory,
    generate::GenerateOptions options) {
  const std::shared_ptr<const models::Model> model =
      models::load_model(directory);
  require(
      model->info().vocab_size == testing::kVocab,
      "the vocabulary is that of the embeddings");
  generate::Engine engine(
      {model, kernels::Compute::Exact}, {.max_cache_bytes = 64u << 20});
  const std::vector<std::int32_t> prompt{5, 1, 4, 1, 5};
  options.max_tokens = 2;
  const generate::Completion completion =
      generate::generate(engine, prompt, options);
  for (const std::int32_t token : completion.tokens) {
    require(
        token >= 0 && token < testing::kVocab, "tokens are of the vocabulary");
  }
}

} // namespace
} // namespace optiq::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(
    std::uint8_t* data,
    std::size_t size,
    std::size_t max_size,
    unsigned seed) {
  return optiq::fuzz::mutate_json(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  const auto [config, rest] = fuzz::split_at_zero(fuzz::as_text(data, size));
  const auto [generation, tokenizer] = fuzz::split_at_zero(rest);
  const std::filesystem::path& folder = fuzz::folder_of(config);
  test::write_file(folder / "config.json", config);
  test::write_file(
      folder / "generation_config.json",
      generation.empty() ? "{}" : generation);
  test::write_file(
      folder / "tokenizer_config.json", tokenizer.empty() ? "{}" : tokenizer);
  fuzz::accepts([&] {
    const auto directory = io::ModelDirectory::open(folder);
    generate::GenerateOptions options;
    fuzz::accepts([&] { generate::load_chat_template(directory); });
    fuzz::accepts([&] {
      options.stop_ids =
          generate::stop_ids(directory, *generate::load_tokenizer(directory));
    });
    fuzz::accepts([&] {
      const auto wanted = generate::read_generation_config(directory);
      options.sampler = wanted.sampler;
      options.logits = wanted.logits;
    });
    fuzz::run(directory, options);
  });
  return 0;
}
