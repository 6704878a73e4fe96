#include "optiq/cli/adapter_option.h"

#include "optiq/adapters/adapter_files.h"
#include "optiq/adapters/adapter_set.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"

namespace optiq::cli {

void add_adapter_option(
    CLI::App& command,
    std::vector<std::string>& adapters,
    const std::string& description) {
  command.add_option("--adapter", adapters, description)
      ->option_text("DIR|NAME=DIR ...");
}

void refuse_adapter_option(CLI::App& command, const char* reason) {
  command
      .add_option_function<std::vector<std::string>>(
          "--adapter",
          [name = command.get_name(), reason](const auto& /*adapters*/) {
            fail(
                ErrorKind::InvalidInput,
                "[{}] --adapter: found one, expected a model alone: {}",
                name,
                reason);
          })
      ->group("");
}

NamedFolder named_folder(const std::string& flag) {
  const std::size_t equals = flag.find('=');
  if (equals == std::string::npos || adapters::is_adapter(flag)) {
    return {"", flag};
  }
  return {flag.substr(0, equals), flag.substr(equals + 1)};
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
    const NamedFolder folder = named_folder(adapters[i]);
    const std::string name =
        folder.name.empty() ? std::to_string(i + 1) : folder.name;
    adapters::mount_adapter(set, name, folder.directory);
    all += (all.empty() ? "" : "+") + name;
  }
  setup.adapter = set.find(all);
  return setup;
}

} // namespace optiq::cli
