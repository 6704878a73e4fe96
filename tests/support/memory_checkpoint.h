#pragma once

#include <random>
#include <string>

#include <mlx/ops.h>

#include "optiq/io/array.h"
#include "optiq/models/checkpoint.h"

namespace optiq::testing {

namespace mx = mlx::core;

/** A checkpoint in memory: embeddings, three blocks, norms, one matrix whose
 * rows divide by no group, an MTP and a tower tensor. */
inline models::Checkpoint make_checkpoint() {
  models::Checkpoint checkpoint;
  std::mt19937 random(3);
  const auto add = [&](const std::string& name,
                       const mx::Shape& shape,
                       models::TensorRole role = models::TensorRole::Weight) {
    std::normal_distribution<float> normal(0.f, 1.f);
    mx::array values = io::make_array(shape, mx::float32);
    for (float& value : io::mutable_floats(values)) {
      value = normal(random);
    }
    const mx::array w = io::materialize(mx::astype(values, mx::bfloat16));
    models::CheckpointTensor tensor;
    tensor.name = name;
    tensor.source = name;
    tensor.role = role;
    tensor.dtype = mx::bfloat16;
    tensor.shape = shape;
    tensor.load = [w] { return w; };
    tensor.drop = [] {};
    checkpoint.index[name] = checkpoint.tensors.size();
    checkpoint.tensors.push_back(tensor);
  };
  add("model.embed_tokens.weight", {96, 128});
  for (int i = 0; i < 3; ++i) {
    const std::string block = "model.layers." + std::to_string(i);
    add(block + ".input_layernorm.weight", {128});
    add(block + ".self_attn.q_proj.weight", {64, 128});
    add(block + ".mlp.up_proj.weight", {256, 128});
    add(block + ".mlp.down_proj.weight", {128, 256});
  }
  add("model.odd.weight", {8, 40});
  add("model.layers.0.linear_attn.conv1d.weight", {16, 4, 1});
  add("mtp.fc.weight", {64, 128}, models::TensorRole::Mtp);
  add("vision_tower.a.weight", {64, 128}, models::TensorRole::Tower);
  return checkpoint;
}

} // namespace optiq::testing
