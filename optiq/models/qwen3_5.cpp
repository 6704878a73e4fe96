#include <string>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/models/families_impl.h"
#include "optiq/models/qwen3_5_impl.h"
#include "optiq/models/weights.h"
#include "optiq/nn/rope.h"

namespace optiq::models {
namespace {

struct Layer {
  mx::array input_norm; // [hidden]
  mx::array post_attention_norm; // [hidden]
  std::variant<nn::GatedDeltaNet, nn::GatedAttention> mixer;
  nn::Mlp mlp;
};

/** Qwen3.5's dense text model: three gated delta nets, then one gated
 * attention, over and over. */
class Qwen35Model final : public Model {
 public:
  Qwen35Model(
      Qwen35Config config,
      ModelInfo info,
      nn::Linear embeddings,
      std::vector<Layer> layers,
      mx::array final_norm,
      std::vector<nn::Linear> head)
      : config_(std::move(config)),
        info_(std::move(info)),
        embeddings_(std::move(embeddings)),
        layers_(std::move(layers)),
        final_norm_(std::move(final_norm)),
        head_(std::move(head)) {}

  const ModelInfo& info() const override {
    return info_;
  }

  std::vector<cache::LayerFormat> cache_layout(
      mx::Dtype kv_dtype) const override {
    std::vector<cache::LayerFormat> formats;
    for (const Layer& layer : layers_) {
      if (const auto* net = std::get_if<nn::GatedDeltaNet>(&layer.mixer)) {
        formats.emplace_back(nn::recurrent_format(*net));
      } else {
        formats.emplace_back(
            nn::kv_format(std::get<nn::GatedAttention>(layer.mixer), kv_dtype));
      }
    }
    return formats;
  }

  mx::array embed(std::span<const std::int32_t> tokens) const override {
    for (const std::int32_t token : tokens) {
      if (token < 0 || token >= info_.vocab_size) {
        fail(
            ErrorKind::InvalidInput,
            "[embed] token id {} is outside the vocabulary of {}",
            token,
            info_.vocab_size);
      }
    }
    return kernels::embed(tokens, embeddings_.weight);
  }

  mx::array run_layer(
      int index,
      const mx::array& x,
      const nn::ForwardContext& context) const override {
    const Layer& layer = layers_[index];
    const mx::array normed =
        kernels::rms_norm(x, layer.input_norm, config_.norm_eps);
    const auto* net = std::get_if<nn::GatedDeltaNet>(&layer.mixer);
    const mx::array mixed = net != nullptr
        ? nn::run_gated_delta_net(*net, index, normed, context)
        : nn::run_gated_attention(
              std::get<nn::GatedAttention>(layer.mixer),
              index,
              normed,
              context);
    const mx::array h = kernels::add(x, mixed);
    return kernels::add(
        h,
        nn::run_mlp(
            layer.mlp,
            kernels::rms_norm(h, layer.post_attention_norm, config_.norm_eps),
            context.compute));
  }

  mx::array logits(const mx::array& x, kernels::Compute compute)
      const override {
    const nn::Linear& head = head_.empty() ? embeddings_ : head_.front();
    return kernels::matmul(
        kernels::rms_norm(x, final_norm_, config_.norm_eps),
        head.weight,
        compute);
  }

  std::vector<Module> modules() const override {
    std::vector<Module> modules;
    auto copy = *this; // for_each_linear is one, for reading and for writing
    copy.for_each_linear([&](int layer, nn::Linear& linear) {
      modules.push_back({linear.name, layer, linear.weight});
    });
    return modules;
  }

  std::unique_ptr<Model> with_matrix(
      const std::string& module,
      const kernels::Matrix& matrix) const override {
    auto changed = std::make_unique<Qwen35Model>(*this);
    bool found = false;
    changed->for_each_linear([&](int, nn::Linear& linear) {
      if (linear.name != module) {
        return;
      }
      if (matrix.out_features() != linear.weight.out_features() ||
          matrix.in_features() != linear.weight.in_features()) {
        fail(
            ErrorKind::InvalidInput,
            "[with_matrix] {} is [{}, {}], the new matrix [{}, {}]",
            module,
            linear.weight.out_features(),
            linear.weight.in_features(),
            matrix.out_features(),
            matrix.in_features());
      }
      linear.weight = matrix;
      found = true;
    });
    if (!found) {
      fail(ErrorKind::NotFound, "[with_matrix] no module '{}'", module);
    }
    return changed;
  }

 private:
  template <typename F>
  void for_each_linear(F&& f) {
    f(-1, embeddings_);
    for (int i = 0; i < static_cast<int>(layers_.size()); ++i) {
      Layer& layer = layers_[i];
      if (auto* net = std::get_if<nn::GatedDeltaNet>(&layer.mixer)) {
        for (nn::Linear* linear :
             {&net->in_proj_qkv,
              &net->in_proj_z,
              &net->in_proj_b,
              &net->in_proj_a,
              &net->out_proj}) {
          f(i, *linear);
        }
      } else {
        auto& attention = std::get<nn::GatedAttention>(layer.mixer);
        for (nn::Linear* linear :
             {&attention.q_proj,
              &attention.k_proj,
              &attention.v_proj,
              &attention.o_proj}) {
          f(i, *linear);
        }
      }
      f(i, layer.mlp.gate_proj);
      f(i, layer.mlp.up_proj);
      f(i, layer.mlp.down_proj);
    }
    for (nn::Linear& linear : head_) {
      f(-1, linear);
    }
  }

