#pragma once

#include <CLI/CLI.hpp>

namespace optiq::cli {

/** `optiq lora train`, of `optiq lora`. */
void add_lora_train_command(CLI::App& lora);

} // namespace optiq::cli
