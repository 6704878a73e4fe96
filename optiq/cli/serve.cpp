#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/base/thread_pool.h"
#include "optiq/cache/layout.h"
#include "optiq/cli/access_log.h"
#include "optiq/cli/adapter_option.h"
#include "optiq/cli/client_lines.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/interrupt.h"
#include "optiq/cli/kv_options.h"
#include "optiq/cli/log_writer.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/cli/sampling_flags.h"
#include "optiq/generate/defaults.h"
#include "optiq/generate/generation_config.h"
#include "optiq/kernels/devices.h"
#include "optiq/server/description.h"
#include "optiq/server/server.h"

namespace optiq::cli {
namespace {

/** Of the K/V caches, where the machine has twice as much. */
constexpr std::uint64_t kDefaultKvBytes = 4'000'000'000;
/** Files of the process beside its connections. */
constexpr std::uint64_t kOtherFiles = 256;
/** How often an idle main thread looks for a signal. */
constexpr std::chrono::milliseconds kSignalInterval{50};

struct ServeFlags {
  std::string model;
  std::string model_id;
  server::HttpServerOptions http;
  server::AccessRules access;
  server::ServiceOptions service;
  std::string kv_memory;
  std::vector<std::string> adapters; // DIR or NAME=DIR
  std::string adapter_memory;
  int max_tokens = 32768;
  generate::SamplingChoice sampling;
  LogFormat log_format = LogFormat::Text;
  double drain_seconds = 8;
  kernels::Compute compute = kernels::Compute::Fast;
  std::string device = "auto";
  KvFlags kv;
};

/** A key is a word that a header can carry. */
void check_key(const std::string& key) {
  const bool plain = std::all_of(
      key.begin(), key.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (key.empty() || !plain) {
    fail(
        ErrorKind::InvalidInput,
        "[--api-key] found {}, expected printable ASCII without spaces",
        key.empty() ? "an empty key" : "a key with other characters");
  }
}

void check_flags(const ServeFlags& flags) {
  for (const std::string& key : flags.access.api_keys) {
    check_key(key);
  }
  const bool local =
      !flags.http.unix_socket.empty() || server::is_loopback(flags.http.host);
  if (!local && flags.access.api_keys.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[serve] --host {} lets others in, found no --api-key. Give one, or "
        "set OPTIQ_API_KEY",
        flags.http.host);
  }
}

/** What the caches of all answers may take together: half of what a card has
 * left, which nobody else wants; of the host's memory no more than some. */
std::uint64_t choose_kv_bytes(
    const ServeFlags& flags,
    const kernels::Device& device) {
  if (flags.kv_memory.empty()) {
    const std::uint64_t half = kernels::available_bytes(device) / 2;
    return device.own_bytes_left() ? half : std::min(kDefaultKvBytes, half);
  }
  const std::uint64_t bytes = artifacts::parse_size(flags.kv_memory);
  kernels::require_bytes(device, bytes, "--kv-memory");
  return bytes;
}

/** Adapters by their folders' names where no other is given. */
std::vector<server::AdapterOptions::Folder> named_adapters(
    const std::vector<std::string>& flags) {
  std::vector<server::AdapterOptions::Folder> folders;
  for (const std::string& flag : flags) {
    const NamedFolder folder = named_folder(flag);
    const auto real = std::filesystem::weakly_canonical(folder.directory);
    folders.push_back(
        {folder.name.empty() ? real.filename().string() : folder.name,
         folder.directory});
  }
  return folders;
}

server::AdapterOptions choose_adapters(const ServeFlags& flags) {
  server::AdapterOptions options = flags.service.adapters;
  options.mounted = named_adapters(flags.adapters);
  if (!flags.adapter_memory.empty()) {
    options.max_resident_bytes = artifacts::parse_size(flags.adapter_memory);
    require_ram(options.max_resident_bytes, "--adapter-memory");
  }
  return options;
}

std::optional<text::ChatTemplate> find_chat_template(
    const io::ModelDirectory& directory) {
  try {
    return generate::load_chat_template(directory);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::NotFound) {
      throw;
    }
    print_error("note: {}; only /v1/completions answers\n", e.what());
    return std::nullopt;
  }
}

server::ServedModel load_served_model(const ServeFlags& flags) {
  const auto directory = open_model(flags.model);
  auto defaults = generate::read_generation_config(directory);
  generate::override_sampler(flags.sampling, defaults.sampler);
  generate::override_logits(flags.sampling, defaults.logits);
  for (const std::string& notice : defaults.notices) {
    print_error("note: {}\n", notice);
  }
  auto tokenizer = generate::load_tokenizer(directory);
  auto setup = make_setup(
      load_checked(directory, kernels::find_device(flags.device)),
      flags.compute,
      flags.kv);
  auto description = server::describe_model(directory, setup);
  return {
      .id = flags.model_id.empty() ? name_of_model(directory.path())
                                   : flags.model_id,
      .setup = std::move(setup),
      .tokenizer = tokenizer,
      .chat_template = find_chat_template(directory),
      .stop_ids = generate::stop_ids(directory, *tokenizer),
      .defaults = std::move(defaults),
      .max_tokens = flags.max_tokens,
      .description = std::move(description)};
}

/** "12288 bytes per token: 4.0 GB hold 325520 tokens". */
std::string describe_room(const ServeFlags& flags, const models::Setup& setup) {
  const std::size_t per_token = cache::bytes_per_token(setup.layout);
  const std::size_t fixed = cache::fixed_bytes(setup.layout);
  const std::size_t pool = flags.service.kv_bytes;
  const std::string states = fixed == 0
      ? ""
      : fmt::format("{} of states per answer, ", artifacts::format_size(fixed));
  if (per_token == 0) {
    return states + artifacts::format_size(pool) + " in all";
  }
  return fmt::format(
      "{}{} bytes per token: {} hold {} tokens",
      states,
      per_token,
      artifacts::format_size(pool),
      (pool - std::min(fixed, pool)) / per_token);
}

void print_adapters(
    const server::AdapterOptions& adapters,
    const std::string& model_id) {
  if (!adapters.mounted.empty()) {
    print(
        "  adapters   {} mounted, as in the model's name {}:{}\n",
        adapters.mounted.size(),
        model_id,
        adapters.mounted.front().id);
  }
  if (!adapters.root.empty()) {
    print("  adapters   clients mount those in {}\n", adapters.root.string());
  }
}

void print_served(
    const ServeFlags& flags,
    const server::ServedModel& model,
    const ServedAddress& address) {
  const models::ModelInfo& info = model.setup.model->info();
  const auto file_bytes =
      model.description.at("file_bytes").get<std::uint64_t>();
  print(
      "Serving {} at {}\n",
      model.id,
      flags.http.unix_socket.empty() ? base_url(address)
                                     : flags.http.unix_socket);
  print(
      "  model      {}, {} parameters, {} in files, {} positions\n",
      info.model_type,
      info.parameters,
      artifacts::format_size(file_bytes),
      info.max_positions);
  print(
      "  device     {} ({}), {} threads, {}\n",
      model.setup.model->device().name(),
      model.setup.model->device().arithmetic(),
      ThreadPool::shared().size(),
      name_of(flags.compute));
  print(
      "  K/V cache  {}, {}\n",
      describe_kv(flags.kv),
      describe_room(flags, model.setup));
  print(
      "  answers    {} at a time, {} more wait\n",
      flags.service.max_concurrent,
      flags.service.max_waiting);
  print_adapters(flags.service.adapters, model.id);
  print("\nAsk it:\n");
  print_lines(stdout, client_lines(address, model.id));
  flush_stdout();
}

void log_line(const std::string& line) {
  print_lines(stderr, line + "\n");
}

void run_serve(ServeFlags flags) {
  check_flags(flags);
  allow_open_files(flags.http.max_connections + kOtherFiles);
  LogWriter log(log_line);
  server::Server server(
      flags.http,
      flags.access,
      [&log, format = flags.log_format](const server::HttpAccess& access) {
        log.push(access_line(access, format, std::time(nullptr)));
      });
  auto model = load_served_model(flags);
  flags.service.kv_bytes = choose_kv_bytes(flags, model.setup.model->device());
  flags.service.access = flags.access;
  flags.service.adapters = choose_adapters(flags);
  const ServedAddress address{
      .host = flags.http.host,
      .port = server.port(),
      .unix_socket = flags.http.unix_socket,
      .needs_key = !flags.access.api_keys.empty()};
  const server::ServedModel shown = model;
  // Until here a signal ends the process; fetching a model has its own guard.
  const InterruptGuard interrupt;
  server.open(
      std::make_unique<server::Service>(std::move(model), flags.service));
  print_served(flags, shown, address);
  while (!interrupt.flag()) {
    std::this_thread::sleep_for(kSignalInterval);
  }
  log.push(
      fmt::format("stopping: answers have {} s to end", flags.drain_seconds));
  server.close(
      std::chrono::milliseconds(static_cast<long>(flags.drain_seconds * 1000)));
}

void add_address_options(CLI::App& command, ServeFlags& flags) {
  command.add_option(
      "--host",
      flags.http.host,
      "Address to listen at; but for loopback's it needs a key [127.0.0.1]");
  command
      .add_option("--port", flags.http.port, "Port, 0 = any free one [8080]")
      ->check(CLI::Range(0, 65535));
  command
      .add_option(
          "--unix-socket",
          flags.http.unix_socket,
          "Listen at this path instead, for this user alone")
      ->option_text("PATH");
  command
      .add_option(
          "--api-key",
          flags.access.api_keys,
          "A key that clients must send, one of several (better in "
          "OPTIQ_API_KEY: others can read a command line)")
      ->envname("OPTIQ_API_KEY")
      ->allow_extra_args(false)
      ->option_text("KEY");
  command
      .add_option(
          "--allowed-host",
          flags.access.allowed_hosts,
          "A name in Host that is served, beside addresses and localhost")
      ->allow_extra_args(false)
      ->option_text("NAME");
  command
      .add_option(
          "--allowed-origin",
          flags.access.allowed_origins,
          "An origin whose pages may ask, as https://app.example")
      ->allow_extra_args(false)
      ->option_text("ORIGIN");
}

void add_limit_options(CLI::App& command, ServeFlags& flags) {
  command
      .add_option(
          "--max-concurrent",
          flags.service.max_concurrent,
          "Answers computed at a time [8]")
      ->check(CLI::PositiveNumber);
  command
      .add_option(
          "--max-queue",
          flags.service.max_waiting,
          "Requests that may wait; more get status 429 [64]")
      ->check(CLI::NonNegativeNumber);
  command
      .add_option(
          "--kv-memory",
          flags.kv_memory,
          "Bytes of all K/V caches, as 4GB [half of what is free, of the host's "
          "memory at most 4GB]")
      ->option_text("SIZE");
  command
      .add_option(
          "--max-tokens",
          flags.max_tokens,
          "Length of an answer whose request names none [32768]")
      ->check(CLI::PositiveNumber);
}

void add_serve_adapter_options(CLI::App& command, ServeFlags& flags) {
  add_adapter_option(
      command,
      flags.adapters,
      "LoRA adapter that requests may name: NAME, or what its folder is called");
  command
      .add_option(
          "--adapters-root",
          flags.service.adapters.root,
          "Let clients mount adapters that lie in this folder")
      ->option_text("DIR");
  command
      .add_option(
          "--adapter-memory",
          flags.adapter_memory,
          "Bytes of the adapters in memory; others are read when they are asked "
          "for [1GiB]")
      ->option_text("SIZE");
}

void add_other_options(CLI::App& command, ServeFlags& flags) {
  command
      .add_option(
          "--model-id",
          flags.model_id,
          "What clients call the model (default: its name)")
      ->option_text("NAME");
  command
      .add_option(
          "--log-format", flags.log_format, "Of the access log on stderr: text")
      ->transform(CLI::CheckedTransformer(std::map<std::string, LogFormat>{
          {"text", LogFormat::Text}, {"json", LogFormat::Json}}))
      ->option_text("text|json");
  command
      .add_option(
          "--drain-seconds",
          flags.drain_seconds,
          "What answers have to end on SIGTERM or Ctrl-C [8]")
      ->check(CLI::Range(0.0, 3600.0));
}

} // namespace

void add_serve_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "serve", "Answer over HTTP, as OpenAI's API does, and with a page");
  auto flags = std::make_shared<ServeFlags>();
  add_model_option(*command, flags->model);
  add_address_options(*command, *flags);
  add_limit_options(*command, *flags);
  add_sampling_options(*command, flags->sampling);
  add_serve_adapter_options(*command, *flags);
  add_other_options(*command, *flags);
  add_compute_option(*command, flags->compute);
  add_device_option(*command, flags->device);
  add_kv_options(*command, flags->kv);
  add_threads_option(*command);
  command->footer(
      "Examples:\n"
      "  optiq serve DIR\n"
      "  optiq serve DIR --kv-bits 8 --max-concurrent 16 --kv-memory 2GB\n"
      "  optiq serve DIR --adapter math=ADAPTER --adapters-root ADAPTERS\n"
      "  OPTIQ_API_KEY=secret optiq serve DIR --host 0.0.0.0");
  command->callback([flags] { run_serve(*flags); });
}

} // namespace optiq::cli
