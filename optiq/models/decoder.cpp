#include <algorithm>
#include <cmath>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/base/mapping_guard.h"
#include "optiq/io/array.h"
#include "optiq/models/decoder_impl.h"

namespace optiq::models {
namespace {

void scale_in_place(mx::array& x, float factor) {
  if (factor != 1.f) {
    for (float& value : io::mutable_floats(x)) {
      value *= factor;
    }
  }
}

/** Rows as a block reads them. Its products apply an RMSNorm on their way; a
 * LayerNorm is applied before. */
class NormedRows {
 public:
  NormedRows(const mx::array& x, const std::optional<nn::Norm>& norm)
      : x_(norm && norm->is_layer_norm ? nn::run_norm(*norm, x) : x) {
    if (norm && !norm->is_layer_norm) {
      norm_ = kernels::RowNorm{norm->weight, norm->eps};
    }
  }

  nn::BlockInput input(const mx::array* residual) const {
    return {.x = x_, .norm = norm_ ? &*norm_ : nullptr, .residual = residual};
  }

 private:
  mx::array x_; // [T, hidden]
  std::optional<kernels::RowNorm> norm_;
};

/** Rows of an embedding; a tokenizer may know tokens that it has no row of. */
mx::array rows_of(
    std::span<const std::int32_t> tokens,
    const nn::Linear& embeddings) {
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
  return kernels::embed(tokens, embeddings.weight);
}

class Decoder final : public Model {
 public:
  explicit Decoder(DecoderParts parts) : parts_(std::move(parts)) {}

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
        formats.emplace_back(
            nn::kv_format(std::get<nn::Attention>(layer.mixer), kv_dtype));
      }
    }
    return formats;
  }

  mx::array embed(std::span<const std::int32_t> tokens) const override {
    mx::array x = rows_of(tokens, parts_.embeddings);
    scale_in_place(x, parts_.embedding_scale);
    return x;
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
    const mx::array h = io::take_rows(mix(index, x, context), wanted);
    const mx::array rows = layer.is_parallel ? io::take_rows(x, wanted) : h;
    if (!layer.input) {
      return feed_forward(layer, rows, h, nullptr, context);
    }
    const mx::array input = io::take_rows(context.layer_inputs[index], wanted);
    return feed_forward(layer, rows, h, &input, context);
  }

  mx::array logits(const mx::array& x, const nn::ForwardContext& context)
      const override {
    const nn::Linear& head = parts_.head ? *parts_.head : parts_.embeddings;
    const NormedRows rows(x, parts_.final_norm);
    const mx::array y =
        nn::project(rows.input(nullptr), {&head}, context).front();
    check_mappings(); // every result of a forward comes this way
    return parts_.logit_softcap > 0 ? kernels::softcap(y, parts_.logit_softcap)
                                    : y;
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
      const kernels::Matrix& matrix) const override;

 private:
  /** base + scale * out_norm(block(norm(x))). Where the block's result stays
   * as it is, the block adds it to the base. */
  template <typename F>
  static mx::array run_block(
      const NormedRows& rows,
      const mx::array& base,
      const std::optional<nn::Norm>& out_norm,
      float scale,
      const F& block) {
    if (!out_norm && scale == 1.f) {
      return block(rows.input(&base));
    }
    mx::array y = block(rows.input(nullptr));
    if (out_norm) {
      y = nn::run_norm(*out_norm, y);
    }
    scale_in_place(y, scale);
    return kernels::add(base, y);
  }

  /** A layer's first half: what mixes the rows. */
  mx::array
  mix(int index, const mx::array& x, const nn::ForwardContext& context) const {
    const DecoderLayer& layer = parts_.layers[index];
    return run_block(
        NormedRows(x, layer.mixer_norm),
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
        NormedRows(layer.is_parallel ? x : h, layer.mlp_norm),
        h,
        layer.mlp_out_norm,
        layer.residual_scale,
        [&](const nn::BlockInput& block) {
          return nn::run_mlp(layer.mlp, block, context);
        });
    if (input != nullptr) {
      y = add_layer_input(*layer.input, y, *input, context);
    }
    scale_in_place(y, layer.scale);
    return y;
  }

  mx::array add_layer_input(
      const LayerInput& layer,
      const mx::array& x,
      const mx::array& input,
      const nn::ForwardContext& context) const {
    const mx::array gate =
        nn::project({.x = x}, {&layer.gate}, context).front();
    const mx::array gated = kernels::geglu(gate, input);
    const mx::array projected =
        nn::project({.x = gated}, {&layer.projection}, context).front();
    return kernels::add(x, nn::run_norm(layer.norm, projected));
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

  template <typename F>
  void for_each_linear(F&& f) {
    f(-1, parts_.embeddings);
    if (parts_.layer_inputs) {
      f(-1, parts_.layer_inputs->embeddings);
      f(-1, parts_.layer_inputs->projection);
    }
    for (int i = 0; i < static_cast<int>(parts_.layers.size()); ++i) {
      DecoderLayer& layer = parts_.layers[i];
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
        auto& attention = std::get<nn::Attention>(layer.mixer);
        f(i, attention.q_proj);
        if (attention.k_proj) {
          f(i, *attention.k_proj);
        }
        if (attention.v_proj) {
          f(i, *attention.v_proj);
        }
        f(i, attention.o_proj);
      }
      f(i, layer.mlp.gate_proj);
      if (layer.mlp.up_proj) {
        f(i, *layer.mlp.up_proj);
      }
      f(i, layer.mlp.down_proj);
      if (layer.input) {
        f(i, layer.input->gate);
        f(i, layer.input->projection);
      }
    }
    if (parts_.head) {
      f(-1, *parts_.head);
    }
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
  mx::array embedded = rows_of(tokens, source.embeddings);
  scale_in_place(embedded, std::sqrt(static_cast<float>(size)));
  const mx::array x = embed(tokens);
  mx::array projected =
      nn::project({.x = x}, {&source.projection}, context).front();
  scale_in_place(
      projected, 1.f / std::sqrt(static_cast<float>(parts_.info.hidden_size)));
  const mx::array normed = io::reshaped(
      nn::run_norm(
          source.norm, io::reshaped(projected, {rows, n_layers, size})),
      embedded.shape());
  mx::array sum = kernels::add(normed, embedded);
  scale_in_place(sum, std::sqrt(0.5f));
  std::vector<mx::array> inputs;
  for (int layer = 0; layer < n_layers; ++layer) {
    inputs.push_back(nn::copy_columns(sum, layer * size, size));
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

std::unique_ptr<Model> Decoder::with_matrix(
    const std::string& module,
    const kernels::Matrix& matrix) const {
  auto changed = std::make_unique<Decoder>(*this);
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

} // namespace

std::unique_ptr<Model> make_decoder(DecoderParts parts) {
  return std::make_unique<Decoder>(std::move(parts));
}

} // namespace optiq::models
