#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "optiq/cli/progress.h"
#include "optiq/io/hub/resolve.h"
#include "optiq/io/model_directory.h"
#include "optiq/kernels/matrix.h"
#include "optiq/models/model.h"

namespace optiq::cli {

/** MODEL as a positional argument or as -m/--model, exactly once. */
void add_model_option(CLI::App& command, std::string& model);

/** Throws InvalidInput when a command that add_model_option gave a MODEL was
 * given none. */
void require_model(const CLI::App& command);

/** --compute int8|fast|exact. */
void add_compute_option(CLI::App& command, kernels::Compute& compute);

/** The names of devices, as help shows them. */
inline constexpr const char* kDeviceNames = "auto|cpu|mlx|cuda[:N]";
/** For CLI::Option::check: what is wrong with the name of a device, or "". */
std::string check_device_name(const std::string& name);
/** --device, a name for kernels::find_device. */
void add_device_option(CLI::App& command, std::string& device);

/** --threads N, 0 = all cores; takes effect at once. */
void add_threads_option(CLI::App& command);

/** A flag that names a file or folder to write: not the empty name. */
CLI::Option* add_file_option(
    CLI::App& command,
    const std::string& names,
    std::string& file,
    const std::string& description);

/** --progress auto|plain|json|none, for parse_progress_mode. */
void add_progress_option(CLI::App& command, std::string& progress);

/** The directory or file that the user named as MODEL: a local path, or a name
 * on the hub, whose missing files are fetched (progress on stderr). */
std::filesystem::path find_model(
    const std::string& model,
    ProgressMode mode = ProgressMode::Auto);

/** What a result made from a model is called: the name of its repository on
 * the hub, of its directory, or of its file. */
std::string name_of_model(const std::filesystem::path& model);

/** Fetches what is missing of a model of the hub. Progress and notices go to
 * stderr. */
io::ResolvedModel fetch_showing(const io::HubId& id, ProgressMode mode);

/** Opens what the user named as MODEL. */
io::ModelDirectory open_model(const std::string& model);

/** Opens a model directory and loads its weights onto a device; refuses one
 * that does not fit into the RAM, with numbers, before reading it. */
std::shared_ptr<const models::Model> load_checked(
    const io::ModelDirectory& directory,
    kernels::Device& device);

} // namespace optiq::cli
