#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/cli/adapter_option.h"
#include "optiq/cli/chat_input.h"
#include "optiq/cli/chat_model.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/interrupt.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"

namespace optiq::cli {
namespace {

using artifacts::Json;

constexpr std::string_view kHelp =
    "/clear          forget the conversation\n"
    "/system [TEXT]  change the system message, or show it; forgets the "
    "conversation\n"
    "/save FILE      write the conversation as JSON messages\n"
    "/help           this list\n"
    "/quit           end, as Ctrl-D\n"
    "A line that ends with \\ goes on in the next one; \"\"\" begins and ends "
    "several lines.\n"
    "Ctrl-C stops an answer.\n";

struct ChatFlags {
  std::string model; // or the URL of a server
  std::vector<std::string> adapters; // folders, or names of the server
  LocalFlags local;
  ServerFlags server;
  AnswerFlags answer;
  std::string system;
  std::string history;
};

/** An environment variable, or "". */
std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/** $XDG_STATE_HOME/optiq/chat_history, by default below ~/.local/state. */
std::filesystem::path default_history() {
  std::filesystem::path state = variable("XDG_STATE_HOME");
  if (!state.is_absolute()) {
    const std::filesystem::path home = variable("HOME");
    if (!home.is_absolute()) {
      return {};
    }
    state = home / ".local" / "state";
  }
  return state / "optiq" / "chat_history";
}

std::filesystem::path history_file(const std::string& flag) {
  if (flag == "none") {
    return {};
  }
  return flag.empty() ? default_history() : std::filesystem::path(flag);
}

/** Prints an answer as it comes; its reasoning on a terminal alone, dimmed
 * where that can be. */
class AnswerPrinter {
 public:
  AnswerPrinter()
      : is_terminal_(::isatty(STDOUT_FILENO) != 0),
        has_colors_(is_terminal_ && can_dim()) {}
  ~AnswerPrinter() {
    dim(false);
  }
  AnswerPrinter(const AnswerPrinter&) = delete;
  AnswerPrinter& operator=(const AnswerPrinter&) = delete;

  void print_piece(std::string_view content, std::string_view reasoning) {
    if (!reasoning.empty() && is_terminal_) {
      dim(true);
      print_output(reasoning);
      had_reasoning_ = true;
    }
    if (!content.empty()) {
      dim(false);
      if (std::exchange(had_reasoning_, false)) {
        print_output("\n\n");
      }
      print_output(content);
    }
  }

 private:
  static bool can_dim() {
    const std::string terminal = variable("TERM");
    return variable("NO_COLOR").empty() && !terminal.empty() &&
        terminal != "dumb";
  }
  void dim(bool on) {
    if (has_colors_ && on != is_dim_) {
      write_text(stdout, on ? "\x1b[2m" : "\x1b[22m");
      is_dim_ = on;
    }
  }

  bool is_terminal_;
  bool has_colors_;
  bool is_dim_ = false;
  bool had_reasoning_ = false;
};

/** A conversation, and the commands that change it. */
class Chat {
 public:
  Chat(ChatModel& model, LineReader& lines, std::string system)
      : model_(model), lines_(lines), system_(std::move(system)) {
    clear();
  }

  void run() {
    if (lines_.is_terminal()) {
      print("{}. /help lists commands, Ctrl-D ends.\n", model_.name());
    }
    while (!is_over_) {
      flush_stdout();
      const auto text = read_message(lines_);
      if (!text) {
        if (lines_.is_terminal()) {
          print("\n");
        }
        break;
      }
      if (text->find_first_not_of(" \t\n") != std::string::npos) {
        lines_.remember(*text);
        take(*text);
      }
    }
  }

 private:
  /** On a terminal an error ends no chat. */
  void take(const std::string& text) {
    const std::size_t n = messages_.size();
    try {
      text.starts_with('/') ? run_command(text) : ask(text);
    } catch (const Error& error) {
      messages_.erase(messages_.begin() + static_cast<int>(n), messages_.end());
      if (!lines_.is_terminal()) {
        throw;
      }
      print_error("{}\n", error.what());
    }
  }

  void ask(const std::string& text) {
    messages_.push_back({{"role", "user"}, {"content", text}});
    std::string content;
    AnswerEnd end = AnswerEnd::Complete;
    {
      const InterruptCatcher interrupt;
      AnswerPrinter printer;
      end = model_.answer(
          messages_,
          interrupt.flag(),
          [&](std::string_view piece, std::string_view reasoning) {
            content += piece;
            printer.print_piece(piece, reasoning);
          });
    }
    print_output("\n");
    if (end == AnswerEnd::Stopped) {
      print_error("(stopped)\n");
    } else if (end == AnswerEnd::TooLong) {
      print_error("(cut off: the answer has as many tokens as it may)\n");
    }
    messages_.push_back({{"role", "assistant"}, {"content", content}});
    if (end == AnswerEnd::Stopped && !lines_.is_terminal()) {
      fail(ErrorKind::Cancelled, "[chat] interrupted");
    }
  }

