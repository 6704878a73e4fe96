#pragma once

#include <string>

#include "optiq/artifacts/metadata.h"

namespace optiq::quant {

/**
 * README.md of a converted model: the source's card with a section about the
 * quantization at its end (an earlier section of ours is replaced), or a card
 * of its own when the source has none. No dates, no paths.
 */
std::string make_model_card(
    const std::string& source_card,
    const artifacts::Metadata& metadata);

} // namespace optiq::quant
