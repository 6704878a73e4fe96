#include "optiq/cli/app.h"

#include <string>

#include "optiq/base/version.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/flag_rules.h"
#include "optiq/cli/model_option.h"

namespace optiq::cli {
namespace {

constexpr const char* kDescription =
    "Makes a large language model as good as it can be in a given number of "
    "bytes, and runs it.";

constexpr const char* kFooter = R"(Start here:
  optiq convert MODEL --target-bpw 4.5 --candidate-bits 4,8 -o OUT
  optiq generate OUT -p "What is 7 times 8?"
  optiq serve OUT
  optiq inspect OUT
Each command explains itself: optiq COMMAND --help)";

} // namespace

std::unique_ptr<CLI::App> make_app() {
  auto app = std::make_unique<CLI::App>(kDescription, "optiq");
  app->footer(kFooter);
  app->set_version_flag("--version", std::string("optiq ") + kVersion);
  app->require_subcommand(1);
  add_convert_command(*app);
  add_sweep_command(*app);
  add_kv_cache_command(*app);
  add_generate_command(*app);
  add_serve_command(*app);
  add_chat_command(*app);
  add_eval_command(*app);
  add_bench_command(*app);
  add_inspect_command(*app);
  add_report_command(*app);
  add_list_command(*app);
  add_pull_command(*app);
  add_rm_command(*app);
  add_lora_command(*app);
  add_doctor_command(*app);
  for (CLI::App* command : commands_of(*app)) {
    command->parse_complete_callback([command] {
      require_model(*command);
      check_flag_rules(*command);
    });
  }
  return app;
}

} // namespace optiq::cli
