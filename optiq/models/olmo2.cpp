#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** OLMo 2: Llama with norms behind attention and MLP instead of before, and on
 * whole rows of q and k. */
TransformerConfig parse_olmo2_config(const ConfigReader& config) {
  TransformerConfig olmo = parse_llama_config(config);
  olmo.model_type = kOlmo2.model_type;
  olmo.norms = kPostNorms;
  olmo.qk_norm = QkNorm::Row;
  return olmo;
}

std::unique_ptr<Model> load_olmo2(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_olmo2_config", parse_olmo2_config);
}

} // namespace

const Family kOlmo2{"olmo2", sanitize_transformer, load_olmo2};

} // namespace optiq::models
