#include <cstdio>
#include <memory>
#include <string>

#include <fmt/format.h>
#include <unistd.h>

#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/output.h"
#include "optiq/io/hub/cache.h"
#include "optiq/io/hub/resolve.h"

namespace optiq::cli {
namespace {

constexpr std::size_t kLongestAnswer = 16;

struct RmFlags {
  std::string model;
  bool yes = false;
};

/** Asks on the terminal; only "y" and "yes" are a yes. */
bool is_confirmed(const std::string& question) {
  print_error("{} [y/N] ", question);
  std::fflush(stderr);
  std::string answer;
  for (int c = std::getchar(); c != EOF && c != '\n'; c = std::getchar()) {
    if (answer.size() == kLongestAnswer) {
      return false;
    }
    answer += static_cast<char>(c);
  }
  return answer == "y" || answer == "Y" || answer == "yes";
}

void run_rm(const RmFlags& flags) {
  const auto id = io::parse_cached_id(flags.model);
  if (!id || !id->file.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[rm] found '{}', expected org/name[@revision] as optiq list shows it. "
        "Only models in the cache are removed",
        flags.model);
  }
  const bool whole = flags.model.find('@') == std::string::npos;
  const io::HubCache cache(io::hub_settings().cache);
  const std::string target = fmt::format(
      "{} of {} in {}",
      whole ? "everything" : "revision " + id->revision,
      id->repo,
      cache.root().string());
  if (!flags.yes) {
    if (::isatty(STDIN_FILENO) == 0) {
      fail(
          ErrorKind::InvalidInput,
          "[rm] would delete {}, and there is no terminal to ask on. Add --yes",
          target);
    }
    if (!is_confirmed("Delete " + target + "?")) {
      fail(ErrorKind::Cancelled, "[rm] nothing was deleted");
    }
  }
  const io::RemovedFiles removed = cache.remove(*id, whole);
  print(
      "deleted {}: {} revision{}, {}\n",
      id->repo,
      removed.n_revisions,
      removed.n_revisions == 1 ? "" : "s",
      artifacts::format_size(removed.bytes));
}

} // namespace

void add_rm_command(CLI::App& app) {
  auto* command =
      app.add_subcommand("rm", "Delete a model from the cache of the hub");
  auto flags = std::make_shared<RmFlags>();
  command
      ->add_option(
          "MODEL",
          flags->model,
          "org/name, or org/name@revision for one revision of it")
      ->required();
  command->add_flag("-y,--yes", flags->yes, "Do not ask");
  command->callback([flags] { run_rm(*flags); });
}

} // namespace optiq::cli
