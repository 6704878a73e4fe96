#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "optiq/artifacts/module_id.h"
#include "optiq/report/log_axis_impl.h"
#include "optiq/report/sections_impl.h"

/**
 * KL of each module alone at each candidate width: one small plot a module
 * type, layers from left to right, one logarithmic scale for all of them.
 */
namespace optiq::report {
namespace {

using artifacts::LayerSensitivity;

constexpr double kWidth = 250;
constexpr double kHeight = 150;
constexpr double kLeft = 42;
constexpr double kRight = 240;
constexpr double kTop = 8;
constexpr double kBottom = 126;
constexpr std::size_t kTableRows = 10;

/** The axis that all plots share. */
LogAxis axis_of(const std::vector<LayerSensitivity>& layers) {
  std::vector<double> values;
  for (const LayerSensitivity& layer : layers) {
    for (const auto& [bits, kl] : layer.kl) {
      values.push_back(kl);
    }
  }
  return log_axis(values, kTop, kBottom);
}

struct Point {
  double x = 0;
  const LayerSensitivity* layer = nullptr;
  int chosen_bits = 0; // 0: unknown
};

struct Panel {
  std::string title;
  std::vector<Point> points;
  std::vector<std::pair<double, std::string>> ticks;
};

std::string px(double value) {
  return fmt::format("{:.1f}", value);
}

std::optional<double> stderr_of(const LayerSensitivity& layer, int bits) {
  const auto found = layer.kl_stderr.find(bits);
  return found == layer.kl_stderr.end() ? std::nullopt
                                        : std::optional(found->second);
}

std::string value_of(const LayerSensitivity& layer, int bits) {
  const auto found = layer.kl.find(bits);
  if (found == layer.kl.end()) {
    return "";
  }
  const auto error = stderr_of(layer, bits);
  return error ? fmt::format("{:.3g} ± {:.2g}", found->second, *error)
               : fmt::format("{:.3g}", found->second);
}

/** The measured modules as the bit map has them; unknown ones at the end. */
std::vector<LayerSensitivity> in_map_order(
    const artifacts::Sensitivity& sensitivity,
    const artifacts::ModelMap& map) {
  std::map<std::string, std::size_t> places;
  std::vector<std::string> names;
  for (const artifacts::MappedModule& module : map.modules) {
    names.push_back(module.name);
  }
  const artifacts::ModuleGrid grid = artifacts::grid_of(names);
  for (std::size_t column = 0; column < grid.parts.size(); ++column) {
    for (std::size_t row = 0; row < grid.layers.size(); ++row) {
      if (const int i = grid.cells[row][column]; i >= 0) {
        places.emplace(names[i], places.size());
      }
    }
  }
  const auto place = [&](const LayerSensitivity& layer) {
    const auto found = places.find(layer.name);
    return found == places.end() ? places.size() : found->second;
  };
  std::vector<LayerSensitivity> layers = sensitivity.layers;
  std::stable_sort(
      layers.begin(), layers.end(), [&](const auto& a, const auto& b) {
        return place(a) < place(b);
      });
  return layers;
}

class Plots {
 public:
  Plots(Markup& page, const ReportInput& input)
      : page_(page),
        layers_(in_map_order(*input.sensitivity, input.map)),
        axis_(axis_of(layers_)) {
    for (const artifacts::MappedModule& module : input.map.modules) {
      chosen_[module.name] = module.group_size == 0 ? 0 : module.bits;
    }
    for (const LayerSensitivity& layer : layers_) {
      for (const auto& [bits, kl] : layer.kl) {
        widths_.insert(bits);
      }
    }
  }

  void write_legend() const {
    page_.open("ul", {{"class", "legend"}});
    for (const int bits : widths_) {
      write_legend_item(page_, width_class(bits), width_label(bits));
    }
    page_.element("li", {}, "filled: the width in this file");
    page_.element("li", {}, "bars: ± one standard error over chunks");
    page_.close();
  }

  void write_panels() const {
    page_.open("div", {{"class", "panels"}});
    for (const Panel& panel : panels()) {
      write_panel(panel);
    }
    page_.close();
  }

  void write_table() const {
    std::vector<const LayerSensitivity*> order;
    for (const LayerSensitivity& layer : layers_) {
      order.push_back(&layer);
    }
    std::stable_sort(
        order.begin(), order.end(), [](const auto* a, const auto* b) {
          return narrowest(*a) > narrowest(*b);
        });
    order.resize(std::min(order.size(), kTableRows));
    page_.element("h2", {}, "Most sensitive modules");
    page_.open("div", {{"class", "scroll"}}).open("table").open("tr");
    page_.element("th", {}, "module").element("th", {}, "bits here");
    for (const int bits : widths_) {
      page_.element("th", {}, "KL at " + width_label(bits));
    }
    page_.close();
    for (const LayerSensitivity* layer : order) {
      page_.open("tr").element("td", {}, layer->name);
      const int bits = chosen_bits(layer->name);
      page_.element("td", {}, bits == 0 ? "–" : std::to_string(bits));
      for (const int width : widths_) {
        page_.element("td", {}, value_of(*layer, width));
      }
      page_.close();
    }
    page_.close().close();
  }

 private:
  static double narrowest(const LayerSensitivity& layer) {
    return layer.kl.empty() ? 0 : layer.kl.begin()->second;
  }

