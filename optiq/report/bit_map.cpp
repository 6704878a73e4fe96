#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "optiq/artifacts/module_id.h"
#include "optiq/report/sections_impl.h"

/** Layers x modules, one cell a matrix, colored and labelled by its width. */
namespace optiq::report {
namespace {

constexpr int kRowHeight = 22;
constexpr int kLeft = 44; // room for the layer numbers
constexpr int kTop = 40; // room for two lines of column heads
constexpr double kCharWidth = 6.4; // of the 11 px labels, on the wide side

std::set<std::string> protected_names(const ReportInput& input) {
  std::set<std::string> names;
  if (input.metadata) {
    for (const artifacts::LayerBits& layer : input.metadata->plan.layers) {
      if (layer.is_protected) {
        names.insert(layer.name);
      }
    }
  }
  return names;
}

std::string describe(const artifacts::MappedModule& module, bool is_protected) {
  return fmt::format(
      "{}: {}{}{}",
      module.name,
      width_label(module.bits),
      module.group_size == 0 ? ", not quantized"
                             : fmt::format(", group {}", module.group_size),
      is_protected ? ", protected" : "");
}

/** Wide enough for the longest leaf, and for each block's own name. */
int column_width(const std::vector<std::string>& parts) {
  double width = 34;
  for (std::size_t i = 0; i < parts.size();) {
    const std::string block = artifacts::block_of(parts[i]);
    std::size_t end = i;
    for (; end < parts.size() && artifacts::block_of(parts[end]) == block;
         ++end) {
      const auto chars =
          static_cast<double>(artifacts::short_leaf(parts[end]).size());
      width = std::max(width, chars * kCharWidth + 8);
    }
    const auto columns = static_cast<double>(end - i);
    const auto chars = static_cast<double>(block.size());
    width = std::max(width, (chars * kCharWidth + 10) / columns);
    i = end;
  }
  return static_cast<int>(width + 1);
}

class BitMap {
 public:
  BitMap(Markup& page, const ReportInput& input)
      : page_(page),
        modules_(input.map.modules),
        protected_(protected_names(input)) {
    std::vector<std::string> names;
    for (const artifacts::MappedModule& module : modules_) {
      names.push_back(module.name);
    }
    grid_ = artifacts::grid_of(names);
    column_width_ = column_width(grid_.parts);
  }

  void write_legend() const {
    std::set<int> widths;
    for (const artifacts::MappedModule& module : modules_) {
      widths.insert(module.bits);
    }
    page_.open("ul", {{"class", "legend"}});
    for (const int bits : widths) {
      write_legend_item(page_, width_class(bits), width_label(bits));
    }
    if (!protected_.empty()) {
      page_.open("li")
          .open(
              "svg",
              {{"width", "14"}, {"height", "14"}, {"aria-hidden", "true"}})
          .leaf(
              "rect",
              {{"width", "14"},
               {"height", "14"},
               {"rx", "3"},
               {"class", "fill-b16"}})
          .leaf(
              "rect",
              {{"x", "3"},
               {"y", "3"},
               {"width", "8"},
               {"height", "8"},
               {"rx", "2"},
               {"class", "guard guard-b16"}})
          .close()
          .text("inner frame: protected by rule, not by measurement")
          .close();
    }
    page_.close();
  }

  void write_outside() const {
    if (grid_.outside.empty()) {
      return;
    }
    page_.open("ul", {{"class", "chips"}});
    for (const int index : grid_.outside) {
      const artifacts::MappedModule& module = modules_[index];
      page_.element(
          "li",
          {{"class", "chip-" + width_class(module.bits)},
           {"title", describe(module, protected_.contains(module.name))}},
          fmt::format(
              "{}: {}",
              artifacts::module_id(module.name).part,
              width_label(module.bits)));
    }
    page_.close();
  }

