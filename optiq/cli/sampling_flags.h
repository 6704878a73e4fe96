#pragma once

#include <cstdint>
#include <optional>

#include <CLI/CLI.hpp>

#include "optiq/generate/sampling_choice.h"

namespace optiq::cli {

/** --temp, --top-p and the like. */
void add_sampling_options(CLI::App& command, generate::SamplingChoice& choice);

/** The seed that the user gave, else the time. */
std::uint64_t choose_seed(const std::optional<std::uint64_t>& seed);

} // namespace optiq::cli
