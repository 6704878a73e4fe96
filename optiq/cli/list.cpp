#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "optiq/artifacts/json.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/output.h"
#include "optiq/io/hub/cache.h"
#include "optiq/io/hub/resolve.h"

namespace optiq::cli {
namespace {

namespace fs = std::filesystem;
using artifacts::Json;

struct ListFlags {
  bool json = false;
};

/** "4 bits", or "3, 4, 8 bits" where the matrices differ. */
std::string widths_of(const Json& quantization) {
  std::set<int> widths;
  const auto add = [&](const Json& json) {
    if (json.is_object() && json.contains("bits") &&
        json["bits"].is_number_integer()) {
      widths.insert(json["bits"].get<int>());
    }
  };
  add(quantization);
  for (const auto& [name, layer] : quantization.items()) {
    add(layer);
  }
  std::string text;
  for (const int width : widths) {
    text += fmt::format("{}{}", text.empty() ? "" : ", ", width);
  }
  return text.empty() ? "quantized" : text + " bits";
}

bool holds_gguf(const fs::path& snapshot) {
  for (const auto& entry : fs::recursive_directory_iterator(snapshot)) {
    if (entry.path().extension() == ".gguf") {
      return true;
    }
  }
  return false;
}

/** What a snapshot is: "qwen3_5, 4, 8 bits", "GGUF". */
std::string describe(const fs::path& snapshot) {
  const fs::path path = snapshot / "config.json";
  if (!fs::exists(path)) {
    return holds_gguf(snapshot) ? "GGUF" : "no model";
  }
  try {
    const Json config = artifacts::read_json_file(path);
    std::string text = "model";
    if (config.is_object() && config.contains("model_type") &&
        config["model_type"].is_string()) {
      text = config["model_type"].get<std::string>();
    }
    if (config.is_object() && config.contains("quantization") &&
        config["quantization"].is_object()) {
      text += ", " + widths_of(config["quantization"]);
    }
    return text;
  } catch (const Error&) {
    return "broken config.json"; // listing goes on: the user may remove it
  }
}

std::string join(const std::vector<std::string>& texts) {
  std::string result;
  for (const std::string& text : texts) {
    result += (result.empty() ? "" : ", ") + text;
  }
  return result;
}

void print_json(
    const fs::path& root,
    const std::vector<io::CachedRepo>& repos) {
  Json json = {{"cache", root.string()}, {"models", Json::array()}};
  for (const io::CachedRepo& repo : repos) {
    Json revisions = Json::array();
    for (const io::CachedRevision& revision : repo.revisions) {
      revisions.push_back(
          {{"commit", revision.commit},
           {"refs", revision.refs},
           {"bytes", revision.bytes},
           {"what", describe(revision.path)},
           {"path", revision.path.string()}});
    }
    json["models"].push_back(
        {{"repo", repo.repo},
         {"bytes", repo.bytes},
         {"unfinished_bytes", repo.unfinished_bytes},
         {"revisions", revisions}});
  }
  print_json_document(json);
}

void print_table(
    const fs::path& root,
    const std::vector<io::CachedRepo>& repos) {
  std::uint64_t total = 0;
  if (!repos.empty()) {
    print("{:<44} {:<22} {:>10}  {}\n", "model", "revision", "size", "what");
  }
  for (const io::CachedRepo& repo : repos) {
    total += repo.bytes;
    for (const io::CachedRevision& revision : repo.revisions) {
      std::string name = revision.commit.substr(0, 12);
      if (!revision.refs.empty()) {
        name = join(revision.refs) + " " + revision.commit.substr(0, 7);
      }
      print(
          "{:<44} {:<22} {:>10}  {}\n",
          repo.repo,
          name,
          artifacts::format_size(revision.bytes),
          describe(revision.path));
    }
    if (repo.unfinished_bytes > 0) {
      print(
          "{:<44} {:<22} {:>10}  {}\n",
          repo.repo,
          "-",
          artifacts::format_size(repo.unfinished_bytes),
          "unfinished download");
    }
  }
  print(
      "{} model{} in {}, {}\n",
      repos.size(),
      repos.size() == 1 ? "" : "s",
      root.string(),
      artifacts::format_size(total));
}

void run_list(const ListFlags& flags) {
  const io::HubCache cache(io::hub_settings().cache);
  const std::vector<io::CachedRepo> repos = cache.list();
  if (flags.json) {
    print_json(cache.root(), repos);
  } else {
    print_table(cache.root(), repos);
  }
}

} // namespace

void add_list_command(CLI::App& app) {
  auto* command =
      app.add_subcommand("list", "Show the models in the cache of the hub");
  auto flags = std::make_shared<ListFlags>();
  command->add_flag("--json", flags->json, "One JSON object on stdout");
  command->footer("Remove one with optiq rm.");
  command->callback([flags] { run_list(*flags); });
}

} // namespace optiq::cli