  void write_grid() const {
    if (grid_.layers.empty()) {
      return;
    }
    const auto width =
        kLeft + column_width_ * static_cast<int>(grid_.parts.size()) + 4;
    const auto height =
        kTop + kRowHeight * static_cast<int>(grid_.layers.size()) + 4;
    page_.open("div", {{"class", "scroll"}})
        .open(
            "svg",
            {{"class", "map"},
             {"width", std::to_string(width)},
             {"height", std::to_string(height)},
             {"role", "img"},
             {"aria-label", "Bits of each matrix, layers by modules"}});
    write_heads();
    for (std::size_t row = 0; row < grid_.layers.size(); ++row) {
      write_row(row);
    }
    page_.close().close();
  }

 private:
  int left_of(std::size_t column) const {
    return kLeft + column_width_ * static_cast<int>(column);
  }

  void write_heads() const {
    const std::vector<std::string>& parts = grid_.parts;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (i == 0 ||
          artifacts::block_of(parts[i]) != artifacts::block_of(parts[i - 1])) {
        page_.element(
            "text",
            {{"x", std::to_string(left_of(i) + 3)}, {"y", "13"}},
            artifacts::block_of(parts[i]));
      }
      page_.element(
          "text",
          {{"x", std::to_string(left_of(i) + column_width_ / 2)},
           {"y", "31"},
           {"text-anchor", "middle"}},
          artifacts::short_leaf(parts[i]));
    }
  }

  void write_row(std::size_t row) const {
    const int top = kTop + kRowHeight * static_cast<int>(row);
    page_.element(
        "text",
        {{"x", std::to_string(kLeft - 10)},
         {"y", std::to_string(top + 15)},
         {"text-anchor", "end"}},
        std::to_string(grid_.layers[row]));
    for (std::size_t column = 0; column < grid_.parts.size(); ++column) {
      write_cell(left_of(column), top, grid_.cells[row][column]);
    }
  }

  void write_cell(int left, int top, int index) const {
    Attributes box{
        {"x", std::to_string(left + 1)},
        {"y", std::to_string(top + 1)},
        {"width", std::to_string(column_width_ - 2)},
        {"height", std::to_string(kRowHeight - 2)},
        {"rx", "3"}};
    if (index < 0) {
      box.emplace_back("class", "empty");
      page_.leaf("rect", box);
      return;
    }
    const artifacts::MappedModule& module = modules_[index];
    const bool is_protected = protected_.contains(module.name);
    const std::string color = width_class(module.bits);
    page_.open("g").element("title", {}, describe(module, is_protected));
    box.emplace_back("class", "fill-" + color);
    page_.leaf("rect", box);
    if (is_protected) {
      page_.leaf(
          "rect",
          {{"x", std::to_string(left + 4)},
           {"y", std::to_string(top + 4)},
           {"width", std::to_string(column_width_ - 8)},
           {"height", std::to_string(kRowHeight - 8)},
           {"rx", "2"},
           {"class", "guard guard-" + color}});
    }
    page_
        .element(
            "text",
            {{"x", std::to_string(left + column_width_ / 2)},
             {"y", std::to_string(top + 15)},
             {"text-anchor", "middle"},
             {"class", "on on-" + color}},
            std::to_string(module.bits))
        .close();
  }

  Markup& page_;
  const std::vector<artifacts::MappedModule>& modules_;
  std::set<std::string> protected_;
  artifacts::ModuleGrid grid_;
  int column_width_ = 0;
};

} // namespace

void write_bit_map(Markup& page, const ReportInput& input) {
  page.open("section", {{"id", "bits"}});
  page.element("h2", {}, "Bits of each matrix");
  page.element(
      "p",
      {{"class", "note"}},
      "One row a decoder layer, one column a module; point at a cell for its "
      "full name.");
  const BitMap map(page, input);
  map.write_legend();
  map.write_outside();
  map.write_grid();
  page.close();
}

} // namespace optiq::report
