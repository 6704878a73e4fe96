#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "optiq/generate/generator.h"
#include "optiq/io/array.h"
#include "optiq/io/model_directory.h"
#include "optiq/models/model.h"
#include "optiq/text/tokenizer.h"

namespace optiq::testing {

/** models/tiny-qwen3.5 of the repository (ctest sets the variable). */
inline std::filesystem::path tiny_model_path() {
  const char* path = std::getenv("OPTIQ_TEST_MODEL");
  return path != nullptr ? path : "models/tiny-qwen3.5";
}

inline std::shared_ptr<const models::Model> load_tiny_model() {
  return models::load_model(io::ModelDirectory::open(tiny_model_path()));
}

/** n token ids of tiny-qwen3.5's own question set. */
inline std::vector<std::int32_t> arithmetic_tokens(std::size_t n) {
  const auto tokenizer = text::Tokenizer::load(tiny_model_path());
  const std::string rows = read_text_file(
      tiny_model_path() / "eval_arithmetic.jsonl", std::size_t{1} << 20);
  auto tokens = tokenizer->encode(rows.substr(0, 16 * n), false);
  tokens.resize(n);
  return tokens;
}

} // namespace optiq::testing
