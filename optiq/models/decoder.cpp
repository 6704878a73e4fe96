#include <algorithm>
#include <cmath>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/base/mapping_guard.h"
#include "optiq/models/decoder_impl.h"
#include "optiq/models/on_device.h"

namespace optiq::models {
namespace {

/** Rows as a block reads them. */
nn::BlockInput input_of(
    const mx::array& x,
    const std::optional<kernels::Norm>& norm,
    const mx::array* residual) {
  return {.x = x, .norm = norm ? &*norm : nullptr, .residual = residual};
}

/** Rows of an embedding; a tokenizer may know tokens that it has no row of. */
mx::array rows_of(
    std::span<const std::int32_t> tokens,
    const nn::Linear& embeddings,
    float scale,
    kernels::Device& device) {
  const int rows = embeddings.weight.out_features();
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= rows) {
      fail(
          ErrorKind::InvalidInput,
          "[embed] {}: found token id {}, expected one below {}, the rows of "
          "the vocabulary that the model was trained with. Leave the token "
          "out of the text",
          embeddings.name,
          token,
          rows);
    }
  }
  return device.embed(tokens, embeddings.weight, scale);
}

/** Calls f with every linear of the parts, const or not, in source order. */
template <typename Parts, typename F>
void for_each_linear(Parts& parts, const F& f) {
  const auto if_there = [&](auto& linear) {
    if (linear) {
      f(*linear);
    }
  };
  f(parts.embeddings);
  if (parts.layer_inputs) {
    f(parts.layer_inputs->embeddings);
    f(parts.layer_inputs->projection);
  }
  for (auto& layer : parts.layers) {
    if (auto* net = std::get_if<nn::GatedDeltaNet>(&layer.mixer)) {
      f(net->in_proj_qkv);
      f(net->in_proj_z);
      f(net->in_proj_b);
      f(net->in_proj_a);
      f(net->out_proj);
    } else {
      auto& attention = std::get<nn::Attention>(layer.mixer);
      f(attention.q_proj);
      if_there(attention.k_proj);
      if_there(attention.v_proj);
      f(attention.o_proj);
    }
    f(layer.mlp.gate_proj);
    if_there(layer.mlp.up_proj);
    f(layer.mlp.down_proj);
    if (layer.input) {
      f(layer.input->gate);
      f(layer.input->projection);
    }
  }
  if_there(parts.head);
}

void exchange(nn::Linear& linear, const kernels::Matrix& matrix) {
  if (matrix.out_features() != linear.weight.out_features() ||
      matrix.in_features() != linear.weight.in_features()) {
    fail(
        ErrorKind::InvalidInput,
        "[with_matrices] {} is [{}, {}], the new matrix [{}, {}]",
        linear.name,
        linear.weight.out_features(),
        linear.weight.in_features(),
        matrix.out_features(),
        matrix.in_features());
  }
  linear.weight = matrix;
}

class Decoder final : public Model {
 public:
  explicit Decoder(DecoderParts parts) : parts_(std::move(parts)) {}

  kernels::Device& device() const override {
    return *parts_.device;
  }
  const ModelInfo& info() const override {
    return parts_.info;
  }

  std::vector<cache::LayerFormat> dense_layout(
      mx::Dtype kv_dtype) const override {
    std::vector<cache::LayerFormat> formats;
    for (const DecoderLayer& layer : parts_.layers) {
      if (const auto* net = std::get_if<nn::GatedDeltaNet>(&layer.mixer)) {
        formats.emplace_back(nn::recurrent_format(*net));
      } else {
        formats.emplace_back(nn::kv_format(
            std::get<nn::Attention>(layer.mixer), kv_dtype, device()));
      }
    }
    return formats;
  }

  mx::array embed(std::span<const std::int32_t> tokens) const override {
    return rows_of(tokens, parts_.embeddings, parts_.embedding_scale, device());
  }

