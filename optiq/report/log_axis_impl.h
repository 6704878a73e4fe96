#pragma once

#include <span>

#include "optiq/report/markup.h"

namespace optiq::report {

/** A vertical logarithmic axis between two heights of a plot. */
struct LogAxis {
  double top = 0; // pixels from above, of 10^high
  double bottom = 1; // of 10^low
  int low = 0; // powers of ten
  int high = 1;

  double y(double value) const;
  /** Whether a value is drawn on the floor, where it does not belong. */
  bool on_floor(double value) const;
};

/** An axis that has room for the values; what is 0 or lies too far below the
 * largest one is drawn on the floor. */
LogAxis log_axis(std::span<const double> values, double top, double bottom);

/** Lines at powers of ten from left to right, and their labels. */
void write_grid(Markup& page, const LogAxis& axis, double left, double right);

} // namespace optiq::report