  void run_command(const std::string& text) {
    const std::size_t space = text.find_first_of(" \t\n");
    const std::string name = text.substr(0, space);
    const std::size_t rest = space == std::string::npos
        ? space
        : text.find_first_not_of(" \t\n", space);
    const std::string argument =
        rest == std::string::npos ? "" : text.substr(rest);
    if (name == "/clear") {
      clear();
    } else if (name == "/system") {
      change_system(argument);
    } else if (name == "/save") {
      save(argument);
    } else if (name == "/help") {
      print_lines(stdout, kHelp);
    } else if (name == "/quit") {
      is_over_ = true;
    } else {
      fail(
          ErrorKind::InvalidInput,
          "[chat] found the command {}, expected one of those that /help lists",
          name);
    }
  }

  void clear() {
    messages_ = Json::array();
    if (!system_.empty()) {
      messages_.push_back({{"role", "system"}, {"content", system_}});
    }
  }

  void change_system(const std::string& text) {
    if (text.empty()) {
      print_lines(stdout, (system_.empty() ? "(none)" : system_) + "\n");
      return;
    }
    system_ = text;
    clear();
  }

  void save(const std::string& file) {
    if (file.empty()) {
      fail(ErrorKind::InvalidInput, "[chat] /save needs the name of a file");
    }
    write_result(file, artifacts::dump_json(messages_, 2), model_.path());
    print_error("Saved {} messages in {}\n", messages_.size(), file);
  }

  ChatModel& model_;
  LineReader& lines_;
  std::string system_;
  Json messages_;
  bool is_over_ = false;
};

/** A flag of a model in this process says nothing to a server, and the other
 * way round. */
void check_flags(const CLI::App& command, bool is_remote) {
  const std::vector<const char*> local{
      "--compute",
      "--device",
      "--threads",
      "--kv-config",
      "--kv-bits",
      "--kv-method",
      "--kv-rotation",
      "--kv-seed",
      "--kv-group-size"};
  const std::vector<const char*> remote{"--api-key", "--model-id"};
  for (const char* flag : is_remote ? local : remote) {
    if (command.get_option(flag)->count() > 0) {
      fail(
          ErrorKind::InvalidInput,
          "[chat] {} goes only with a {}",
          flag,
          is_remote ? "MODEL that runs here, not with a server"
                    : "server's URL");
    }
  }
}

std::unique_ptr<ChatModel> open_chat(
    const CLI::App& command,
    const ChatFlags& flags) {
  if (!is_server(flags.model)) {
    const auto directory = open_model(flags.model);
    check_flags(command, false);
    LocalFlags local = flags.local;
    local.adapters = flags.adapters;
    return open_local_chat(directory, local, flags.answer);
  }
  check_flags(command, true);
  ServerFlags server = flags.server;
  server.url = flags.model;
  server.adapters = flags.adapters;
  if (server.api_key.empty()) {
    server.api_key = variable("OPTIQ_API_KEY");
  }
  return open_server_chat(server, flags.answer);
}

void run_chat(const CLI::App& command, const ChatFlags& flags) {
  const auto model = open_chat(command, flags);
  LineReader lines(history_file(flags.history));
  Chat(*model, lines, flags.system).run();
}

} // namespace

void add_chat_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "chat", "Talk with a model, or with a server, in the terminal");
  auto flags = std::make_shared<ChatFlags>();
  add_model_option(*command, flags->model);
  command->add_option("--system", flags->system, "System message");
  command->add_option(
      "--max-tokens",
      flags->answer.max_tokens,
      "Tokens of an answer at most (default: as many as there is room for)");
  add_sampling_options(*command, flags->answer.sampling);
  command->add_option(
      "--seed", flags->answer.seed, "Seed of sampling (default: the time)");
  command->add_option(
      "--history",
      flags->history,
      "File of what was typed, or none (default: "
      "~/.local/state/optiq/chat_history)");
  command->add_option(
      "--api-key",
      flags->server.api_key,
      "Key of the server (default: OPTIQ_API_KEY)");
  command->add_option(
      "--model-id",
      flags->server.model_id,
      "Which of the server's models (default: its first)");
  add_adapter_option(
      *command,
      flags->adapters,
      std::string(kAdaptersToRunWith) + "; of a server, by its name there");
  add_compute_option(*command, flags->local.compute);
  add_device_option(*command, flags->local.device);
  add_kv_options(*command, flags->local.kv);
  add_threads_option(*command);
  command->footer(
      "MODEL is a directory, a GGUF file, a name on the hub, or the URL of a\n"
      "server of OpenAI's protocol: http://HOST:PORT, unix:SOCKET\n"
      "Examples:\n"
      "  optiq chat DIR\n"
      "  optiq chat http://127.0.0.1:8080\n"
      "  optiq chat http://127.0.0.1:8080 --adapter math\n"
      "  echo \"What is 7 times 8?\" | optiq chat DIR");
  command->callback([flags, command] { run_chat(*command, *flags); });
}

} // namespace optiq::cli
