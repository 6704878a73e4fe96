#include <fmt/format.h>

#include "optiq/report/sections_impl.h"

/** The results of `optiq eval` kept in the model's optiq/ folder. */
namespace optiq::report {
namespace {

struct Figure {
  std::string name;
  std::string value;
};

std::string with_error(double value, double error) {
  return fmt::format("{:.4g} ± {:.2g}", value, error);
}

std::vector<Figure> figures(const artifacts::KlScores& s) {
  return {
      {"mean KL over rows", with_error(s.mean_row_kl, s.mean_row_kl_stderr)},
      {"mean KL over tokens", with_error(s.mean_kl, s.mean_kl_stderr)},
      {"median KL", fmt::format("{:.4g}", s.median_kl)},
      {"99th percentile of KL", fmt::format("{:.4g}", s.p99_kl)},
      {"top-1 agreement",
       with_error(s.top1_agreement, s.top1_agreement_stderr)},
      {"tokens", std::to_string(s.tokens)}};
}

std::vector<Figure> figures(const artifacts::PerplexityScores& s) {
  return {
      {"perplexity", with_error(s.ppl, s.ppl_stderr)},
      {"tokens", std::to_string(s.tokens)}};
}

std::vector<Figure> figures(const artifacts::ExactMatchScores& s) {
  return {
      {"accuracy", with_error(s.accuracy, s.accuracy_stderr)},
      {"questions", std::to_string(s.count)}};
}

std::vector<Figure> figures(const artifacts::NeedleScores& s) {
  return {
      {"accuracy", with_error(s.accuracy, s.accuracy_stderr)},
      {"prompts",
       std::to_string(s.trials * s.lengths.size() * s.depths.size())}};
}

/** Depths down, lengths across; a cell's shade is its accuracy, which it also
 * says. */
void write_heat_map(Markup& page, const artifacts::NeedleScores& s) {
  page.open("table", {{"class", "heat"}}).open("tr");
  page.element("th", {}, "depth \\ tokens");
  for (const int length : s.lengths) {
    page.element("th", {}, std::to_string(length));
  }
  page.close();
  for (std::size_t depth = 0; depth < s.depths.size(); ++depth) {
    page.open("tr").element("th", {}, fmt::format("{:.2f}", s.depths[depth]));
    for (std::size_t length = 0; length < s.lengths.size(); ++length) {
      const double accuracy =
          static_cast<double>(s.right[length][depth]) / s.trials;
      page.element(
          "td",
          {{"style", fmt::format("--heat: {:.0f}%", 100 * accuracy)}},
          fmt::format("{:.2f}", accuracy));
    }
    page.close();
  }
  page.close();
}

} // namespace

void write_evals(Markup& page, const ReportInput& input) {
  if (input.evals.empty()) {
    return;
  }
  page.open("section", {{"id", "results"}}).element("h2", {}, "Results");
  page.element("p", {{"class", "note"}}, "± is one standard error.");
  page.open("div", {{"class", "scroll"}}).open("table");
  for (const artifacts::EvalResult& result : input.evals) {
    page.open("tr", {{"class", "group"}})
        .element(
            "th",
            {{"colspan", "2"}},
            fmt::format(
                "{}{}, {} arithmetic, {} K/V cache, device {}",
                artifacts::task_of(result),
                result.data.empty() ? "" : " on " + result.data,
                result.compute,
                result.kv,
                result.device));
    page.close();
    const auto rows = std::visit(
        [](const auto& scores) { return figures(scores); }, result.scores);
    for (const Figure& figure : rows) {
      page.open("tr")
          .element("td", {}, figure.name)
          .element("td", {}, figure.value)
          .close();
    }
  }
  page.close().close();
  for (const artifacts::EvalResult& result : input.evals) {
    if (const auto* needle =
            std::get_if<artifacts::NeedleScores>(&result.scores)) {
      page.element(
          "h3",
          {},
          fmt::format(
              "Needles among {} facts, by length and depth", needle->facts));
      page.open("div", {{"class", "scroll"}});
      write_heat_map(page, *needle);
      page.close();
    }
  }
  page.close();
}

} // namespace optiq::report
