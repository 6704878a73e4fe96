#include "optiq/quant/measurement.h"

#include <cstdlib>
#include <memory>

#include <gtest/gtest.h>

#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"

#include "optiq/models/checkpoint.h"

namespace optiq::quant {
namespace {

using artifacts::LayerSensitivity;
using artifacts::Plan;
using artifacts::SensitivityForm;

const std::string kFirst = "model.layers.0.self_attn.o_proj";
const std::string kSecond = "model.layers.3.self_attn.o_proj";
const std::string kThird = "model.layers.2.self_attn.o_proj";

/** Two plans: both give kFirst 2 bits once, 4 when that was measured to be
 * worse; about kSecond they disagree, about kThird they do not. */
struct Fixture {
  test::ScratchFolder folder;
  std::unique_ptr<models::Checkpoint> checkpoint;
  std::unique_ptr<models::Setup> setup;
  MatrixMaker make_matrix;
  Calibration calibration;
  MeasurementOptions options;

  Fixture() {
    testing::write_model(folder.path(), testing::sizes("llama"));
    const auto directory = io::ModelDirectory::open(folder.path());
    checkpoint = std::make_unique<models::Checkpoint>(
        models::open_checkpoint(directory));
    setup = std::make_unique<models::Setup>(
        models::load_model(directory), kernels::Compute::Exact);
    make_matrix = matrix_maker(*checkpoint, round_to_nearest);
    std::mt19937 random(2);
    std::uniform_int_distribution<std::int32_t> token(0, testing::kVocab - 1);
    for (int chunk = 0; chunk < 2; ++chunk) {
      calibration.chunks.emplace_back();
      for (int i = 0; i < 40; ++i) {
        calibration.chunks.back().push_back(token(random));
      }
    }
    calibration.hash = "hash";
    options.modules = {kFirst, kSecond, kThird};
    options.candidate_bits = {2, 4, 8};
    options.group_size = 32;
    options.other_group_sizes = {64};
    options.budget_forwards = 16;
    ::setenv("OPTIQ_CACHE_DIR", folder.path().c_str(), 1);
  }

  Measurement make() const {
    return {
        *setup, calibration, options, [](std::span<const LayerSensitivity>) {
          const auto layer = [](const std::string& name, int bits, int group) {
            return artifacts::LayerBits{
                .name = name, .bits = bits, .group_size = group};
          };
          Plan plan;
          plan.layers = {
              layer(kFirst, 2, 64),
              layer(kSecond, 4, 32),
              layer(kThird, 4, 32)};
          Plan other = plan;
          other.layers[1] = layer(kSecond, 8, 64);
          return std::vector<Plan>{plan, other};
        }};
  }

  artifacts::Sensitivity run(SensitivityForm form) {
    options.form = form;
    std::vector<std::string> notices;
    artifacts::Sensitivity found =
        make().run("model", make_matrix, {}, notices);
    EXPECT_TRUE(notices.empty());
    return found;
  }
};

double kl_of(
    const artifacts::Sensitivity& sensitivity,
    const std::string& name,
    int bits,
    int group_size) {
  for (const auto* layers : {&sensitivity.layers, &sensitivity.other_groups}) {
    for (const LayerSensitivity& layer : *layers) {
      if (layer.name == name && layer.group_size == group_size) {
        return layer.kl.at(bits);
      }
    }
  }
  ADD_FAILURE() << name << " " << group_size;
  return 0;
}

TEST(Measurement, AutoMeasuresTwoBitsAndWhatPlansDisagreeAbout) {
  Fixture fixture;
  const auto settled = fixture.run(SensitivityForm::Auto);
  const auto fast = fixture.run(SensitivityForm::Fast);
  const auto exact = fixture.run(SensitivityForm::Exact);
  EXPECT_EQ(settled.layers.size(), 3U);
  EXPECT_EQ(settled.other_groups.size(), 3U);
  for (const std::string& name : fixture.options.modules) {
    for (const int bits : fixture.options.candidate_bits) {
      for (const int group : {32, 64}) {
        const bool is_measured = (name == kFirst && bits == 2 && group == 64) ||
            (name == kSecond && bits == 4 && group == 32) ||
            (name == kSecond && bits == 8 && group == 64);
        EXPECT_EQ(
            kl_of(settled, name, bits, group),
            kl_of(is_measured ? exact : fast, name, bits, group))
            << name << " " << bits << " " << group;
        EXPECT_NE(
            kl_of(exact, name, bits, group), kl_of(fast, name, bits, group));
      }
    }
  }
}

TEST(Measurement, WithoutABudgetTwoBitsAreMeasuredAllTheSame) {
  Fixture fixture;
  fixture.options.budget_forwards.reset();
  fixture.options.budget_seconds = 0;
  const auto settled = fixture.run(SensitivityForm::Auto);
  const auto exact = fixture.run(SensitivityForm::Exact);
  EXPECT_EQ(kl_of(settled, kFirst, 2, 64), kl_of(exact, kFirst, 2, 64));
  EXPECT_NE(kl_of(settled, kSecond, 4, 32), kl_of(exact, kSecond, 4, 32));
}

TEST(Measurement, HalfOfTheBudgetIsForWholePlans) {
  Fixture fixture;
  fixture.options.form = SensitivityForm::Auto;
  fixture.options.budget_forwards.reset();
  EXPECT_EQ(fixture.make().budget_forwards(), 5U); // as the estimate
  fixture.options.budget_forwards = 16;
  EXPECT_EQ(fixture.make().budget_forwards(), 16U);
  const auto chunks_left = [&fixture] {
    std::vector<std::string> notices;
    Measurement measurement = fixture.make();
    measurement.run("model", fixture.make_matrix, {}, notices);
    return measurement.chunks_left();
  };
  const std::uint64_t left = chunks_left();
  EXPECT_GE(left, 8U * fixture.calibration.chunks.size());
  EXPECT_LT(left, 16U * fixture.calibration.chunks.size());
  {
    Measurement cached = fixture.make();
    ASSERT_TRUE(cached.find("model"));
    EXPECT_EQ(cached.chunks_left(), left);
  }
  fixture.options.form = SensitivityForm::Fast;
  EXPECT_EQ(chunks_left(), 0U);
}

TEST(Measurement, TheCacheServesAndChangesNothing) {
  Fixture fresh;
  const auto expected = fresh.run(SensitivityForm::Auto);
  Fixture fixture;
  fixture.options.form = SensitivityForm::Auto;
  EXPECT_FALSE(fixture.make().find("model"));
  // More is there than auto wants.
  fixture.run(SensitivityForm::Exact);
  EXPECT_EQ(fixture.run(SensitivityForm::Auto), expected);
  Measurement again = fixture.make();
  EXPECT_EQ(again.find("model"), expected);
  ASSERT_TRUE(again.agreement());
  EXPECT_EQ(again.agreement()->n, 2U); // 2 bits are no test of an estimate
  EXPECT_FALSE(fixture.make().find("other model"));
}

} // namespace
} // namespace optiq::quant
