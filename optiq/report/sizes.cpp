#include <algorithm>

#include <fmt/format.h>

#include "optiq/artifacts/size.h"
#include "optiq/report/sections_impl.h"

/** Where the bytes of the file go: stacked bars on one scale, and a table. */
namespace optiq::report {
namespace {

constexpr double kBarUnits = 10000; // width of a bar's coordinate system

struct Part {
  std::string label;
  std::string color_class;
  std::uint64_t bytes = 0;
};

// A kind keeps its color whatever else is there.
std::string kind_class(const std::string& kind) {
  constexpr std::string_view kKinds[] = {
      "codes",
      "scales and biases",
      "full-precision matrices",
      "embeddings and head",
      "norms and other",
      "not of the language model"};
  const auto at = std::find(std::begin(kKinds), std::end(kKinds), kind);
  return fmt::format("k{}", at - std::begin(kKinds));
}

std::vector<Part> parts_by_kind(const artifacts::ModelMap& map) {
  std::vector<Part> parts;
  for (const artifacts::SizeShare& share : artifacts::sizes_by_kind(map)) {
    parts.push_back({share.label, kind_class(share.label), share.bytes});
  }
  return parts;
}

std::vector<Part> parts_by_width(const artifacts::ModelMap& map) {
  std::vector<Part> parts;
  for (const artifacts::WidthShare& share : artifacts::sizes_by_width(map)) {
    parts.push_back(
        {share.bits == 0 ? width_label(0)
                         : width_label(share.bits) + ", scales included",
         share.bits == 0 ? "k4" : width_class(share.bits),
         share.bytes});
  }
  return parts;
}

double share_of(std::uint64_t bytes, std::uint64_t whole) {
  return static_cast<double>(bytes) / static_cast<double>(whole);
}

std::string percent(std::uint64_t bytes, std::uint64_t whole) {
  return whole == 0 ? "–"
                    : fmt::format("{:.1f} %", 100.0 * share_of(bytes, whole));
}

void write_bar(
    Markup& page,
    const std::string& title,
    const std::vector<Part>& parts,
    std::uint64_t full_width) {
  std::uint64_t sum = 0;
  for (const Part& part : parts) {
    sum += part.bytes;
  }
  page.element(
      "h3", {}, fmt::format("{}: {}", title, artifacts::format_size(sum)));
  page.open(
      "svg",
      {{"class", "bar"},
       {"viewBox", fmt::format("0 0 {} 30", kBarUnits)},
       {"preserveAspectRatio", "none"},
       {"role", "img"},
       {"aria-label", title}});
  double x = 0;
  for (const Part& part : parts) {
    const double width =
        full_width == 0 ? 0 : kBarUnits * share_of(part.bytes, full_width);
    page.open("g")
        .element(
            "title",
            {},
            fmt::format(
                "{}: {} ({})",
                part.label,
                artifacts::format_size(part.bytes),
                percent(part.bytes, sum)))
        .leaf(
            "rect",
            {{"x", fmt::format("{:.1f}", x)},
             {"y", "0"},
             {"width", fmt::format("{:.1f}", width)},
             {"height", "30"},
             {"class", "fill-" + part.color_class}})
        .close();
    x += width;
  }
  page.close();
}

void write_table(
    Markup& page,
    const std::string& head,
    const std::vector<Part>& parts,
    std::uint64_t whole) {
  page.open("div", {{"class", "scroll"}}).open("table").open("tr");
  page.element("th", {}, head)
      .element("th", {}, "size")
      .element("th", {}, "share")
      .close();
  for (const Part& part : parts) {
    page.open("tr").open("td");
    page.open(
            "svg", {{"width", "12"}, {"height", "12"}, {"aria-hidden", "true"}})
        .leaf(
            "rect",
            {{"width", "12"},
             {"height", "12"},
             {"rx", "2"},
             {"class", "fill-" + part.color_class}})
        .close();
    page.text(part.label).close();
    page.element("td", {}, artifacts::format_size(part.bytes))
        .element("td", {}, percent(part.bytes, whole))
        .close();
  }
  page.close().close();
}

} // namespace

void write_sizes(Markup& page, const ReportInput& input) {
  const std::uint64_t bytes = artifacts::file_bytes(input.map);
  const std::uint64_t at_16_bits = 2 * artifacts::parameters(input.map);
  const std::uint64_t full_width = std::max(bytes, at_16_bits);
  page.open("section", {{"id", "sizes"}});
  page.element("h2", {}, "Where the bytes go");
  page.element(
      "p",
      {{"class", "note"}},
      "Bytes of model*.safetensors; the bars share one scale.");
  const std::vector<Part> kinds = parts_by_kind(input.map);
  const std::vector<Part> widths = parts_by_width(input.map);
  write_bar(page, "This file by kind", kinds, full_width);
  write_bar(page, "This file by width", widths, full_width);
  if (bytes < at_16_bits) {
    write_bar(
        page,
        "The same parameters at 16 bits",
        {{"16 bits", "b16", at_16_bits}},
        full_width);
  }
  page.open("div", {{"class", "tables"}});
  write_table(page, "kind", kinds, bytes);
  write_table(page, "width", widths, bytes);
  page.close();
  if (input.map.sidecar_bytes != 0) {
    page.element(
        "p",
        {{"class", "note"}},
        fmt::format(
            "Beside it, counted in no figure above: {} in optiq/.",
            artifacts::format_size(input.map.sidecar_bytes)));
  }
  page.close();
}

} // namespace optiq::report
