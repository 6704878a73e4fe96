#include "optiq/artifacts/kv_config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace optiq::artifacts {
namespace {

KvConfig parse(const std::string& text) {
  return kv_config_from_json(parse_json(text, "memory"), "memory");
}

TEST(KvConfig, ReadsTheFilesOfTheOriginal) {
  const KvConfig config = parse(
      R"([{"layer_idx": 7, "bits": 4, "group_size": 32},
          {"layer_idx": 3, "bits": 8, "group_size": 64}])");
  ASSERT_EQ(config.layers.size(), 2u);
  EXPECT_EQ(
      config.layers[0],
      (KvLayer{
          .layer_idx = 3,
          .codec = {
              .method = KvMethod::Affine, .key_bits = 8, .value_bits = 8}}));
  EXPECT_EQ(
      config.layers[1],
      (KvLayer{
          .layer_idx = 7,
          .codec = {
              .method = KvMethod::Affine,
              .key_bits = 4,
              .value_bits = 4,
              .group_size = 32}}));
}

TEST(KvConfig, WritesKeysBeyondTheOriginalsOnlyWhereTheyDiffer) {
  const KvConfig config{
      {{.layer_idx = 0,
        .codec = {.method = KvMethod::Affine, .key_bits = 4, .value_bits = 4}},
       {.layer_idx = 2,
        .codec = {
            .method = KvMethod::Turbo,
            .key_bits = 3,
            .value_bits = 2.5,
            .rotation = KvRotation::Orthogonal,
            .seed = 7}}}};
  EXPECT_EQ(
      to_json(config).dump(),
      R"([{"layer_idx":0,"bits":4,"group_size":64},)"
      R"({"layer_idx":2,"bits":3,"value_bits":2.5,"group_size":64,)"
      R"("method":"turbo","rotation":"orthogonal","seed":7}])");
}

TEST(KvConfig, SurvivesWritingAndReading) {
  const KvConfig config{
      {{.layer_idx = 1,
        .codec =
            {.method = KvMethod::Affine,
             .key_bits = 4,
             .value_bits = 2,
             .group_size = 32}},
       {.layer_idx = 4,
        .codec = {
            .method = KvMethod::Turbo, .key_bits = 3.5, .value_bits = 1}}}};
  EXPECT_EQ(parse(to_json(config).dump()).layers, config.layers);
}

// Converting a double beyond int64 is undefined, which the preset fuzz sees.
TEST(KvConfig, WritesNumbersThatNoIntegerHolds) {
  const auto written = [](const char* bits) {
    return to_json(parse(
        fmt::format(R"([{{"layer_idx": 0, "bits": {}}}])", bits)))[0]["bits"];
  };
  EXPECT_EQ(written("1e300"), 1e300);
  EXPECT_EQ(written("-1e19"), -1e19);
  EXPECT_EQ(written("9007199254740992.0").dump(), "9007199254740992");
}

TEST(KvConfig, RefusesWhatItWouldHaveToIgnore) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"layer_idx": 0})", "expected a list"},
      {R"([3])", "entry 0"},
      {R"([{"layer_idx": 0, "group_size": 64}])", "bits"},
      {R"([{"layer_idx": 0, "bits": "4"}])", "bits"},
      {R"([{"layer_idx": -1, "bits": 4}])", "below zero"},
      {R"([{"layer_idx": 0, "bits": 4}, {"layer_idx": 0, "bits": 8}])",
       "layer_idx 0 again"},
      {R"([{"layer_idx": 0, "bits": 4, "quantizer": "x"}])", "'quantizer'"},
      {R"([{"layer_idx": 0, "bits": 4, "method": "kivi"}])", "'kivi'"},
      {R"([{"layer_idx": 0, "bits": 4, "rotation": "x"}])", "'x'"}};
  for (const auto& [text, culprit] : cases) {
    SCOPED_TRACE(text);
    test::expect_error(
        ErrorKind::Corrupt, {culprit}, [&, &json = text] { parse(json); });
  }
}

TEST(KvSensitivity, SurvivesWritingAndReading) {
  const std::vector<KvLayerSensitivity> layers{
      {.layer_idx = 3,
       .layer_name = "model.layers.3",
       .n_kv_heads = 2,
       .head_dim = 64,
       .candidates = {
           {{KvMethod::Affine, 4, 4}, 1.0 / 3, 144},
           {{KvMethod::Turbo, 3, 0}, 1e-7 / 3, 52.5}}}};
  const Json json = to_json(layers);
  EXPECT_EQ(json[0]["sensitivities"].dump(), R"({"4":0.3333333333333333})");
  EXPECT_EQ(to_json(kv_sensitivity_from_json(json, "memory")), json);
}

TEST(KvSensitivity, ACacheCostsItsCandidateOrItsTwoSides) {
  KvLayerSensitivity layer;
  layer.candidates = {
      {.codec = {.method = KvMethod::Affine, .key_bits = 4, .value_bits = 4},
       .kl = 1,
       .bytes_per_token = 10},
      {.codec = {.method = KvMethod::Affine, .key_bits = 4, .value_bits = 0},
       .kl = 2,
       .bytes_per_token = 5},
      {.codec = {.method = KvMethod::Affine, .key_bits = 0, .value_bits = 2},
       .kl = 4,
       .bytes_per_token = 3}};
  const auto cost = [&](KvMethod method, double key_bits, double value_bits) {
    return measured_cost(
        {.codec =
             {.method = method,
              .key_bits = key_bits,
              .value_bits = value_bits}},
        layer);
  };
  const auto both = cost(KvMethod::Affine, 4, 4);
  ASSERT_TRUE(both.has_value());
  EXPECT_EQ(both->kl, 1);
  EXPECT_EQ(both->bytes_per_token, 10);
  const auto sides = cost(KvMethod::Affine, 4, 2);
  ASSERT_TRUE(sides.has_value());
  EXPECT_EQ(sides->kl, 6);
  EXPECT_EQ(sides->bytes_per_token, 8);
  EXPECT_FALSE(cost(KvMethod::Affine, 2, 4).has_value());
  EXPECT_FALSE(cost(KvMethod::Turbo, 4, 4).has_value());
}

} // namespace
} // namespace optiq::artifacts