  int chosen_bits(const std::string& name) const {
    const auto found = chosen_.find(name);
    return found == chosen_.end() ? 0 : found->second;
  }

  /** Evenly from left to right, with half a step of margin. */
  static double x_of(std::size_t index, std::size_t count) {
    const double at =
        (static_cast<double>(index) + 0.5) / static_cast<double>(count);
    return kLeft + at * (kRight - kLeft);
  }

  std::vector<Panel> panels() const {
    std::vector<std::string> names;
    for (const LayerSensitivity& layer : layers_) {
      names.push_back(layer.name);
    }
    const artifacts::ModuleGrid grid = artifacts::grid_of(names);
    std::vector<Panel> panels;
    const std::size_t n_layers = grid.layers.size();
    for (std::size_t column = 0; column < grid.parts.size(); ++column) {
      Panel panel{grid.parts[column], {}, {}};
      for (std::size_t row = 0; row < n_layers; ++row) {
        if (const int i = grid.cells[row][column]; i >= 0) {
          panel.points.push_back(
              {x_of(row, n_layers), &layers_[i], chosen_bits(names[i])});
        }
      }
      std::set<std::size_t> labelled{0, n_layers / 2, n_layers - 1};
      for (const std::size_t row : labelled) {
        panel.ticks.emplace_back(
            x_of(row, n_layers), std::to_string(grid.layers[row]));
      }
      panels.push_back(std::move(panel));
    }
    for (const int i : grid.outside) {
      panels.push_back(
          {artifacts::module_id(names[i]).part,
           {{x_of(0, 1), &layers_[i], chosen_bits(names[i])}},
           {}});
    }
    return panels;
  }

  void write_panel(const Panel& panel) const {
    page_.open("div").element("h3", {}, panel.title);
    page_.open(
        "svg",
        {{"viewBox", fmt::format("0 0 {} {}", kWidth, kHeight)},
         {"role", "img"},
         {"aria-label", "KL by layer of " + panel.title}});
    write_axes(panel);
    for (const int bits : widths_) {
      write_trend(panel, bits);
    }
    for (const int bits : widths_) {
      for (const Point& point : panel.points) {
        write_point(point, bits);
      }
    }
    page_.close().close();
  }

  void write_axes(const Panel& panel) const {
    write_grid(page_, axis_, kLeft, kRight);
    for (const auto& [x, label] : panel.ticks) {
      page_.element(
          "text",
          {{"x", px(x)}, {"y", px(kBottom + 16)}, {"text-anchor", "middle"}},
          label);
    }
  }

  void write_trend(const Panel& panel, int bits) const {
    std::string path;
    for (const Point& point : panel.points) {
      if (const auto kl = point.layer->kl.find(bits);
          kl != point.layer->kl.end()) {
        path += fmt::format(
            "{}{} {}",
            path.empty() ? "M" : " L",
            px(point.x),
            px(axis_.y(kl->second)));
      }
    }
    if (!path.empty()) {
      page_.leaf(
          "path", {{"d", path}, {"class", "trend line-" + width_class(bits)}});
    }
  }

  void write_point(const Point& point, int bits) const {
    const auto found = point.layer->kl.find(bits);
    if (found == point.layer->kl.end()) {
      return;
    }
    const double kl = found->second;
    const std::string color = width_class(bits);
    page_.open("g").element(
        "title",
        {},
        fmt::format(
            "{}, {}: KL {} nats per token{}",
            point.layer->name,
            width_label(bits),
            value_of(*point.layer, bits),
            axis_.on_floor(kl) ? " (below the scale)" : ""));
    if (const auto error = stderr_of(*point.layer, bits)) {
      page_.leaf(
          "line",
          {{"x1", px(point.x)},
           {"x2", px(point.x)},
           {"y1", px(axis_.y(kl - *error))},
           {"y2", px(axis_.y(kl + *error))},
           {"class", "error line-" + color}});
    }
    const bool here = point.chosen_bits == bits;
    page_
        .leaf(
            "circle",
            {{"cx", px(point.x)},
             {"cy", px(axis_.y(kl))},
             {"r", "3.4"},
             {"class",
              fmt::format(
                  "dot line-{} {}", color, here ? "fill-" + color : "open")}})
        .close();
  }

  Markup& page_;
  std::vector<LayerSensitivity> layers_;
  LogAxis axis_;
  std::map<std::string, int> chosen_;
  std::set<int> widths_;
};

} // namespace

void write_sensitivity(Markup& page, const ReportInput& input) {
  page.open("section", {{"id", "sensitivity"}});
  page.element("h2", {}, "Sensitivity");
  if (!input.sensitivity || input.sensitivity->layers.empty()) {
    page.element(
        "p",
        {{"class", "note"}},
        "This model carries no measured sensitivity (optiq/sensitivity.json).");
    page.close();
    return;
  }
  page.element(
      "p",
      {{"class", "note"}},
      "KL(reference || model) in nats per token when one matrix alone is "
      "quantized, by decoder layer. Lower is better; the scale is "
      "logarithmic and the same in every plot.");
  const Plots plots(page, input);
  plots.write_legend();
  plots.write_panels();
  plots.write_table();
  page.close();
}

} // namespace optiq::report
