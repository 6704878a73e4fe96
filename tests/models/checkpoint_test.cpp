#include "optiq/models/checkpoint.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace optiq::models {
namespace {

TEST(Checkpoint, NamesAMissingTensor) {
  Checkpoint checkpoint;
  checkpoint.tensors.resize(3);
  test::expect_error(ErrorKind::NotFound, {"lm_head.weight", "3 tensors"}, [&] {
    checkpoint.at("lm_head.weight");
  });
}

} // namespace
} // namespace optiq::models