  std::vector<mx::array> layer_inputs(
      std::span<const std::int32_t> tokens,
      const nn::ForwardContext& context) const override;

  int rerun_from(int layer) const override;

  mx::array run_layer(
      int index,
      const mx::array& x,
      const nn::ForwardContext& context) const override {
    const DecoderLayer& layer = parts_.layers[index];
    const mx::array h = mix(index, x, context);
    const mx::array* input =
        layer.input ? &context.layer_inputs[index] : nullptr;
    return feed_forward(layer, x, h, input, context);
  }

  mx::array run_last_layer(
      const mx::array& x,
      std::span<const int> wanted,
      const nn::ForwardContext& context) const override {
    const int index = parts_.info.n_layers - 1;
    const DecoderLayer& layer = parts_.layers[index];
    const mx::array h = device().take_rows(mix(index, x, context), wanted);
    const mx::array rows =
        layer.is_parallel ? device().take_rows(x, wanted) : h;
    const auto rest = nn::context_of_rows(context, wanted);
    if (!layer.input) {
      return feed_forward(layer, rows, h, nullptr, rest);
    }
    const mx::array input =
        device().take_rows(context.layer_inputs[index], wanted);
    return feed_forward(layer, rows, h, &input, rest);
  }

  mx::array logits(const mx::array& x, const nn::ForwardContext& context)
      const override {
    const nn::Linear& head = parts_.head ? *parts_.head : parts_.embeddings;
    const mx::array y =
        nn::project({.x = x, .norm = &parts_.final_norm}, {&head}, context)
            .front();
    check_mappings(); // every result of a forward comes this way
    return parts_.logit_softcap > 0 ? device().softcap(y, parts_.logit_softcap)
                                    : y;
  }

  std::vector<Module> modules() const override {
    std::vector<Module> modules;
    for_each_linear(parts_, [&](const nn::Linear& linear) {
      modules.push_back({linear.name, linear.id, linear.weight});
    });
    return modules;
  }

  std::unique_ptr<Model> with_matrices(
      const MatricesByName& matrices) const override;

  std::unique_ptr<Model> with_device(kernels::Device& device) const {
    auto other = std::make_unique<Decoder>(*this);
    other->parts_.device = &device;
    return other;
  }

 private:
  /** base + scale * out_norm(block(norm(x))). Where the block's result stays
   * as it is, the block adds it to the base. */
  template <typename F>
  mx::array run_block(
      const mx::array& x,
      const std::optional<kernels::Norm>& norm,
      const mx::array& base,
      const std::optional<kernels::Norm>& out_norm,
      float scale,
      const F& block) const {
    if (!out_norm && scale == 1.f) {
      return block(input_of(x, norm, &base));
    }
    mx::array y = block(input_of(x, norm, nullptr));
    if (out_norm) {
      y = device().normalize(y, *out_norm);
    }
    return device().add(base, device().scale(y, scale));
  }

  /** A layer's first half: what mixes the rows. */
  mx::array
  mix(int index, const mx::array& x, const nn::ForwardContext& context) const {
    const DecoderLayer& layer = parts_.layers[index];
    return run_block(
        x,
        layer.mixer_norm,
        x,
        layer.mixer_out_norm,
        layer.residual_scale,
        [&](const nn::BlockInput& block) {
          return run_mixer(index, block, context);
        });
  }

  /** Its second half, where every row is for itself: x went into the first
   * half, h came out; `input` where the layer has one. */
  mx::array feed_forward(
      const DecoderLayer& layer,
      const mx::array& x,
      const mx::array& h,
      const mx::array* input,
      const nn::ForwardContext& context) const {
    mx::array y = run_block(
        layer.is_parallel ? x : h,
        layer.mlp_norm,
        h,
        layer.mlp_out_norm,
        layer.residual_scale,
        [&](const nn::BlockInput& block) {
          return nn::run_mlp(layer.mlp, block, context);
        });
    if (input != nullptr) {
      y = add_layer_input(*layer.input, y, *input, context);
    }
    return device().scale(y, layer.scale);
  }

