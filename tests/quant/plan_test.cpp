#include "optiq/quant/plan.h"

#include <random>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

#include "optiq/io/array.h"
#include "optiq/io/model_directory.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

/** A checkpoint in memory: embeddings, three blocks, norms, one matrix whose
 * rows divide by no group, an MTP and a tower tensor. */
models::Checkpoint make_checkpoint() {
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

/** Errors that fall with the width, different for each module. */
std::vector<artifacts::LayerSensitivity> make_measured(
    const std::vector<std::string>& modules,
    const std::vector<int>& bits) {
  std::vector<artifacts::LayerSensitivity> measured;
  std::mt19937 random(4);
  std::lognormal_distribution<double> scale(-6, 2);
  for (const std::string& name : modules) {
    artifacts::LayerSensitivity layer;
    layer.name = name;
    const double error = scale(random);
    for (const int b : bits) {
      layer.kl[b] = error * std::exp2(-2.0 * b);
      layer.relative_kl[b] = layer.kl[b];
    }
    measured.push_back(layer);
  }
  return measured;
}

struct Planner {
  models::Checkpoint checkpoint = make_checkpoint();
  Inventory inventory = take_inventory(checkpoint, 64);
  PlanOptions options;

  artifacts::Plan plan() {
    validate(options);
    return make_plan(
        checkpoint,
        inventory,
        options,
        make_measured(
            free_modules(inventory, options), options.candidate_bits));
  }
};

TEST(TakeInventory, NamesWhatIsQuantizedAndWhatIsNot) {
  const Planner planner;
  EXPECT_EQ(planner.inventory.modules.size(), 10u);
  EXPECT_EQ(planner.inventory.modules.front().name, "model.embed_tokens");
  EXPECT_EQ(planner.inventory.modules.front().parameters, 96u * 128);
  EXPECT_EQ(
      planner.inventory.kept_dense, std::vector<std::string>{"model.odd"});
  EXPECT_EQ(planner.inventory.n_blocks, 3);
  EXPECT_EQ(
      planner.inventory.parameters,
      96u * 128 + 3 * (128 + 64 * 128 + 2 * 256 * 128) + 8 * 40 + 64);
}

TEST(TakeInventory, RefusesGroupSizesAndQuantizedSources) {
  models::Checkpoint checkpoint = make_checkpoint();
  for (const int group : {0, -64, 48, 63, 256}) {
    test::expect_error(
        ErrorKind::InvalidInput, {std::to_string(group), "32, 64 or 128"}, [&] {
          take_inventory(checkpoint, group);
        });
  }
  EXPECT_EQ(take_inventory(checkpoint, 128).modules.size(), 10u);
  checkpoint.tensors[0].name = "model.embed_tokens.scales";
  test::expect_error(ErrorKind::Unsupported, {"quantized already"}, [&] {
    take_inventory(checkpoint, 64);
  });
}

TEST(TakeInventory, AGroupSizeThatDividesNothingIsAnError) {
  models::Checkpoint checkpoint = make_checkpoint();
  std::erase_if(checkpoint.tensors, [](const auto& tensor) {
    return tensor.name != "model.odd.weight";
  });
  test::expect_error(ErrorKind::InvalidInput, {"64", "no matrix"}, [&] {
    take_inventory(checkpoint, 64);
  });
}

TEST(MakePlan, TheTargetIsTheMeanCodeWidthOutsideTheProtectedSet) {
  Planner planner;
  planner.options.target_bpw = 4.5;
  const artifacts::Plan plan = planner.plan();
  double bits = 0;
  double parameters = 0;
  int n_protected = 0;
  for (const artifacts::LayerBits& layer : plan.layers) {
    if (layer.is_protected) {
      EXPECT_EQ(layer.bits, 8) << layer.name;
      EXPECT_FALSE(layer.kl) << layer.name;
      ++n_protected;
    } else {
      EXPECT_TRUE(layer.kl) << layer.name;
      bits += layer.bits * static_cast<double>(layer.parameters);
      parameters += static_cast<double>(layer.parameters);
    }
  }
  EXPECT_EQ(n_protected, 3); // embeddings, first and last mixer
  EXPECT_DOUBLE_EQ(plan.achieved_bpw, bits / parameters);
  EXPECT_LE(plan.achieved_bpw, 4.5);
  // The largest matrix is 15 % of the free weights: one step is 4 x 0.15 bits.
  EXPECT_GT(plan.achieved_bpw, 4.5 - 0.6);
}

TEST(MakePlan, FileBytesAreThoseOfTheWrittenFiles) {
  for (const int group : {32, 64, 128}) {
    Planner planner;
    planner.inventory = take_inventory(planner.checkpoint, group);
    planner.options.group_size = group;
    planner.options.candidate_bits = {2, 3, 4, 5, 6, 8};
    const artifacts::Plan plan = planner.plan();
    test::ScratchFolder folder;
    io::write_model_shards(
        folder.path(), planned_tensors(planner.checkpoint, plan.layers), 1);
    EXPECT_EQ(
        std::filesystem::file_size(folder / "model.safetensors"),
        plan.file_bytes);
    EXPECT_DOUBLE_EQ(
        plan.file_bpw,
        8.0 * static_cast<double>(plan.file_bytes) /
            static_cast<double>(planner.inventory.parameters));
  }
}

TEST(MakePlan, AByteTargetIsNeverExceededAndMissedByLessThanAStep) {
  Planner planner;
  planner.options.candidate_bits = {2, 3, 4, 5, 6, 8};
  planner.options.protect = false;
  planner.options.method = "uniform";
  planner.options.uniform_bits = 2;
  const std::uint64_t floor = planner.plan().file_bytes;
  planner.options.uniform_bits = 8;
  const std::uint64_t widest = planner.plan().file_bytes;
  for (const char* method : {"optiq", "static"}) {
    planner.options.method = method;
    planner.options.candidate_bits = {2, 3, 4, 5, 6, 8};
    for (std::uint64_t target = floor; target < widest;
         target += (widest - floor) / 37) {
      planner.options.target_bytes = target;
      const artifacts::Plan plan = planner.plan();
      EXPECT_LE(plan.file_bytes, target) << method;
      // Any step that still fits would have been taken; headers differ by
      // a few digits.
      std::uint64_t step = widest;
      for (const artifacts::LayerBits& layer : plan.layers) {
        if (layer.bits < 8) {
          const int more = layer.bits == 6 ? 2 : 1;
          step = std::min(step, layer.parameters * more / 8);
        }
      }
      EXPECT_GT(plan.file_bytes + step + 128, target) << method;
    }
    planner.options.target_bytes = floor;
    EXPECT_EQ(planner.plan().file_bytes, floor) << method;
    planner.options.target_bytes = widest;
    EXPECT_EQ(planner.plan().file_bytes, widest) << method;
    planner.options.target_bytes = floor - 1;
    test::expect_error(ErrorKind::InvalidInput, {std::to_string(floor)}, [&] {
      planner.plan();
    });
  }
}

TEST(MakePlan, FileBpwIsBytesOverAllParameters) {
  Planner planner;
  planner.options.target_file_bpw = 7.0;
  const artifacts::Plan plan = planner.plan();
  EXPECT_LE(plan.file_bpw, 7.0);
  EXPECT_GT(plan.file_bpw, 6.0);
  planner.options.target_file_bpw = 3.0;
  // The floor that the message names must itself be feasible.
  try {
    planner.plan();
    FAIL();
  } catch (const Error& e) {
    const std::string message = e.what();
    const std::size_t at = message.find(" file bpw");
    ASSERT_NE(at, std::string::npos) << message;
    planner.options.target_file_bpw =
        std::stod(message.substr(message.rfind('(', at) + 1));
    planner.plan();
  }
}

TEST(MakePlan, BelowTheNarrowestCandidateIsAnError) {
  Planner planner;
  planner.options.target_bpw = 3.99;
  test::expect_error(
      ErrorKind::InvalidInput, {"3.99", "least possible", "4"}, [&] {
        planner.plan();
      });
  planner.options.target_bpw = 4.0;
  EXPECT_DOUBLE_EQ(planner.plan().achieved_bpw, 4.0);
}

TEST(MakePlan, UniformTakesEveryMatrixThatDivides) {
  Planner planner;
  planner.options.method = "uniform";
  planner.options.uniform_bits = 3;
  const artifacts::Plan plan = planner.plan();
  EXPECT_EQ(plan.layers.size(), 10u);
  for (const artifacts::LayerBits& layer : plan.layers) {
    EXPECT_EQ(layer.bits, 3);
    EXPECT_FALSE(layer.is_protected);
  }
  EXPECT_DOUBLE_EQ(plan.achieved_bpw, 3.0);
  EXPECT_EQ(default_bits(plan), 3);
}

TEST(Validate, RefusesWhatIsOutOfRange) {
  const auto expect_refused = [](auto&& change, const char* culprit) {
    PlanOptions options;
    change(options);
    test::expect_error(
        ErrorKind::InvalidInput, {culprit}, [&] { validate(options); });
  };
  for (const int bits : {0, 1, 7, 9, 16, -4}) {
    expect_refused(
        [&](auto& o) {
          o.candidate_bits = {4, bits};
        },
        "--candidate-bits");
    expect_refused(
        [&](auto& o) {
          o.method = "uniform";
          o.uniform_bits = bits;
        },
        "--bits");
  }
  expect_refused([](auto& o) { o.candidate_bits = {}; }, "--candidate-bits");
  expect_refused([](auto& o) { o.method = "best"; }, "best");
  expect_refused([](auto& o) { o.target_bpw = 0; }, "--target-bpw");
  expect_refused([](auto& o) { o.target_bpw = NAN; }, "--target-bpw");
  expect_refused([](auto& o) { o.target_file_bpw = -1; }, "--target-file-bpw");
  expect_refused(
      [](auto& o) {
        o.target_bpw = 4;
        o.target_bytes = 1000;
      },
      "2 targets");
  expect_refused(
      [](auto& o) {
        o.method = "uniform";
        o.target_bpw = 4;
      },
      "--bits");
}

TEST(Validate, SortsCandidates) {
  PlanOptions options;
  options.candidate_bits = {8, 3, 4, 8};
  validate(options);
  EXPECT_EQ(options.candidate_bits, (std::vector<int>{3, 4, 8}));
}

TEST(AdoptPlan, TakesItsOwnPlanAndRefusesAnotherModels) {
  Planner planner;
  const artifacts::Plan plan = planner.plan();
  EXPECT_EQ(adopt_plan(planner.checkpoint, planner.inventory, plan), plan);
  const auto expect_refused = [&](auto&& change, const char* culprit) {
    artifacts::Plan other = plan;
    change(other);
    test::expect_error(ErrorKind::InvalidInput, {culprit}, [&] {
      adopt_plan(planner.checkpoint, planner.inventory, other);
    });
  };
  expect_refused([](auto& p) { p.layers.pop_back(); }, "9 modules");
  expect_refused([](auto& p) { p.layers[2].name = "x"; }, "'x'");
  expect_refused([](auto& p) { p.layers[2].parameters = 7; }, "7 parameters");
  expect_refused([](auto& p) { p.layers[2].bits = 16; }, "16 bits");
  expect_refused([](auto& p) { p.layers[2].group_size = 32; }, "group 32");
}

TEST(QuantizedTensors, AreMlxsAndLetGoOfTheirMemory) {
  const models::Checkpoint checkpoint = make_checkpoint();
  const auto& tensor = checkpoint.at("model.layers.1.mlp.up_proj.weight");
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    const auto expected = mx::quantize(tensor.load(), 64, bits);
    const auto parts = quantized_tensors(tensor, bits, 64);
    ASSERT_EQ(parts.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) {
      const mx::array made = parts[i].make();
      EXPECT_EQ(made.dtype(), parts[i].dtype);
      EXPECT_EQ(made.shape(), parts[i].shape);
      EXPECT_TRUE(mx::array_equal(made, expected[i]).item<bool>())
          << bits << " " << parts[i].name;
    }
  }
}

} // namespace
} // namespace optiq::quant
