#include "optiq/cli/line_reader.h"

#include <cerrno>
#include <clocale>
#include <cstdlib>
#include <iostream>
#include <string_view>
#include <system_error>
#include <utility>

#include <histedit.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/cli/interrupt.h"
#include "optiq/cli/output.h"

namespace optiq::cli {
namespace {

constexpr int kRemembered = 1000;

/** Whether lines can be edited here. */
bool has_terminal() {
  const char* const name = std::getenv("TERM");
  return name != nullptr && std::string_view(name) != "dumb" && *name != '\0' &&
      ::isatty(STDIN_FILENO) != 0 && ::isatty(STDOUT_FILENO) != 0;
}

} // namespace

/** libedit's editor, its history and the prompt it shows. */
struct LineReader::Editor {
  explicit Editor(std::filesystem::path file)
      : history_file(std::move(file)),
        lines(history_init(), history_end),
        edit(el_init("optiq", stdin, stdout, stderr), el_end) {
    if (lines == nullptr || edit == nullptr) {
      fail(ErrorKind::Exhausted, "[LineReader] the line editor did not start");
    }
    HistEvent event;
    history(lines.get(), &event, H_SETSIZE, kRemembered);
    history(lines.get(), &event, H_SETUNIQUE, 1);
    if (!history_file.empty() && std::filesystem::exists(history_file) &&
        history(lines.get(), &event, H_LOAD, history_file.c_str()) < 0) {
      print_error("note: {}: no history was read\n", history_file.string());
    }
    el_set(edit.get(), EL_CLIENTDATA, this);
    using Prompt = char* (*)(EditLine*);
    const Prompt show_prompt = [](EditLine* of) {
      return editor_of(of).prompt.data();
    };
    el_set(edit.get(), EL_PROMPT, show_prompt);
    el_set(edit.get(), EL_EDITOR, "emacs");
    el_set(edit.get(), EL_SIGNAL, 1); // the terminal is whole after a signal
    make_interrupt_a_key();
    el_set(edit.get(), EL_HIST, history, lines.get());
    el_set(edit.get(), EL_BIND, "^R", "em-inc-search-prev", nullptr);
    // What Linux makes of a Ctrl-D that was pressed while no line was awaited.
    el_set(edit.get(), EL_BIND, "^@", "em-delete-or-list", nullptr);
  }

  InputLine read() {
    int length = 0;
    is_given_up = false;
    const char* const line = el_gets(edit.get(), &length);
    if (is_given_up) {
      return {InputLine::Kind::Interrupted, {}};
    }
    if (length < 0 && errno == EINTR) { // a signal that no key sent
      el_reset(edit.get());
      return {InputLine::Kind::Interrupted, {}};
    }
    if (line == nullptr || length <= 0) {
      return {InputLine::Kind::End, {}};
    }
    std::string text(line, static_cast<std::size_t>(length));
    text.erase(text.find_last_not_of("\r\n") + 1);
    return {InputLine::Kind::Text, std::move(text)};
  }

  void remember(const std::string& text) {
    HistEvent event;
    history(lines.get(), &event, H_ENTER, text.c_str());
    if (history_file.empty()) {
      return;
    }
    std::error_code error;
    std::filesystem::create_directories(history_file.parent_path(), error);
    if (history(lines.get(), &event, H_SAVE, history_file.c_str()) < 0) {
      print_error(
          "note: {}: the history was not written\n", history_file.string());
      history_file.clear(); // said once
    }
  }

  static Editor& editor_of(EditLine* edit) {
    Editor* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return *self;
  }

  /** While a line is awaited. A signal would be handled by whichever thread
   * gets it, and libedit's handler is made for one. */
  void make_interrupt_a_key() {
    using Command = unsigned char (*)(EditLine*, int);
    const Command give_up = [](EditLine* of, int) -> unsigned char {
      editor_of(of).is_given_up = true;
      return CC_NEWLINE;
    };
    constexpr const char* kName = "give-up";
    el_set(edit.get(), EL_SETTY, "-d", "intr=", nullptr);
    el_set(edit.get(), EL_ADDFN, kName, "Give the line up", give_up);
    el_set(edit.get(), EL_BIND, "^C", kName, nullptr);
  }

  // Between answers and lines too, where nobody else looks after Ctrl-C. While
  // a line is awaited it is a key, and a signal from elsewhere libedit's, which
  // sends it on when the call has ended.
  InterruptCatcher between;
  bool is_given_up = false; // the line that was read last, by Ctrl-C
  std::filesystem::path history_file;
  std::string prompt;
  std::unique_ptr<History, decltype(&history_end)> lines;
  std::unique_ptr<EditLine, decltype(&el_end)> edit;
};

LineReader::LineReader(std::filesystem::path history_file) {
  if (has_terminal()) {
    std::setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) { // libedit takes characters apart otherwise
      std::setlocale(LC_CTYPE, "C.UTF-8");
    }
    editor_ = std::make_unique<Editor>(std::move(history_file));
  }
}

LineReader::~LineReader() = default;

bool LineReader::is_terminal() const {
  return editor_ != nullptr;
}

InputLine LineReader::read(const std::string& prompt) {
  if (editor_ != nullptr) {
    editor_->prompt = prompt;
    return editor_->read();
  }
  std::string text;
  if (!std::getline(std::cin, text)) {
    return {InputLine::Kind::End, {}};
  }
  text.erase(text.find_last_not_of('\r') + 1);
  return {InputLine::Kind::Text, std::move(text)};
}

void LineReader::remember(const std::string& text) {
  if (editor_ != nullptr) {
    editor_->remember(text);
  }
}

} // namespace optiq::cli
