#include "optiq/report/sweep.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>

#include "optiq/artifacts/size.h"
#include "optiq/report/log_axis_impl.h"
#include "optiq/report/sections_impl.h"

namespace optiq::report {
namespace {

using artifacts::EvalResult;
using artifacts::Sweep;
using artifacts::SweepPoint;

constexpr double kWidth = 640;
constexpr double kHeight = 260;
constexpr double kLeft = 56;
constexpr double kRight = 626;
constexpr double kTop = 10;
constexpr double kBottom = 222;
constexpr int kTicks = 5;
constexpr std::size_t kColors = 6; // k0 to k5 of the style sheet

std::string px(double value) {
  return fmt::format("{:.1f}", value);
}

struct Figure {
  double value = 0;
  double standard_error = 0;
};

struct Task {
  const char* name;
  const char* title;
  bool is_logarithmic; // of what falls fourfold with every bit
};

constexpr std::array<Task, 3> kTasks{
    {{"kl", "KL to the source, nats per token", true},
     {"ppl", "Perplexity", false},
     {"exact-match", "Share of right answers", false}}};

std::optional<Figure>
figure_of(const SweepPoint& point, const std::string& data, const char* task) {
  for (const EvalResult& result : point.results) {
    if (result.data != data || artifacts::task_of(result) != task) {
      continue;
    }
    if (const auto* kl = std::get_if<artifacts::KlScores>(&result.scores)) {
      return Figure{kl->mean_kl, kl->mean_kl_stderr};
    }
    if (const auto* ppl =
            std::get_if<artifacts::PerplexityScores>(&result.scores)) {
      return Figure{ppl->ppl, ppl->ppl_stderr};
    }
    if (const auto* match =
            std::get_if<artifacts::ExactMatchScores>(&result.scores)) {
      return Figure{match->accuracy, match->accuracy_stderr};
    }
  }
  return std::nullopt;
}

std::vector<std::string> series_of(const Sweep& sweep) {
  std::vector<std::string> series;
  for (const SweepPoint& point : sweep.points) {
    if (std::find(series.begin(), series.end(), point.series) == series.end()) {
      series.push_back(point.series);
    }
  }
  return series;
}

std::string color_of(std::size_t series) {
  return "k" + std::to_string(series % kColors);
}

/** Heights of one task's values. */
class Heights {
 public:
  Heights(const std::vector<double>& values, bool is_logarithmic)
      : is_logarithmic_(is_logarithmic) {
    if (is_logarithmic) {
      axis_ = log_axis(values, kTop, kBottom);
      return;
    }
    const auto [least, most] =
        std::minmax_element(values.begin(), values.end());
    const double room = std::max((*most - *least) / 20, 1e-6);
    low_ = *least - room;
    high_ = *most + room;
  }

  double y(double value) const {
    return is_logarithmic_
        ? axis_.y(value)
        : kBottom - (value - low_) / (high_ - low_) * (kBottom - kTop);
  }

  void write(Markup& page) const {
    if (is_logarithmic_) {
      write_grid(page, axis_, kLeft, kRight);
      return;
    }
    for (int i = 0; i <= kTicks; ++i) {
      const double value = low_ + (high_ - low_) * i / kTicks;
      page.leaf(
          "line",
          {{"x1", px(kLeft)},
           {"x2", px(kRight)},
           {"y1", px(y(value))},
           {"y2", px(y(value))},
           {"class", i == 0 ? "axis" : "grid"}});
      page.element(
          "text",
          {{"x", px(kLeft - 6)},
           {"y", px(y(value) + 4)},
           {"text-anchor", "end"}},
          fmt::format("{:.4g}", value));
    }
  }

 private:
  bool is_logarithmic_;
  LogAxis axis_;
  double low_ = 0;
  double high_ = 1;
};

/** One task on one data set. */
class Plot {
 public:
  Plot(
      Markup& page,
      const Sweep& sweep,
      const std::string& data,
      const Task& task)
      : page_(page), sweep_(sweep), data_(data), task_(task) {
    for (const SweepPoint& point : sweep.points) {
      if (const auto figure = figure_of(point, data, task.name)) {
        values_.push_back(figure->value);
        least_ =
            values_.size() == 1 ? point.bytes : std::min(least_, point.bytes);
        most_ = std::max(most_, point.bytes);
      }
    }
  }

  bool is_empty() const {
    return values_.empty();
  }

  void write() const {
    const Heights heights(values_, task_.is_logarithmic);
    page_.element("h3", {}, task_.title);
    page_.open(
        "svg",
        {{"viewBox", fmt::format("0 0 {} {}", kWidth, kHeight)},
         {"class", "curves"},
         {"role", "img"},
         {"aria-label",
          fmt::format("{} by bytes, on {}", task_.title, data_)}});
    heights.write(page_);
    write_sizes();
    const std::vector<std::string> series = series_of(sweep_);
    for (std::size_t i = 0; i < series.size(); ++i) {
      write_series(series[i], color_of(i), heights);
    }
    page_.close();
  }

