#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "optiq/artifacts/module_id.h"
#include "optiq/report/log_axis_impl.h"
#include "optiq/report/sections_impl.h"

/** An adapter: how its training went, and the rank of each of its modules. */
namespace optiq::report {
namespace {

using artifacts::AdapterRank;
using artifacts::TrainingStep;

constexpr double kWidth = 640;
constexpr double kHeight = 230;
constexpr double kLeft = 46;
constexpr double kRight = 626;
constexpr double kTop = 10;
constexpr double kBottom = 196;
constexpr int kTicks = 5;
// Single steps jump: their mean over this share of the training is drawn above
// them.
constexpr std::size_t kShare = 40;

struct Point {
  int step = 0;
  double loss = 0;
};

std::string px(double value) {
  return fmt::format("{:.1f}", value);
}

std::vector<Point> losses_of(const std::vector<TrainingStep>& log) {
  std::vector<Point> points;
  points.reserve(log.size());
  for (const TrainingStep& step : log) {
    points.push_back({step.step, step.loss});
  }
  return points;
}

std::vector<Point> validations_of(const std::vector<TrainingStep>& log) {
  std::vector<Point> points;
  for (const TrainingStep& step : log) {
    if (step.valid_loss) {
      points.push_back({step.step, *step.valid_loss});
    }
  }
  return points;
}

/** Each step's loss with those before it. */
std::vector<Point> smoothed(const std::vector<Point>& points) {
  const std::size_t window = std::max<std::size_t>(1, points.size() / kShare);
  std::vector<Point> means;
  double sum = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    sum += points[i].loss;
    if (i >= window) {
      sum -= points[i - window].loss;
    }
    const auto n = static_cast<double>(std::min(i + 1, window));
    means.push_back({points[i].step, std::max(0.0, sum / n)});
  }
  return means;
}

class Curves {
 public:
  Curves(Markup& page, const std::vector<TrainingStep>& log)
      : page_(page), log_(log), last_(log.back().step) {
    std::vector<double> values;
    for (const auto& points : {losses_of(log), validations_of(log)}) {
      for (const Point& point : points) {
        values.push_back(point.loss);
      }
    }
    axis_ = log_axis(values, kTop, kBottom);
  }

  void write() const {
    page_.open("ul", {{"class", "legend"}});
    write_legend_item(page_, "k0", "loss of the steps, and its moving mean");
    const std::vector<Point> validations = validations_of(log_);
    if (!validations.empty()) {
      write_legend_item(page_, "k1", "validation");
    }
    page_.close();
    page_.open(
        "svg",
        {{"viewBox", fmt::format("0 0 {} {}", kWidth, kHeight)},
         {"class", "curves"},
         {"role", "img"},
         {"aria-label", "Loss by step"}});
    write_grid(page_, axis_, kLeft, kRight);
    write_ticks();
    const std::vector<Point> losses = losses_of(log_);
    write_curve(losses, "curve faint line-k0");
    write_curve(smoothed(losses), "curve line-k0");
    write_curve(validations, "curve line-k1");
    for (const Point& point : validations) {
      write_mark(point);
    }
    page_.close();
  }

 private:
  double x_of(int step) const {
    return last_ <= 1 ? kLeft
                      : kLeft + (kRight - kLeft) * (step - 1) / (last_ - 1);
  }

  void write_ticks() const {
    int before = 0;
    for (int i = 0; i <= kTicks; ++i) {
      const int step = 1 + (last_ - 1) * i / kTicks;
      if (step == before) {
        continue;
      }
      before = step;
      page_.element(
          "text",
          {{"x", px(x_of(step))},
           {"y", px(kBottom + 18)},
           {"text-anchor", i == kTicks ? "end" : "middle"}},
          std::to_string(step));
    }
  }

