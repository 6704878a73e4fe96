// LoRA adapters beside one model: whatever a thread generates runs with the
// adapter that it has activated, and with nobody else's.
//
//   mounted_adapters MODEL ID=DIRECTORY...
//
// The directories are those of `optiq lora train`, PEFT or mlx-lm. Build it
// against an installed OptIQ:
//
//   find_package(Optiq REQUIRED)
//   target_link_libraries(mounted_adapters PRIVATE optiq::optiq)
#include <cstdio>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include <optiq/adapters/adapter_set.h>
#include <optiq/optiq.h>

namespace {

using namespace optiq;

std::string ask(const LoadedModel& model) {
  return generate_text(
             model,
             "Ben has 12 pens. Ben buys 30 more pens. How many pens does Ben "
             "have?",
             {.max_tokens = 32, .sampler = {{.temperature = 0.f}}})
      .text;
}

void run(const char* path, const std::vector<std::string>& arguments) {
  const LoadedModel model = load_model(path);
  adapters::AdapterSet set(model.network);
  for (const std::string& argument : arguments) {
    const std::size_t equals = argument.find('=');
    if (equals == std::string::npos) {
      throw Error(
          ErrorKind::InvalidInput, argument + ": expected ID=DIRECTORY");
    }
    adapters::mount_adapter(
        set, argument.substr(0, equals), argument.substr(equals + 1));
  }
  // All at once, each in a thread of its own.
  std::vector<std::pair<std::string, std::future<std::string>>> answers;
  for (const adapters::MountedAdapter& adapter : adapters::list_adapters(set)) {
    std::printf(
        "%s: %zu modules, %zu bytes\n",
        adapter.id.c_str(),
        adapter.modules,
        adapter.resident_bytes);
    answers.emplace_back(
        adapter.id, std::async(std::launch::async, [&, id = adapter.id] {
          const adapters::AdapterActivation active(set, id);
          return ask(model);
        }));
  }
  std::printf("[base] %s\n", ask(model).c_str());
  for (auto& [id, answer] : answers) {
    std::printf("[%s] %s\n", id.c_str(), answer.get().c_str());
  }
}

} // namespace

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::fprintf(stderr, "usage: mounted_adapters MODEL ID=DIRECTORY...\n");
    return 2;
  }
  run(argv[1], {argv + 2, argv + argc});
} catch (const optiq::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
