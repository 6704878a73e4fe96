#include "optiq/report/report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "optiq/artifacts/size.h"
#include "optiq/report/markup.h"
#include "optiq/report/sections_impl.h"

namespace optiq::report {
namespace {

/** "8.3 M". */
std::string format_count(std::uint64_t count) {
  const auto n = static_cast<double>(count);
  if (n >= 1e9) {
    return fmt::format("{:.2f} B", n / 1e9);
  }
  return n >= 1e6 ? fmt::format("{:.1f} M", n / 1e6)
                  : fmt::format("{:.1f} k", n / 1e3);
}

void write_stat(
    Markup& page,
    const std::string& value,
    std::string_view label) {
  page.open("div", {{"class", "stat"}})
      .element("b", {}, value)
      .element("span", {}, label)
      .close();
}

void write_stats(Markup& page, const ReportInput& input) {
  const std::uint64_t bytes = artifacts::file_bytes(input.map);
  const std::uint64_t count = artifacts::parameters(input.map);
  page.open("div", {{"class", "stats"}});
  write_stat(page, artifacts::format_size(bytes), "model*.safetensors");
  write_stat(
      page,
      fmt::format("{:.3f}", artifacts::file_bpw(bytes, count)),
      "file bits per weight, everything counted");
  if (input.metadata) {
    write_stat(
        page,
        fmt::format("{:.3f}", input.metadata->plan.achieved_bpw),
        "nominal bits per weight, code widths outside the protected set");
  } else {
    write_stat(
        page,
        fmt::format("{:.3f}", artifacts::mean_code_bits(input.map)),
        "nominal bits per weight, mean code width");
  }
  write_stat(page, format_count(count), "parameters");
  if (input.metadata && input.metadata->plan.predicted_kl > 0) {
    write_stat(
        page,
        fmt::format("{:.3g}", input.metadata->plan.predicted_kl),
        "sum of the chosen widths' own KL, nats per token");
  }
  page.close();
}

/** The convert command with the settings that the metadata records. */
std::string command_of(const artifacts::Metadata& metadata) {
  const artifacts::Plan& plan = metadata.plan;
  std::string command = "optiq convert " + metadata.base_model;
  command += fmt::format(" --method {}", name_of(plan.method));
  if (plan.target_bytes) {
    command += fmt::format(" --target-size {}", *plan.target_bytes);
  } else if (plan.target_bpw) {
    command += fmt::format(" --target-bpw {}", *plan.target_bpw);
  }
  if (!plan.candidate_bits.empty()) {
    command += plan.method == artifacts::PlanMethod::Uniform
        ? fmt::format(" --bits {}", plan.candidate_bits.front())
        : fmt::format(
              " --candidate-bits {}", fmt::join(plan.candidate_bits, ","));
  }
  command += fmt::format(" --group-size {}", plan.group_size);
  if (!metadata.calibration.empty()) {
    command += " --calibration " + metadata.calibration;
  }
  return command;
}

void write_term(Markup& page, std::string_view term, const std::string& value) {
  if (!value.empty()) {
    page.element("dt", {}, term).element("dd", {}, value);
  }
}

void write_origin(Markup& page, const ReportInput& input) {
  page.open("section", {{"id", "origin"}}).element("h2", {}, "How it was made");
  if (!input.metadata) {
    page.element(
        "p",
        {{"class", "note"}},
        "This model carries no record of a conversion (optiq/metadata.json).");
    page.close();
    return;
  }
  const artifacts::Metadata& metadata = *input.metadata;
  page.open("dl");
  write_term(page, "Model", metadata.base_model);
  write_term(page, "Method", name_of(metadata.plan.method));
  write_term(page, "Reference", metadata.reference);
  write_term(page, "Calibration", metadata.calibration);
  write_term(page, "Calibration hash", metadata.calibration_hash.substr(0, 16));
  write_term(page, "Measured in", metadata.compute);
  write_term(page, "OptIQ", metadata.tool_version);
  page.element("dt", {}, "Settings")
      .open("dd")
      .element("code", {}, command_of(metadata))
      .close();
  page.close().close();
}

} // namespace

void open_page(Markup& page, const std::string& title) {
  page.open(
      "html", {{"lang", "en"}, {"xmlns", "http://www.w3.org/1999/xhtml"}});
  page.open("head")
      .leaf("meta", {{"charset", "utf-8"}})
      .leaf(
          "meta",
          {{"name", "viewport"},
           {"content", "width=device-width, initial-scale=1"}})
      .element("title", {}, title)
      .style(style_sheet())
      .close();
  page.open("body").open("main");
}

std::string close_page(Markup page) {
  page.close().close().close();
  return std::move(page).finish("<!DOCTYPE html>");
}

std::string render_report(const ReportInput& input) {
  Markup page;
  open_page(page, input.map.name + " – OptIQ report");
  page.element("h1", {}, input.map.name);
  page.element(
      "p",
      {{"class", "soft"}},
      fmt::format("OptIQ report · {}", input.map.model_type));
  write_stats(page, input);
  write_evals(page, input);
  write_bit_map(page, input);
  write_sensitivity(page, input);
  write_sizes(page, input);
  write_kv_cache(page, input);
  write_adapter(page, input);
  write_origin(page, input);
  return close_page(std::move(page));
}

} // namespace optiq::report
