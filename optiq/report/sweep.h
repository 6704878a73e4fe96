#pragma once

#include <string>

#include "optiq/artifacts/sweep.h"

namespace optiq::report {

/** One HTML page, as render_report's: for every data set KL, perplexity and
 * accuracy against bytes, a curve a series, and all figures as a table. */
std::string render_sweep(const artifacts::Sweep& sweep);

} // namespace optiq::report
