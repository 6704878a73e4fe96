#include <string>

#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** Ministral 3: Llama whose queries grow with their position. */
TransformerConfig parse_ministral3_config(const ConfigReader& config) {
  TransformerConfig mistral = parse_llama_config(config);
  mistral.model_type = kMinistral3.model_type;
  refuse_flags(config);
  const artifacts::Json* rope = config.find("rope_parameters");
  config.require(
      rope != nullptr && rope->is_object(),
      ErrorKind::Corrupt,
      "rope_parameters must be an object");
  const ConfigReader keys = config.at(*rope);
  if (keys.find("llama_4_scaling_beta") != nullptr) {
    mistral.query_growth = {
        .beta = keys.number_above(-1, "llama_4_scaling_beta"),
        .period =
            keys.bounded("original_max_position_embeddings", kMaxPositions)};
  }
  return mistral;
}

/** The language model of Mistral Small 3.1 and Ministral 3; its tower is left
 * out. */
TransformerConfig parse_mistral3_config(const ConfigReader& config) {
  const artifacts::Json* text = config.find("text_config");
  config.require(
      text != nullptr && text->is_object(),
      ErrorKind::Corrupt,
      "text_config must be an object");
  const ConfigReader part = config.at(*text);
  const std::string type = part.text_or("model_type", kMistral.model_type);
  const bool is_ministral = type == kMinistral3.model_type;
  config.require(
      is_ministral || type == kMistral.model_type || type == kLlama.model_type,
      ErrorKind::Unsupported,
      "text_config of model_type '" + type +
          "', supported are mistral, ministral3 and llama");
  TransformerConfig mistral =
      is_ministral ? parse_ministral3_config(part) : parse_llama_config(part);
  mistral.model_type = kMistral3.model_type;
  mistral.prefix = "language_model.";
  return mistral;
}

std::unique_ptr<Model> load_ministral3(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_ministral3_config", parse_ministral3_config);
}

std::unique_ptr<Model> load_mistral3(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_mistral3_config", parse_mistral3_config);
}

} // namespace

const Family kMinistral3{"ministral3", sanitize_transformer, load_ministral3};
const Family kMistral3{"mistral3", sanitize_language_model, load_mistral3};

} // namespace optiq::models
