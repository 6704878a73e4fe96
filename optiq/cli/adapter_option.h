#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "optiq/models/setup.h"

namespace optiq::cli {

/** --adapter, repeatable; the flag's values as named_folder reads them, unless
 * `description` says otherwise. */
void add_adapter_option(
    CLI::App& command,
    std::vector<std::string>& adapters,
    const std::string& description);

/** Of a command that runs with adapters: what all of them add. */
inline constexpr const char* kAdaptersToRunWith =
    "LoRA adapter to run with; of several, what all of them add";

/** An --adapter that a command does not take, for this reason: it throws
 * InvalidInput. No part of --help. */
void refuse_adapter_option(CLI::App& command, const char* reason);

struct NamedFolder {
  std::string name; // empty where none was given
  std::filesystem::path directory;
};

/** "DIR" or "NAME=DIR". */
NamedFolder named_folder(const std::string& flag);

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
