#pragma once

#include <cstddef>
#include <sstream>
#include <string>
#include <vector>

#include "support/tiny_model.h"

#include "optiq/generate/defaults.h"
#include "optiq/server/description.h"
#include "optiq/server/service.h"

namespace optiq::testing {

/** tiny-qwen3.5 as it is served. */
inline server::ServedModel served_tiny(
    const std::vector<artifacts::KvLayer>& kv = {}) {
  const auto directory = io::ModelDirectory::open(tiny_model_path());
  const models::Setup setup{load_tiny_model(), kernels::Compute::Fast, kv};
  const auto tokenizer = generate::load_tokenizer(directory);
  return {
      .id = "tiny",
      .setup = setup,
      .tokenizer = tokenizer,
      .chat_template = generate::load_chat_template(directory),
      .stop_ids = generate::stop_ids(directory, *tokenizer),
      .defaults = generate::read_generation_config(directory),
      .description = server::describe_model(directory, setup)};
}

/** The first questions of its own set. */
inline std::vector<std::string> questions(std::size_t n) {
  std::istringstream rows(read_text_file(
      tiny_model_path() / "eval_arithmetic.jsonl", std::size_t{1} << 20));
  std::vector<std::string> found;
  for (std::string row; found.size() < n && std::getline(rows, row);) {
    found.push_back(artifacts::Json::parse(row)["question"].get<std::string>());
  }
  return found;
}

} // namespace optiq::testing
