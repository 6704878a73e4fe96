#pragma once

#include <functional>
#include <string>

#include <CLI/CLI.hpp>

namespace optiq::cli {

/** Each subcommand lives in <name>.cpp and adds itself to the application. Its
 * callback throws optiq::Error; main turns that into a sentence on stderr and
 * the exit code of the error's kind. */
void add_convert_command(CLI::App& app);
void add_sweep_command(CLI::App& app);
void add_kv_cache_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_serve_command(CLI::App& app);
void add_chat_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_report_command(CLI::App& app);
void add_list_command(CLI::App& app);
void add_pull_command(CLI::App& app);
void add_rm_command(CLI::App& app);
void add_lora_command(CLI::App& app);
void add_doctor_command(CLI::App& app);

} // namespace optiq::cli
