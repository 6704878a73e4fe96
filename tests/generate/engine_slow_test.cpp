#include <cstdlib>
#include <filesystem>
#include <optional>

#include "generate/engine_equality.h"

namespace optiq::generate::equality {
namespace {

/** SmolLM2, a dense transformer, where a setup has put it. */
class EngineOnADenseModel : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("OPTIQ_GGUF_DIR");
    const auto path = std::filesystem::path(folder == nullptr ? "" : folder) /
        "SmolLM2-135M-Instruct.Q4_1.gguf";
    if (!std::filesystem::exists(path)) {
      GTEST_SKIP() << path << " is not there";
    }
    if (!setup_) {
      setup_.emplace(
          models::load_model(io::ModelDirectory::open(path)), Compute::Fast);
    }
  }

  static std::optional<models::Setup> setup_;
};

std::optional<models::Setup> EngineOnADenseModel::setup_;

TEST_F(EngineOnADenseModel, BatchesChangeNoBit) {
  expect_batches_change_no_bit(*setup_);
}

TEST_F(EngineOnADenseModel, PreemptionChangesNoBit) {
  expect_preemption_changes_no_bit(*setup_);
}

TEST_F(EngineOnADenseModel, ASecondTurnComputesOnlyWhatIsNewAndTheSameBits) {
  expect_second_turns_change_no_bit(*setup_, 300);
}

} // namespace
} // namespace optiq::generate::equality
