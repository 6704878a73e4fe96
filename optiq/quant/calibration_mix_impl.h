#pragma once

#include <string_view>

namespace optiq::quant {

/** The bytes of data/calibration/mix.jsonl. */
std::string_view calibration_mix();

} // namespace optiq::quant
