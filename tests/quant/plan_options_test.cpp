#include "optiq/quant/plan_options.h"

#include <cmath>

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace optiq::quant {
namespace {

using artifacts::PlanMethod;

TEST(Validate, RefusesWhatIsOutOfRange) {
  const auto expect_refused = [](auto&& change, const char* culprit) {
    PlanOptions options;
    change(options);
    test::expect_error(
        ErrorKind::InvalidInput, {culprit}, [&] { validate(options); });
  };
  for (const int bits : {0, 1, 7, 9, -4}) {
    expect_refused(
        [&](auto& o) {
          o.candidate_bits = {4, bits};
        },
        "--candidate-bits");
    expect_refused(
        [&](auto& o) {
          o.method = PlanMethod::Uniform;
          o.uniform_bits = bits;
        },
        "--bits");
  }
  expect_refused([](auto& o) { o.candidate_bits = {}; }, "--candidate-bits");
  expect_refused([](auto& o) { o.candidate_bits = {16}; }, "--candidate-bits");
  expect_refused(
      [](auto& o) {
        o.method = PlanMethod::Uniform;
        o.uniform_bits = 16;
      },
      "--bits");
  for (const double kl : {0.0, -1.0, double{NAN}, double{INFINITY}}) {
    expect_refused([&](auto& o) { o.target_kl = kl; }, "--target-kl");
  }
  expect_refused(
      [](auto& o) {
        o.target_kl = 0.1;
        o.method = PlanMethod::Static;
      },
      "--target-kl");
  expect_refused(
      [](auto& o) {
        o.target_kl = 0.1;
        o.target_bytes = 1000;
      },
      "2 targets");
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
        o.method = PlanMethod::Uniform;
        o.target_bpw = 4;
      },
      "--bits");
}

TEST(Validate, SortsCandidates) {
  PlanOptions options;
  options.candidate_bits = {8, 3, 4, 8};
  validate(options);
  EXPECT_EQ(options.candidate_bits, (std::vector<int>{3, 4, 8}));
  EXPECT_EQ(widest_bits(options), 8);
  options.candidate_bits = {16, 4};
  validate(options);
  EXPECT_EQ(widest_bits(options), 4);
}

} // namespace
} // namespace optiq::quant
