#include "optiq/quant/plan.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/memory_checkpoint.h"
#include "support/scratch_folder.h"

#include "optiq/artifacts/module_id.h"
#include "optiq/io/model_directory.h"
#include "optiq/quant/planned_tensors.h"

namespace optiq::quant {
namespace {

using artifacts::PlanMethod;

/** Errors that fall with the width, different for each module. */
std::vector<artifacts::LayerSensitivity> make_measured(
    const std::vector<std::string>& modules,
    const std::vector<int>& bits,
    int group_size = 64) {
  std::vector<artifacts::LayerSensitivity> measured;
  std::mt19937 random(4);
  std::lognormal_distribution<double> scale(-6, 2);
  for (const std::string& name : modules) {
    artifacts::LayerSensitivity layer;
    layer.name = name;
    layer.group_size = group_size;
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
  models::Checkpoint checkpoint = testing::make_checkpoint();
  Inventory inventory = take_inventory(checkpoint, 64);
  PlanOptions options;

  artifacts::Plan plan() {
    validate(options);
    return make_plan(
        checkpoint,
        inventory,
        options,
        make_measured(
            free_modules(inventory, options),
            options.candidate_bits,
            options.group_size));
  }
};

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

/** The widths of what kernels multiply at once, by layer. */
std::map<std::string, std::set<std::pair<int, int>>> widths_of_fused(
    const artifacts::Plan& plan) {
  std::map<std::string, std::set<std::pair<int, int>>> widths;
  for (const artifacts::LayerBits& layer : plan.layers) {
    using artifacts::ModuleRole;
    const artifacts::ModuleId id = artifacts::module_id(layer.name);
    const bool is_mixer = id.role == ModuleRole::Query ||
        id.role == ModuleRole::Key || id.role == ModuleRole::Value;
    if (is_mixer || id.role == ModuleRole::Gate || id.role == ModuleRole::Up) {
      widths[std::to_string(id.layer) + (is_mixer ? " qkv" : " gate, up")]
          .emplace(layer.bits, layer.group_size);
    }
  }
  return widths;
}

/** Adds a matrix of the shape of another. */
void add_like(
    models::Checkpoint& checkpoint,
    const std::string& module,
    const std::string& like) {
  models::CheckpointTensor tensor =
      checkpoint.tensors[checkpoint.index.at(like + ".weight")];
  tensor.name = tensor.source = module + ".weight";
  checkpoint.index[tensor.name] = checkpoint.tensors.size();
  checkpoint.tensors.push_back(std::move(tensor));
}

TEST(MakePlan, TiedMatricesHaveOneWidth) {
  Planner planner;
  for (const std::string block : {"model.layers.0.", "model.layers.1."}) {
    add_like(
        planner.checkpoint,
        block + "self_attn.k_proj",
        block + "self_attn.q_proj");
    add_like(
        planner.checkpoint, block + "mlp.gate_proj", block + "mlp.up_proj");
  }
  planner.inventory = take_inventory(planner.checkpoint, 64);
  planner.options.protect = false;
  planner.options.candidate_bits = {2, 3, 4, 5, 6, 8};
  planner.options.target_file_bpw = 4.5;
  const auto most_widths = [](const artifacts::Plan& plan) {
    std::size_t most = 0;
    for (const auto& [fused, widths] : widths_of_fused(plan)) {
      most = std::max(most, widths.size());
    }
    return most;
  };
  for (const QuantizableModule& module : planner.inventory.modules) {
    if (module.id.role == artifacts::ModuleRole::Query ||
        module.id.role == artifacts::ModuleRole::Up) {
      planner.options.error_factors[module.name] = 1e4;
    }
  }
  EXPECT_GT(most_widths(planner.plan()), 1);
  planner.options.tie = true;
  const artifacts::Plan tied = planner.plan();
  EXPECT_EQ(most_widths(tied), 1);
  EXPECT_LE(tied.file_bpw, 4.5);
  EXPECT_GT(tied.file_bpw, 4.2); // no matrix is left out of the budget
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
  planner.options.method = PlanMethod::Uniform;
  planner.options.uniform_bits = 2;
  const std::uint64_t floor = planner.plan().file_bytes;
  planner.options.uniform_bits = 8;
  const std::uint64_t widest = planner.plan().file_bytes;
  for (const auto& [name, method] :
       {std::pair("optiq", PlanMethod::Optiq),
        std::pair("static", PlanMethod::Static)}) {
    planner.options.method = method;
    planner.options.candidate_bits = {2, 3, 4, 5, 6, 8};
    for (std::uint64_t target = floor; target < widest;
         target += (widest - floor) / 37) {
      planner.options.target_bytes = target;
      const artifacts::Plan plan = planner.plan();
      EXPECT_LE(plan.file_bytes, target) << name;
      // Any step that still fits would have been taken; headers differ by
      // a few digits.
      std::uint64_t step = widest;
      for (const artifacts::LayerBits& layer : plan.layers) {
        if (layer.bits < 8) {
          const int more = layer.bits == 6 ? 2 : 1;
          step = std::min(step, layer.parameters * more / 8);
        }
      }
      EXPECT_GT(plan.file_bytes + step + 128, target) << name;
    }
    planner.options.target_bytes = floor;
    EXPECT_EQ(planner.plan().file_bytes, floor) << name;
    planner.options.target_bytes = widest;
    EXPECT_EQ(planner.plan().file_bytes, widest) << name;
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
  planner.options.method = PlanMethod::Uniform;
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

TEST(MakePlan, ACandidateOf16LeavesMatricesAsTheyAre) {
  Planner planner;
  planner.options.candidate_bits = {4, 8, 16};
  planner.options.target_file_bpw = 12;
  const artifacts::Plan plan = planner.plan();
  EXPECT_LE(plan.file_bpw, 12);
  int n_dense = 0;
  for (const artifacts::LayerBits& layer : plan.layers) {
    if (layer.bits == artifacts::kDenseBits) {
      ++n_dense;
      EXPECT_FALSE(layer.is_protected); // those have the widest codes
      EXPECT_EQ(layer.kl, 0.0);
    }
  }
  EXPECT_GT(n_dense, 0);
  EXPECT_LT(default_bits(plan), artifacts::kDenseBits);
  test::ScratchFolder folder;
  io::write_model_shards(
      folder.path(), planned_tensors(planner.checkpoint, plan.layers), 1);
  EXPECT_EQ(
      std::filesystem::file_size(folder / "model.safetensors"),
      plan.file_bytes);
  EXPECT_EQ(adopt_plan(planner.checkpoint, planner.inventory, plan), plan);
  // All of them, where there is room.
  planner.options.protect = false;
  planner.options.target_file_bpw = 17;
  EXPECT_EQ(
      planner.plan().file_bytes,
      size_range(planner.checkpoint, planner.inventory, planner.options).high);
}

TEST(MakePlan, FactorsMoveBitsWithinTheTarget) {
  Planner planner;
  planner.options.candidate_bits = {2, 3, 4, 5, 6, 8};
  planner.options.protect = false;
  planner.options.target_file_bpw = 4.5;
  const artifacts::Plan plan = planner.plan();
  const auto widest = std::max_element(
      plan.layers.begin(), plan.layers.end(), [](auto& a, auto& b) {
        return a.bits < b.bits;
      });
  planner.options.error_factors[widest->name] = 1e-4;
  const artifacts::Plan moved = planner.plan();
  EXPECT_LE(moved.file_bpw, 4.5);
  const auto i = static_cast<std::size_t>(widest - plan.layers.begin());
  EXPECT_LT(moved.layers[i].bits, widest->bits);
  // What is reported is the measurement, without factors.
  EXPECT_GT(*moved.layers[i].kl, *plan.layers[i].kl);
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
  expect_refused([](auto& p) { p.layers[2].bits = 7; }, "7 bits");
  expect_refused([](auto& p) { p.layers[2].group_size = 48; }, "group 48");
}

} // namespace
} // namespace optiq::quant