 private:
  double x_of(std::uint64_t bytes) const {
    return most_ == least_ ? kLeft
                           : kLeft +
            (kRight - kLeft) * static_cast<double>(bytes - least_) /
                static_cast<double>(most_ - least_);
  }

  void write_sizes() const {
    for (int i = 0; i <= kTicks; ++i) {
      const std::uint64_t bytes = least_ + (most_ - least_) * i / kTicks;
      page_.element(
          "text",
          {{"x", px(x_of(bytes))},
           {"y", px(kBottom + 18)},
           {"text-anchor", i == kTicks ? "end" : "middle"}},
          artifacts::format_size(bytes));
    }
  }

  void write_series(
      const std::string& series,
      const std::string& color,
      const Heights& heights) const {
    std::vector<const SweepPoint*> points;
    for (const SweepPoint& point : sweep_.points) {
      if (point.series == series && figure_of(point, data_, task_.name)) {
        points.push_back(&point);
      }
    }
    std::stable_sort(
        points.begin(), points.end(), [](const auto* a, const auto* b) {
          return a->bytes < b->bytes;
        });
    std::string path;
    for (const SweepPoint* point : points) {
      path += fmt::format(
          "{}{} {}",
          path.empty() ? "M" : " L",
          px(x_of(point->bytes)),
          px(heights.y(figure_of(*point, data_, task_.name)->value)));
    }
    if (points.size() > 1) {
      page_.leaf("path", {{"d", path}, {"class", "trend line-" + color}});
    }
    for (const SweepPoint* point : points) {
      write_mark(*point, color, heights);
    }
  }

  void write_mark(
      const SweepPoint& point,
      const std::string& color,
      const Heights& heights) const {
    const Figure figure = *figure_of(point, data_, task_.name);
    page_.open("g")
        .element(
            "title",
            {},
            fmt::format(
                "{} {}: {:.4g} ± {:.2g}, {} bytes",
                point.series,
                point.label,
                figure.value,
                figure.standard_error,
                point.bytes))
        .leaf(
            "circle",
            {{"cx", px(x_of(point.bytes))},
             {"cy", px(heights.y(figure.value))},
             {"r", "3.4"},
             {"class", fmt::format("dot line-{} fill-{}", color, color)}})
        .close();
  }

  Markup& page_;
  const Sweep& sweep_;
  const std::string& data_;
  const Task& task_;
  std::vector<double> values_;
  std::uint64_t least_ = 0;
  std::uint64_t most_ = 0;
};

void write_table(Markup& page, const Sweep& sweep, const std::string& data) {
  page.open("div", {{"class", "scroll"}}).open("table").open("tr");
  for (const char* head : {"series", "model", "bytes", "file bpw"}) {
    page.element("th", {}, head);
  }
  for (const Task& task : kTasks) {
    page.element("th", {}, task.name);
  }
  page.close();
  for (const SweepPoint& point : sweep.points) {
    page.open("tr")
        .element("td", {}, point.series)
        .element("td", {}, point.label)
        .element("td", {}, std::to_string(point.bytes))
        .element("td", {}, fmt::format("{:.3f}", point.file_bpw));
    for (const Task& task : kTasks) {
      const auto figure = figure_of(point, data, task.name);
      page.element(
          "td",
          {},
          figure ? fmt::format(
                       "{:.4g} ± {:.2g}", figure->value, figure->standard_error)
                 : "–");
    }
    page.close();
  }
  page.close().close();
}

void write_data(Markup& page, const Sweep& sweep, const std::string& data) {
  page.open("section").element("h2", {}, data);
  page.element(
      "p",
      {{"class", "note"}},
      "Against bytes of model*.safetensors. ± is one standard error.");
  page.open("ul", {{"class", "legend"}});
  const std::vector<std::string> series = series_of(sweep);
  for (std::size_t i = 0; i < series.size(); ++i) {
    write_legend_item(page, color_of(i), series[i]);
  }
  page.close();
  for (const Task& task : kTasks) {
    const Plot plot(page, sweep, data, task);
    if (!plot.is_empty()) {
      plot.write();
    }
  }
  write_table(page, sweep, data);
  page.close();
}

} // namespace

std::string render_sweep(const Sweep& sweep) {
  Markup page;
  open_page(page, sweep.base_model + " – OptIQ sweep");
  page.element("h1", {}, sweep.base_model);
  page.element(
      "p",
      {{"class", "soft"}},
      fmt::format(
          "OptIQ sweep · source {}", artifacts::format_size(sweep.base_bytes)));
  for (const std::string& data : sweep.data) {
    write_data(page, sweep, data);
  }
  if (!sweep.notices.empty()) {
    page.open("section").element("h2", {}, "Notes");
    for (const std::string& notice : sweep.notices) {
      page.element("p", {{"class", "note"}}, notice);
    }
    page.close();
  }
  return close_page(std::move(page));
}

} // namespace optiq::report
