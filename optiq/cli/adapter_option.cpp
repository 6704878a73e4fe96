#include "optiq/cli/adapter_option.h"

#include "optiq/adapters/adapter_files.h"
#include "optiq/adapters/adapter_set.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"

namespace optiq::cli {
namespace {

struct NamedFolder {
  std::string name;
  std::string directory;
};

/** "NAME=DIR", or "DIR", whose name is its place among the flags. */
NamedFolder parse(const std::string& text, std::size_t place) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || adapters::is_adapter(text)) {
    return {std::to_string(place), text};
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

} // namespace

void add_adapter_option(CLI::App& command, std::vector<std::string>& adapters) {
  command
      .add_option(
          "--adapter",
          adapters,
          "LoRA adapter to run with; of several, what all of them add")
      ->option_text("DIR|NAME=DIR ...");
}

void refuse_adapter_inside(
    const char* command,
    const std::filesystem::path& model) {
  if (adapters::is_adapter(model)) {
    fail(
        ErrorKind::Unsupported,
        "[{}] {}: found an adapter beside the weights (adapter_config.json), "
        "expected weights alone. Move it away, or make a model of both first: "
        "optiq lora fuse MODEL DIR -o OUT",
        command,
        model.string());
  }
}

models::Setup with_adapters(
    models::Setup setup,
    const std::vector<std::string>& adapters) {
  if (adapters.empty()) {
    return setup;
  }
  adapters::AdapterSet set(
      setup.model,
      {.max_resident_bytes = system_info().available_ram_bytes,
       .compute = setup.compute});
  std::string all;
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    const NamedFolder folder = parse(adapters[i], i + 1);
    adapters::mount_adapter(set, folder.name, folder.directory);
    all += (all.empty() ? "" : "+") + folder.name;
  }
  setup.adapter = set.find(all);
  return setup;
}

} // namespace optiq::cli