  Qwen35Config config_;
  ModelInfo info_;
  nn::Linear embeddings_; // [vocab, hidden]
  std::vector<Layer> layers_;
  mx::array final_norm_; // [hidden]
  std::vector<nn::Linear> head_; // [vocab, hidden]; none when tied
};

nn::GatedDeltaNet load_delta_net(
    WeightLoader& weights,
    const Qwen35Config& config,
    const std::string& prefix) {
  const kernels::DeltaNetShape& shape = config.delta_net;
  const int value_width = shape.n_value_heads * shape.value_dim;
  const auto linear = [&](const char* name, int out, int in) {
    return weights.linear(prefix + name, out, in);
  };
  const mx::array conv = weights.floats(
      prefix + "conv1d.weight", {shape.qkv_dim(), shape.conv_kernel, 1});
  return {
      .shape = shape,
      .weights =
          {.conv = io::reshaped(conv, {shape.qkv_dim(), shape.conv_kernel}),
           .a_log = weights.floats(prefix + "A_log", {shape.n_value_heads}),
           .dt_bias = weights.floats(prefix + "dt_bias", {shape.n_value_heads}),
           .norm = weights.floats(prefix + "norm.weight", {shape.value_dim}),
           .norm_eps = config.norm_eps},
      .in_proj_qkv = linear("in_proj_qkv", shape.qkv_dim(), config.hidden_size),
      .in_proj_z = linear("in_proj_z", value_width, config.hidden_size),
      .in_proj_b = linear("in_proj_b", shape.n_value_heads, config.hidden_size),
      .in_proj_a = linear("in_proj_a", shape.n_value_heads, config.hidden_size),
      .out_proj = linear("out_proj", config.hidden_size, value_width)};
}

nn::GatedAttention load_attention(
    WeightLoader& weights,
    const Qwen35Config& config,
    const std::string& prefix) {
  const int q_width = config.n_heads * config.head_dim;
  const int kv_width = config.n_kv_heads * config.head_dim;
  const auto linear = [&](const char* name, int out, int in) {
    return weights.linear(prefix + name, out, in);
  };
  return {
      .n_heads = config.n_heads,
      .n_kv_heads = config.n_kv_heads,
      .head_dim = config.head_dim,
      .norm_eps = config.norm_eps,
      .inverse_frequencies =
          nn::rope_inverse_frequencies(config.rope_theta, config.rotary_dim),
      .q_proj = linear("q_proj", 2 * q_width, config.hidden_size),
      .k_proj = linear("k_proj", kv_width, config.hidden_size),
      .v_proj = linear("v_proj", kv_width, config.hidden_size),
      .o_proj = linear("o_proj", config.hidden_size, q_width),
      .q_norm = weights.floats(prefix + "q_norm.weight", {config.head_dim}),
      .k_norm = weights.floats(prefix + "k_norm.weight", {config.head_dim})};
}

Layer load_layer(WeightLoader& weights, const Qwen35Config& config, int index) {
  const std::string prefix =
      "language_model.model.layers." + std::to_string(index) + ".";
  const auto load_mixer =
      [&]() -> std::variant<nn::GatedDeltaNet, nn::GatedAttention> {
    if (config.is_linear(index)) {
      return load_delta_net(weights, config, prefix + "linear_attn.");
    }
    return load_attention(weights, config, prefix + "self_attn.");
  };
  const int hidden = config.hidden_size;
  const int inner = config.intermediate_size;
  return {
      .input_norm = weights.floats(prefix + "input_layernorm.weight", {hidden}),
      .post_attention_norm =
          weights.floats(prefix + "post_attention_layernorm.weight", {hidden}),
      .mixer = load_mixer(),
      .mlp = {
          .gate_proj = weights.linear(prefix + "mlp.gate_proj", inner, hidden),
          .up_proj = weights.linear(prefix + "mlp.up_proj", inner, hidden),
          .down_proj =
              weights.linear(prefix + "mlp.down_proj", hidden, inner)}};
}

std::unique_ptr<Model> load_qwen3_5(const io::ModelDirectory& directory) {
  const std::string where = (directory.path() / "config.json").string();
  const Qwen35Config config = parse_qwen3_5_config(directory.config(), where);
  const Checkpoint checkpoint = open_checkpoint(directory);
  WeightLoader weights(
      directory.config(), checkpoint, directory.path().string());
  nn::Linear embeddings = weights.linear(
      "language_model.model.embed_tokens",
      config.vocab_size,
      config.hidden_size);
  std::vector<Layer> layers;
  for (int i = 0; i < config.n_layers; ++i) {
    layers.push_back(load_layer(weights, config, i));
  }
  mx::array final_norm =
      weights.floats("language_model.model.norm.weight", {config.hidden_size});
  std::vector<nn::Linear> head;
  if (!config.tied_head) {
    head.push_back(weights.linear(
        "language_model.lm_head", config.vocab_size, config.hidden_size));
  }
  weights.require_all_taken();
  ModelInfo info{
      .model_type = kQwen35.model_type,
      .vocab_size = config.vocab_size,
      .hidden_size = config.hidden_size,
      .n_layers = config.n_layers,
      .max_positions = config.max_positions,
      .tied_head = config.tied_head,
      .parameters = weights.parameters()};
  return std::make_unique<Qwen35Model>(
      config,
      std::move(info),
      std::move(embeddings),
      std::move(layers),
      std::move(final_norm),
      std::move(head));
}

} // namespace

const Family kQwen35{"qwen3_5", sanitize_qwen3_5, load_qwen3_5};

} // namespace optiq::models
