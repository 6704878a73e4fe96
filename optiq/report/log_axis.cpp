#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "optiq/report/log_axis_impl.h"

namespace optiq::report {
namespace {

// Values so small that they are rounding noise would squash the rest.
constexpr double kDecades = 8;
constexpr int kLines = 6; // at most

std::string px(double value) {
  return fmt::format("{:.1f}", value);
}

} // namespace

double LogAxis::y(double value) const {
  const double power = value > 0 ? std::log10(value) : low;
  const double at = std::clamp<double>(power, low, high);
  return bottom - (at - low) / (high - low) * (bottom - top);
}

bool LogAxis::on_floor(double value) const {
  return value <= std::pow(10.0, low);
}

LogAxis log_axis(std::span<const double> values, double top, double bottom) {
  LogAxis axis{.top = top, .bottom = bottom};
  double least = 0;
  double most = 0;
  for (const double value : values) {
    if (value > 0 && std::isfinite(value)) {
      least = least == 0 ? value : std::min(least, value);
      most = std::max(most, value);
    }
  }
  if (most > 0) {
    const double high = std::log10(most);
    axis.low = static_cast<int>(
        std::floor(std::max(std::log10(least), high - kDecades)));
    axis.high = std::max(axis.low + 1, static_cast<int>(std::ceil(high)));
  }
  return axis;
}

void write_grid(Markup& page, const LogAxis& axis, double left, double right) {
  const int step = axis.high - axis.low >= kLines ? 2 : 1;
  for (int power = axis.low; power <= axis.high; power += step) {
    const double height = axis.y(std::pow(10.0, power));
    page.leaf(
        "line",
        {{"x1", px(left)},
         {"x2", px(right)},
         {"y1", px(height)},
         {"y2", px(height)},
         {"class", power == axis.low ? "axis" : "grid"}});
    page.element(
        "text",
        {{"x", px(left - 6)}, {"y", px(height + 4)}, {"text-anchor", "end"}},
        fmt::format("1e{}", power));
  }
}

} // namespace optiq::report
