#include "optiq/quant/model_card.h"

#include <map>

#include <fmt/format.h>

#include "optiq/artifacts/size.h"

namespace optiq::quant {

namespace {

constexpr const char* kHeading = "## Quantization (OptIQ)";

const char* sentence_about(artifacts::PlanMethod method) {
  switch (method) {
    case artifacts::PlanMethod::Optiq:
      return "The width of each matrix was chosen by the measured KL "
             "divergence that fewer bits cause.";
    case artifacts::PlanMethod::Static:
      return "The width of each matrix follows from its place in the network.";
    case artifacts::PlanMethod::Uniform:
      break;
  }
  return "All matrices have the same width.";
}

std::string make_section(const artifacts::Metadata& metadata) {
  const artifacts::Plan& plan = metadata.plan;
  struct Row {
    int modules = 0;
    std::uint64_t parameters = 0;
  };
  std::map<int, Row> rows;
  for (const artifacts::LayerBits& layer : plan.layers) {
    ++rows[layer.bits].modules;
    rows[layer.bits].parameters += layer.parameters;
  }
  std::string text = fmt::format(
      "{}\n\nQuantized from {} with optiq {}. {}\n\n"
      "| bits | matrices | parameters |\n|---|---|---|\n",
      kHeading,
      metadata.base_model,
      metadata.tool_version,
      sentence_about(plan.method));
  for (const auto& [bits, row] : rows) {
    text +=
        fmt::format("| {} | {} | {} |\n", bits, row.modules, row.parameters);
  }
  text += fmt::format(
      "\nGroups of {} weights, affine. Weights on disk: {} ({:.3f} bits per "
      "parameter, everything counted); mean code width outside the protected "
      "matrices: {:.3f}.\n",
      plan.group_size,
      artifacts::format_size(plan.file_bytes),
      plan.file_bpw,
      plan.achieved_bpw);
  if (!metadata.calibration.empty()) {
    text += fmt::format("Calibration: {}.\n", metadata.calibration);
  }
  text +=
      "\nLoads with MLX LM (`mlx_lm.generate --model DIR`) and with OptIQ "
      "(`optiq generate DIR -p \"...\"`). Widths and measurements: "
      "`optiq/metadata.json`, `optiq/sensitivity.json`.\n";
  return text;
}

} // namespace

std::string make_model_card(
    const std::string& source_card,
    const artifacts::Metadata& metadata) {
  std::string card = source_card.substr(0, source_card.find(kHeading));
  if (card.empty()) {
    card = fmt::format(
        "---\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n"
        "- optiq\n---\n\n# {}, quantized\n\n",
        metadata.base_model);
  } else if (!card.ends_with("\n\n")) {
    card += card.ends_with('\n') ? "\n" : "\n\n";
  }
  return card + make_section(metadata);
}

} // namespace optiq::quant