  void write_curve(const std::vector<Point>& points, const char* style) const {
    std::string path;
    for (const Point& point : points) {
      path += fmt::format(
          "{}{} {}",
          path.empty() ? "M" : " L",
          px(x_of(point.step)),
          px(axis_.y(point.loss)));
    }
    if (!path.empty()) {
      page_.leaf("path", {{"d", path}, {"class", style}});
    }
  }

  void write_mark(const Point& point) const {
    const TrainingStep* best = artifacts::best_step(log_);
    const bool is_best = best != nullptr && best->step == point.step;
    page_.open("g")
        .element(
            "title",
            {},
            fmt::format(
                "step {}: {:.4g}{}",
                point.step,
                point.loss,
                is_best ? ", kept" : ""))
        .leaf(
            "circle",
            {{"cx", px(x_of(point.step))},
             {"cy", px(axis_.y(point.loss))},
             {"r", "3.4"},
             {"class",
              std::string("dot line-k1 ") + (is_best ? "fill-k1" : "open")}})
        .close();
  }

  Markup& page_;
  const std::vector<TrainingStep>& log_;
  int last_;
  LogAxis axis_;
};

/** Layers down, parts across; a cell's shade is its rank, which it also says.
 */
void write_rank_map(Markup& page, const std::vector<AdapterRank>& ranks) {
  std::vector<std::string> names;
  int most = 1;
  for (const AdapterRank& rank : ranks) {
    names.push_back(rank.module);
    most = std::max(most, rank.rank);
  }
  const artifacts::ModuleGrid grid = artifacts::grid_of(names);
  page.open("div", {{"class", "scroll"}})
      .open("table", {{"class", "heat ranks"}})
      .open("tr")
      .element("th", {}, "layer");
  for (const std::string& part : grid.parts) {
    page.element("th", {}, artifacts::short_leaf(part));
  }
  page.close();
  for (std::size_t row = 0; row < grid.layers.size(); ++row) {
    page.open("tr").element("th", {}, std::to_string(grid.layers[row]));
    for (const int index : grid.cells[row]) {
      if (index < 0) {
        page.element("td", {{"style", "--heat: 0%"}}, "");
        continue;
      }
      const AdapterRank& rank = ranks[index];
      page.element(
          "td",
          {{"style", fmt::format("--heat: {}%", 80 * rank.rank / most)},
           {"title", fmt::format("{}: scale {:.4g}", rank.module, rank.scale)}},
          std::to_string(rank.rank));
    }
    page.close();
  }
  page.close().close();
  for (const int index : grid.outside) {
    page.element(
        "p", {}, fmt::format("{}: {}", ranks[index].module, ranks[index].rank));
  }
}

std::string describe(const TrainedAdapter& adapter) {
  std::uint64_t parameters = 0;
  for (const AdapterRank& rank : adapter.ranks) {
    parameters += rank.parameters;
  }
  std::string text = fmt::format(
      "{}: {} parameters in {} modules.",
      adapter.name,
      parameters,
      adapter.ranks.size());
  if (!adapter.log.empty()) {
    text += fmt::format(" {} steps of training.", adapter.log.size());
  }
  if (const TrainingStep* best = artifacts::best_step(adapter.log)) {
    text += fmt::format(
        " What was kept is step {}, with a validation loss of {:.4g} nats per "
        "learned token.",
        best->step,
        *best->valid_loss);
  }
  return text;
}

} // namespace

void write_adapter(Markup& page, const ReportInput& input) {
  if (!input.adapter) {
    return;
  }
  const TrainedAdapter& adapter = *input.adapter;
  page.open("section", {{"id", "adapter"}}).element("h2", {}, "Adapter");
  page.element("p", {{"class", "note"}}, describe(adapter));
  if (!adapter.log.empty()) {
    page.element("h3", {}, "Loss by step, nats per learned token");
    Curves(page, adapter.log).write();
  }
  page.element("h3", {}, "Rank of each update");
  write_rank_map(page, adapter.ranks);
  page.close();
}

} // namespace optiq::report