  mx::array add_layer_input(
      const LayerInput& layer,
      const mx::array& x,
      const mx::array& input,
      const nn::ForwardContext& context) const {
    const mx::array gate =
        nn::project({.x = x}, {&layer.gate}, context).front();
    const mx::array gated =
        device().glu(gate, input, kernels::Activation::GeluTanh);
    const mx::array projected =
        nn::project({.x = gated}, {&layer.projection}, context).front();
    return device().add(x, device().normalize(projected, layer.norm));
  }

  mx::array run_mixer(
      int index,
      const nn::BlockInput& input,
      const nn::ForwardContext& context) const {
    const auto& mixer = parts_.layers[index].mixer;
    if (const auto* net = std::get_if<nn::GatedDeltaNet>(&mixer)) {
      return nn::run_gated_delta_net(*net, index, input, context);
    }
    return nn::run_attention(
        std::get<nn::Attention>(mixer), index, input, context);
  }

  DecoderParts parts_;
};

std::vector<mx::array> Decoder::layer_inputs(
    std::span<const std::int32_t> tokens,
    const nn::ForwardContext& context) const {
  if (!parts_.layer_inputs) {
    return {};
  }
  const LayerInputSource& source = *parts_.layer_inputs;
  const auto rows = static_cast<int>(tokens.size());
  const int size = source.norm.weight.shape(0);
  const int n_layers = parts_.info.n_layers;
  kernels::Device& on = device();
  const mx::array embedded = rows_of(
      tokens, source.embeddings, std::sqrt(static_cast<float>(size)), on);
  const mx::array x = embed(tokens);
  const mx::array projected = on.scale(
      nn::project({.x = x}, {&source.projection}, context).front(),
      1.f / std::sqrt(static_cast<float>(parts_.info.hidden_size)));
  const mx::array normed = on.reshape(
      on.normalize(on.reshape(projected, {rows, n_layers, size}), source.norm),
      {rows, n_layers * size});
  const mx::array sum = on.scale(on.add(normed, embedded), std::sqrt(0.5f));
  std::vector<mx::array> inputs;
  inputs.reserve(static_cast<std::size_t>(n_layers));
  for (int layer = 0; layer < n_layers; ++layer) {
    inputs.push_back(on.columns(sum, layer * size, size));
  }
  return inputs;
}

int Decoder::rerun_from(int layer) const {
  // Later layers first: what they need may need yet earlier ones.
  int first = layer;
  for (int i = parts_.info.n_layers - 1; i >= first; --i) {
    const auto* attention = std::get_if<nn::Attention>(&parts_.layers[i].mixer);
    if (attention != nullptr && attention->kv_layer >= 0) {
      first = std::min(first, attention->kv_layer);
    }
  }
  return first;
}

std::unique_ptr<Model> Decoder::with_matrices(
    const MatricesByName& matrices) const {
  auto changed = std::make_unique<Decoder>(*this);
  MatricesByName left = matrices;
  for_each_linear(changed->parts_, [&](nn::Linear& linear) {
    if (const auto node = left.extract(linear.name)) {
      exchange(linear, node.mapped());
    }
  });
  if (!left.empty()) {
    fail(
        ErrorKind::NotFound,
        "[with_matrices] no module '{}'",
        left.begin()->first);
  }
  return changed;
}

} // namespace

std::unique_ptr<Model> make_decoder(DecoderParts parts) {
  return std::make_unique<Decoder>(std::move(parts));
}

std::unique_ptr<Model> run_on(const Model& model, kernels::Device& device) {
  const auto* decoder = dynamic_cast<const Decoder*>(&model);
  if (decoder == nullptr) {
    fail(
        ErrorKind::Unsupported,
        "[run_on] {}: found a model that is no decoder of the families', "
        "expected one that load_model made.",
        model.info().model_type);
  }
  return decoder->with_device(device);
}

} // namespace optiq::models
