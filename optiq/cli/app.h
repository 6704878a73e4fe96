#pragma once

#include <memory>

#include <CLI/CLI.hpp>

namespace optiq::cli {

/** The application with every subcommand. Parsing runs the one that the command
 * line names, after its flags were checked against each other. */
std::unique_ptr<CLI::App> make_app();

} // namespace optiq::cli
