#include "optiq/report/report.h"

#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace optiq::report {
namespace {

artifacts::MappedModule module_of(const std::string& name, int bits) {
  const std::uint64_t n = 64 * 64;
  return {name, bits, 64, n, n * bits / 8, n / 64 * 4};
}

/** Two layers, one protected module, one embedding. */
ReportInput small_input() {
  ReportInput input;
  input.map.name = "tiny <&\"> model";
  input.map.model_type = "qwen3_5";
  input.map.modules = {
      module_of("model.embed_tokens", 8),
      module_of("model.layers.0.self_attn.q_proj", 8),
      module_of("model.layers.0.mlp.up_proj", 4),
      module_of("model.layers.1.self_attn.q_proj", 3),
      module_of("model.layers.1.mlp.up_proj", 4)};
  input.map.other_bytes = 512;
  input.map.other_parameters = 256;
  input.map.header_bytes = 100;
  return input;
}

artifacts::Sensitivity small_sensitivity() {
  artifacts::Sensitivity sensitivity;
  sensitivity.candidate_bits = {4, 8};
  for (const char* name :
       {"model.layers.0.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj"}) {
    const double kl = 1e-3 * (1.0 + sensitivity.layers.size());
    sensitivity.layers.push_back(
        {.name = name,
         .parameters = 4096,
         .kl = {{4, kl}, {8, kl / 256}},
         .kl_stderr = {{4, kl / 10}, {8, 0.0}}});
  }
  return sensitivity;
}

std::size_t count_of(const std::string& text, const std::string& what) {
  std::size_t count = 0;
  for (auto at = text.find(what); at != std::string::npos;
       at = text.find(what, at + what.size())) {
    ++count;
  }
  return count;
}

bool contains(const std::string& text, const std::string& what) {
  return count_of(text, what) > 0;
}

TEST(Report, MapAloneGivesAPageThatSaysWhatIsMissing) {
  const std::string page = render_report(small_input());
  EXPECT_TRUE(contains(page, "no measured sensitivity"));
  EXPECT_TRUE(contains(page, "no record of a conversion"));
  EXPECT_FALSE(contains(page, "Most sensitive modules"));
  EXPECT_FALSE(contains(page, "<section id=\"results\">"));
  EXPECT_TRUE(contains(page, "model.layers.1.self_attn.q_proj: 3 bits"));
}

TEST(Report, NameIsEscapedEverywhere) {
  const std::string page = render_report(small_input());
  EXPECT_TRUE(contains(page, "tiny &lt;&amp;&quot;&gt; model"));
  EXPECT_FALSE(contains(page, "tiny <&"));
}

TEST(Report, NeedsNothingFromElsewhere) {
  ReportInput input = small_input();
  input.sensitivity = small_sensitivity();
  const std::string page = render_report(input);
  for (const char* what : {"<script", "src=", "href=", "url(", "@import"}) {
    EXPECT_FALSE(contains(page, what)) << what;
  }
}

TEST(Report, EachMatrixHasOneCell) {
  const std::string page = render_report(small_input());
  // Four cells in the grid and the embedding's chip.
  EXPECT_EQ(count_of(page, "class=\"on on-b"), 4u);
  EXPECT_EQ(count_of(page, "<li class=\"chip-b8\""), 1u);
}

TEST(Report, ProtectedModulesAreFramed) {
  ReportInput input = small_input();
  EXPECT_EQ(count_of(render_report(input), "class=\"guard"), 0u);
  input.metadata.emplace();
  artifacts::LayerBits layer;
  layer.name = "model.layers.0.self_attn.q_proj";
  layer.is_protected = true;
  input.metadata->plan.layers = {layer};
  // The cell's and the legend's.
  EXPECT_EQ(count_of(render_report(input), "class=\"guard"), 2u);
}

TEST(Report, BothBitsPerWeightAndTheOriginAreThere) {
  ReportInput input = small_input();
  input.metadata.emplace();
  artifacts::Metadata& metadata = *input.metadata;
  metadata.base_model = "some/model";
  metadata.calibration = "mix";
  metadata.plan.method = artifacts::PlanMethod::Optiq;
  metadata.plan.target_bpw = 4.5;
  metadata.plan.achieved_bpw = 4.4375;
  metadata.plan.candidate_bits = {4, 8};
  const std::string page = render_report(input);
  EXPECT_TRUE(contains(page, "<b>4.438</b>"));
  // 5 matrices: codes of 8 + 8 + 4 + 3 + 4 = 27 bits, 64 scales of 4 bytes
  // each, 612 bytes besides; 5 * 4096 + 256 parameters.
  const double bpw =
      8.0 * (27 * 4096 / 8 + 5 * 64 * 4 + 612) / (5 * 4096 + 256);
  EXPECT_TRUE(contains(page, fmt::format("<b>{:.3f}</b>", bpw))) << bpw;
  EXPECT_TRUE(contains(
      page,
      "optiq convert some/model --method optiq --target-bpw 4.5 "
      "--candidate-bits 4,8 --group-size 64 --calibration mix"));
}

TEST(Report, EachMeasurementIsAPointWithItsValue) {
  ReportInput input = small_input();
  input.sensitivity = small_sensitivity();
  const std::string page = render_report(input);
  EXPECT_EQ(count_of(page, "<circle"), 6u);
  // Up projections are stored in 4 bits, which is one of the measured widths.
  EXPECT_EQ(count_of(page, "class=\"dot line-b4 fill-b4\""), 2u);
  EXPECT_TRUE(contains(
      page,
      "model.layers.1.self_attn.q_proj, 4 bits: KL 0.002 ± 0.0002 nats per "
      "token"));
}

TEST(Report, ZeroNegativeAndTinyValuesStayInThePlot) {
  ReportInput input = small_input();
  input.sensitivity = small_sensitivity();
  input.sensitivity->layers[0].kl = {{4, -1e-9}, {8, 0.0}};
  input.sensitivity->layers[1].kl = {{4, 1.0}, {8, 1e-30}};
  const std::string page = render_report(input);
  EXPECT_FALSE(contains(page, "nan"));
  EXPECT_FALSE(contains(page, "inf"));
  EXPECT_EQ(count_of(page, "(below the scale)"), 3u);
  // 1 is the top of the scale, and the top is 8 px from the edge.
  EXPECT_TRUE(contains(page, "cy=\"8.0\""));
}

TEST(Report, AllZeroSensitivityStillGivesAPage) {
  ReportInput input = small_input();
  input.sensitivity = small_sensitivity();
  for (auto& layer : input.sensitivity->layers) {
    layer.kl = {{4, 0.0}, {8, 0.0}};
  }
  const std::string page = render_report(input);
  EXPECT_EQ(count_of(page, "(below the scale)"), 6u);
}

TEST(Report, EmptyModelStillGivesAPage) {
  ReportInput input;
  input.map.name = "empty";
  const std::string page = render_report(input);
  EXPECT_TRUE(contains(page, "</html>"));
  EXPECT_FALSE(contains(page, "nan"));
}

TEST(Report, ResultsShowValueErrorAndConditions) {
  ReportInput input = small_input();
  artifacts::EvalResult result;
  result.data = "questions.jsonl";
  result.compute = "fast";
  result.scores = artifacts::ExactMatchScores{0.976, 0.007, 500, 2};
  input.evals = {result};
  const std::string page = render_report(input);
  EXPECT_TRUE(contains(
      page,
      "exact-match on questions.jsonl, fast arithmetic, dense K/V cache, "
      "device cpu"));
  EXPECT_TRUE(contains(page, "0.976 ± 0.007"));
}

TEST(Report, NeedlesBecomeAHeatMap) {
  ReportInput input = small_input();
  artifacts::EvalResult result;
  result.compute = "fast";
  result.scores = artifacts::NeedleScores{
      0.5, 0.1, {256, 512}, {0, 1}, 4, 8, {{4, 3}, {1, 0}}};
  input.evals = {result};
  const std::string page = render_report(input);
  EXPECT_TRUE(contains(page, "needle, fast arithmetic, dense K/V cache"));
  EXPECT_TRUE(contains(page, "--heat: 75%\">0.75</td>"));
}

artifacts::KvLayerSensitivity kv_sensitivity(
    int layer,
    std::vector<artifacts::KvCandidate> candidates) {
  return {
      layer,
      "model.layers." + std::to_string(layer),
      2,
      64,
      std::move(candidates)};
}

std::string without_newlines(std::string text) {
  std::erase(text, '\n');
  return text;
}

TEST(Report, TheCacheIsListedByLayerWithItsBytes) {
  using artifacts::KvMethod;
  ReportInput input = small_input();
  EXPECT_FALSE(contains(render_report(input), "<section id=\"kv\">"));
  input.kv.emplace();
  input.kv->config.layers = {
      {.layer_idx = 3,
       .codec = {.method = KvMethod::Affine, .key_bits = 4, .value_bits = 4}},
      {.layer_idx = 7,
       .codec = {.method = KvMethod::Turbo, .key_bits = 2.5, .value_bits = 2}}};
  const std::string bare = without_newlines(render_report(input));
  EXPECT_TRUE(contains(bare, "<td>turbo</td><td>2.5</td><td>2</td>"));
  EXPECT_FALSE(contains(bare, "bf16"));
  // Layer 3 as a whole; layer 7 by its sides: 41 + 36 bytes, 0.001 + 0.002.
  input.kv->sensitivity = {
      kv_sensitivity(3, {{{KvMethod::Affine, 4, 4}, 0.25, 144}}),
      kv_sensitivity(
          7,
          {{{KvMethod::Turbo, 2.5, 0}, 0.001, 41},
           {{KvMethod::Turbo, 0, 2}, 0.002, 36}})};
  const std::string page = without_newlines(render_report(input));
  EXPECT_TRUE(contains(
      page, "<td>4</td><td>4</td><td>144</td><td>512</td><td>0.25</td>"));
  EXPECT_TRUE(contains(
      page, "<td>2.5</td><td>2</td><td>77</td><td>512</td><td>0.003</td>"));
  EXPECT_TRUE(contains(page, "221 bytes per token, bf16 takes 1024"));
}

TrainedAdapter small_adapter() {
  TrainedAdapter adapter{
      .name = "trained <&",
      .ranks =
          {{"model.layers.0.self_attn.q_proj", 8, 2.0, 1024},
           {"model.layers.1.self_attn.q_proj", 16, 1.0, 2048},
           {"model.layers.1.mlp.up_proj", 4, 4.0, 512}},
      .log = {}};
  for (int step = 1; step <= 100; ++step) {
    adapter.log.push_back({.step = step, .loss = 2.0 / step});
  }
  adapter.log[49].valid_loss = 0.125;
  adapter.log[99].valid_loss = 0.25;
  return adapter;
}

TEST(Report, AnAdapterShowsItsCurvesAndItsRanks) {
  ReportInput input = small_input();
  EXPECT_FALSE(contains(render_report(input), "<section id=\"adapter\">"));
  input.adapter = small_adapter();
  const std::string page = render_report(input);
  EXPECT_TRUE(contains(
      page, "trained &lt;&amp;: 3584 parameters in 3 modules. 100 steps"));
  EXPECT_TRUE(contains(page, "step 50: 0.125, kept</title>"));
  EXPECT_TRUE(contains(page, "step 100: 0.25</title>"));
  EXPECT_EQ(count_of(page, "class=\"curve "), 3u);
  // A shade follows the rank; a layer without the module has an empty cell.
  EXPECT_TRUE(contains(page, "--heat: 80%\" title=\"model.layers.1.self_attn"));
  EXPECT_TRUE(contains(page, ": scale 2\">8</td>"));
  EXPECT_TRUE(contains(page, "<td style=\"--heat: 0%\"></td>"));
}

TEST(Report, AnAdapterWithoutALogHasRanksAlone) {
  ReportInput input = small_input();
  input.adapter = small_adapter();
  input.adapter->log.clear();
  EXPECT_FALSE(contains(render_report(input), "class=\"curve"));
  input.adapter->log = {{.step = 1, .loss = 0}}; // no decade, no distance
  const std::string page = render_report(input);
  EXPECT_TRUE(contains(page, "class=\"curve"));
  EXPECT_FALSE(contains(page, "nan"));
}

} // namespace
} // namespace optiq::report
