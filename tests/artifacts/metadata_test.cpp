#include "optiq/artifacts/metadata.h"

#include <cmath>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::artifacts {
namespace {

namespace fs = std::filesystem;
using test::expect_error;

Plan example_plan() {
  return {
      .method = PlanMethod::Optiq,
      .group_size = 64,
      .candidate_bits = {3, 4, 8},
      .target_bpw = 4.5,
      .target_bytes = std::nullopt,
      .layers =
          {{.name = "lm_head",
            .bits = 8,
            .parameters = 131072,
            .is_protected = true},
           {.name = "z.q_proj", .bits = 3, .parameters = 4096, .kl = 0.1},
           {.name = "a.q_proj",
            .bits = 4,
            .group_size = 32,
            .parameters = 1ull << 40,
            .kl = 1.0 / 3},
           {.name = "a.k_proj", .bits = 8, .kl = -5e-324}},
      .achieved_bpw = 4.4999999999999991,
      .file_bytes = 18'446'744'073'709'551'615ull,
      .file_bpw = 4.7,
      .predicted_kl = 0.1 + 1.0 / 3,
      .prior_weight = 0.1,
      .measured_kl = 1.0 / 7};
}

Metadata example_metadata() {
  return {
      .tool_version = "0.1.0",
      .base_model = "org/\"name\" \xc3\xa9",
      .reference = "bf16",
      .calibration = "mix",
      .calibration_hash = "00ff",
      .calibration_tokens = 8192,
      .compute = "exact",
      .rounding = "gptq",
      .tuned_steps = 80,
      .plan = example_plan()};
}

Sensitivity example_sensitivity() {
  return {
      .base_model = "m",
      .candidate_bits = {4, 8},
      .group_size = 64,
      .key = "abc",
      .layers = {
          {.name = "z",
           .parameters = 7,
           .kl = {{4, 0.1}, {8, 6.36e-05}},
           .kl_stderr = {{4, 1e-3}, {8, 0.0}},
           .relative_kl = {{4, 1.0 / 3}, {8, 0.1}}},
          {.name = "a", .parameters = 8, .kl = {{4, 1.0 / 3}}}}};
}

Json through_text(const Json& json) {
  return parse_json(dump_json(json, 2), "text");
}

TEST(Metadata, RoundTripsEveryField) {
  const Metadata metadata = example_metadata();
  EXPECT_EQ(metadata_from_json(through_text(to_json(metadata)), "m"), metadata);
  Metadata sized = metadata;
  sized.plan.method = PlanMethod::Static;
  sized.plan.target_bpw.reset();
  sized.plan.target_bytes = 600'000'000;
  EXPECT_EQ(metadata_from_json(through_text(to_json(sized)), "m"), sized);
  EXPECT_NE(sized, metadata);
}

TEST(Metadata, WritesTheMembersOfTheReference) {
  const Json json = to_json(example_metadata());
  EXPECT_EQ(json.at("method"), "optiq_mixed_precision");
  EXPECT_EQ(json.at("schema_version"), 1);
  EXPECT_EQ(json.at("n_high_bits"), 2); // at 8
  EXPECT_EQ(json.at("n_low_bits"), 1); // at 3
  EXPECT_EQ(json.at("threshold"), 0.0);
  EXPECT_TRUE(json.at("target_bytes").is_null());
  std::vector<std::string> names;
  for (const auto& [name, entry] : json.at("per_layer").items()) {
    names.push_back(name);
  }
  EXPECT_EQ(
      names,
      (std::vector<std::string>{
          "lm_head", "z.q_proj", "a.q_proj", "a.k_proj"}));
  EXPECT_EQ(
      json.at("per_layer").at("lm_head").dump(),
      R"({"bits":8,"group_size":64,"kl":null,"parameters":131072,)"
      R"("protected":true})");
}

TEST(Metadata, ReadsTheOriginals) {
  const char* inner =
      R"({"method":"optiq_mixed_precision","base_model":"./hf-l2",)"
      R"("reference":"bf16","target_bpw":5.0,"achieved_bpw":5.0,)"
      R"("n_high_bits":1,"n_low_bits":1,"threshold":0.0,"per_layer":{)"
      R"("lm_head":{"bits":4,"group_size":64},)"
      R"("model.layers.1.mlp.up_proj":{"bits":8,"group_size":64}}})";
  const Metadata metadata = metadata_from_json(parse_json(inner, "m"), "m");
  EXPECT_EQ(metadata.schema_version, 0);
  EXPECT_EQ(metadata.base_model, "./hf-l2");
  EXPECT_EQ(metadata.plan.method, PlanMethod::Optiq);
  EXPECT_EQ(metadata.plan.target_bpw, 5.0);
  EXPECT_EQ(metadata.plan.candidate_bits, (std::vector<int>{4, 8}));
  ASSERT_EQ(metadata.plan.layers.size(), 2u);
  EXPECT_EQ(metadata.plan.layers[1].name, "model.layers.1.mlp.up_proj");
  EXPECT_EQ(metadata.plan.layers[1].bits, 8);
  EXPECT_FALSE(metadata.plan.layers[1].kl);

  const Json nested = {{"optimization", parse_json(inner, "m")}};
  EXPECT_EQ(metadata_from_json(nested, "m"), metadata);

  const Metadata old = metadata_from_json(
      parse_json(R"({"optimization":{"per_layer":{"a":{"bits":4}}}})", "m"),
      "m");
  EXPECT_EQ(old.base_model, "");
  EXPECT_EQ(old.plan.layers.at(0).group_size, 64);
}

TEST(Metadata, IsFoundInADirectory) {
  const test::ScratchFolder folder;
  EXPECT_FALSE(read_metadata(folder.path()));
  EXPECT_FALSE(read_sensitivity(folder.path()));
  test::write_file(
      folder / "optiq_metadata.json",
      R"({"base_model":"root","per_layer":{}})");
  EXPECT_EQ(read_metadata(folder.path())->base_model, "root");
  fs::create_directory(folder / "optiq");
  test::write_file(
      folder / "optiq/metadata.json",
      dump_json(to_json(example_metadata()), 2));
  EXPECT_EQ(read_metadata(folder.path()), example_metadata());
  test::write_file(
      folder / "optiq/sensitivity.json",
      dump_json(to_json(example_sensitivity()), 2));
  EXPECT_EQ(read_sensitivity(folder.path()), example_sensitivity());
}

TEST(Metadata, BrokenFilesAreRefusedNamingKeyAndFile) {
  struct Case {
    const char* text;
    const char* part;
    ErrorKind kind = ErrorKind::Corrupt;
  };
  const Case cases[] = {
      {"[]", "a list"},
      {"{}", "'per_layer'"},
      {R"({"optimization":[]})", "'optimization'"},
      {R"({"per_layer":[]})", "'per_layer'"},
      {R"({"per_layer":{"a":4}})", "'a'"},
      {R"({"per_layer":{"a":{}}})", "'bits'"},
      {R"({"per_layer":{"a":{"bits":"4"}}})", "'bits'"},
      {R"({"per_layer":{"a":{"bits":7}}})", "'bits' is 7"},
      {R"({"per_layer":{"a":{"bits":-4}}})", "'bits' is -4"},
      {R"({"per_layer":{"a":{"bits":4e0}}})", "'bits' is 4"},
      {R"({"per_layer":{"a":{"bits":4,"group_size":0}}})", "'group_size' is 0"},
      {R"({"per_layer":{"a":{"bits":4,"parameters":-1}}})", "'parameters'"},
      {R"({"per_layer":{"a":{"bits":4,"kl":"x"}}})", "'kl'"},
      {R"({"per_layer":{"a":{"bits":4,"protected":1}}})", "'protected'"},
      {R"({"per_layer":{"a":{"bits":4},"a":{"bits":8}}})", "'a'"},
      {R"({"per_layer":{},"method":"magic"})", "'magic'"},
      {R"({"per_layer":{},"candidate_bits":[4,9]})", "'candidate_bits' is 9"},
      {R"({"per_layer":{},"target_bpw":"4.5"})", "'target_bpw'"},
      {R"({"per_layer":{},"base_model":7})", "'base_model'"},
      {R"({"per_layer":{},"schema_version":2})",
       "newer",
       ErrorKind::Unsupported},
      {R"({"per_layer":{},"schema_version":-1})",
       "'schema_version'",
       ErrorKind::Unsupported}};
  for (const Case& broken : cases) {
    const test::ScratchFolder folder;
    test::write_file(folder / "optiq_metadata.json", broken.text);
    expect_error(broken.kind, {"optiq_metadata.json", broken.part}, [&] {
      read_metadata(folder.path());
    });
  }
}

TEST(ToJson, RefusesWhatWouldNotReadBack) {
  Plan plan = example_plan();
  plan.layers[1].kl = std::nan("");
  expect_error(
      ErrorKind::InvalidInput, {"'kl'", "nan"}, [&] { to_json(plan); });
  plan = example_plan();
  plan.predicted_kl = HUGE_VAL;
  expect_error(
      ErrorKind::InvalidInput, {"'predicted_kl'"}, [&] { to_json(plan); });
  plan = example_plan();
  plan.layers[1].name = "lm_head";
  expect_error(
      ErrorKind::InvalidInput, {"'lm_head'", "twice"}, [&] { to_json(plan); });
  Sensitivity sensitivity = example_sensitivity();
  sensitivity.layers[0].kl[4] = HUGE_VAL;
  expect_error(ErrorKind::InvalidInput, {"'sensitivities'"}, [&] {
    to_json(sensitivity);
  });
}

TEST(PlanMethod, HasOneNameOnTheCommandLineAndInFiles) {
  for (const PlanMethod method :
       {PlanMethod::Optiq, PlanMethod::Static, PlanMethod::Uniform}) {
    EXPECT_EQ(plan_method_of(name_of(method)), method);
    Plan plan = example_plan();
    plan.method = method;
    EXPECT_EQ(to_json(plan).at("method"), name_of(method));
    EXPECT_EQ(plan_from_json(to_json(plan), "p").method, method);
  }
  expect_error(
      ErrorKind::InvalidInput, {"best", "optiq, static or uniform"}, [] {
        plan_method_of("best");
      });
}

TEST(PlanFile, RoundTripsAndIsNoMetadata) {
  const Plan plan = example_plan();
  EXPECT_EQ(plan_from_json(through_text(to_json(plan)), "p"), plan);
  expect_error(ErrorKind::Corrupt, {"'kind'", "p.json"}, [] {
    plan_from_json(to_json(example_metadata()), "p.json");
  });
  Json other = to_json(plan);
  other["kind"] = "shopping list";
  expect_error(ErrorKind::Corrupt, {"shopping list", "--save-plan"}, [&] {
    plan_from_json(other, "p.json");
  });
}

TEST(Sensitivity, RoundTripsInTheFormOfTheReference) {
  const Sensitivity sensitivity = example_sensitivity();
  const Json json = through_text(to_json(sensitivity));
  EXPECT_EQ(sensitivity_from_json(json, "s"), sensitivity);
  EXPECT_EQ(json.at("metric"), "kl_divergence_vs_reference");
  EXPECT_EQ(
      json.at("layers")[0].dump(),
      R"({"layer_name":"z","sensitivities":{"4":0.1,"8":6.36e-05},)"
      R"("stderr":{"4":0.001,"8":0.0},"relative":{"4":0.3333333333333333,"8":0.1},"param_count":7,"metadata":{}})");
}

TEST(Sensitivity, ReadsTheOriginals) {
  const Sensitivity sensitivity = sensitivity_from_json(
      parse_json(
          R"({"base_model":"m","candidate_bits":[4,8],"group_size":64,)"
          R"("metric":"kl_divergence_vs_reference","layers":[{)"
          R"("layer_name":"lm_head","sensitivities":{"4":0.006742,)"
          R"("8":6.36e-05},"param_count":131072,"metadata":{}}]})",
          "s"),
      "s");
  EXPECT_EQ(sensitivity.key, "");
  EXPECT_EQ(
      sensitivity.layers.at(0).kl,
      (std::map<int, double>{{4, 0.006742}, {8, 6.36e-05}}));
  EXPECT_TRUE(sensitivity.layers.at(0).kl_stderr.empty());
}

TEST(Sensitivity, BrokenFilesAreRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"{}", "'layers'"},
      {R"({"layers":{}})", "'layers'"},
      {R"({"layers":[7]})", "7"},
      {R"({"layers":[{}]})", "'layer_name'"},
      {R"({"layers":[{"layer_name":"a"}]})", "'sensitivities'"},
      {R"({"layers":[{"layer_name":"a","sensitivities":{"x":1}}]})", "'x'"},
      {R"({"layers":[{"layer_name":"a","sensitivities":{"4 ":1}}]})", "'4 '"},
      {R"({"layers":[{"layer_name":"a","sensitivities":{"7":1}}]})", "7"},
      {R"({"layers":[{"layer_name":"a","sensitivities":{"4":"1"}}]})", "'4'"},
      {R"({"layers":[{"layer_name":"a","sensitivities":{},"stderr":1}]})",
       "'stderr'"},
      {R"({"layers":[{"layer_name":"a","sensitivities":{}},)"
       R"({"layer_name":"a","sensitivities":{}}]})",
       "'a'"}};
  for (const auto& [text, part] : cases) {
    expect_error(ErrorKind::Corrupt, {"s.json", part}, [t = text] {
      sensitivity_from_json(parse_json(t, "s.json"), "s.json");
    });
  }
  expect_error(ErrorKind::Unsupported, {"'metric'", "mse"}, [] {
    sensitivity_from_json(
        parse_json(R"({"metric":"mse","layers":[]})", "s"), "s");
  });
}

} // namespace
} // namespace optiq::artifacts
