#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "optiq/models/setup.h"

namespace optiq::cli {

/** --adapter DIR or NAME=DIR, repeatable. */
void add_adapter_option(CLI::App& command, std::vector<std::string>& adapters);

/** Throws Unsupported for a model directory that holds an adapter too: who
 * works on weights would leave it out, where Transformers applies it. */
void refuse_adapter_inside(
    const char* command,
    const std::filesystem::path& model);

/** The setup whose sequences run with what all of these add; as it is without
 * any. Throws what adapters::mount_adapter throws. */
models::Setup with_adapters(
    models::Setup setup,
    const std::vector<std::string>& adapters);

} // namespace optiq::cli
