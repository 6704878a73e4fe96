#include "optiq/cli/chat_input.h"

#include <string_view>

namespace optiq::cli {
namespace {

constexpr const char* kPrompt = "> ";
constexpr const char* kMorePrompt = ". ";
constexpr std::string_view kQuotes = "\"\"\"";

/** Whether more lines belong to the message; takes the marks of that away. */
bool goes_on(std::string& text, bool is_quoted) {
  if (is_quoted) {
    if (text.size() < 2 * kQuotes.size() || !text.ends_with(kQuotes)) {
      return true;
    }
    text = text.substr(kQuotes.size(), text.size() - 2 * kQuotes.size());
    return false;
  }
  if (!text.ends_with('\\')) {
    return false;
  }
  text.pop_back();
  return true;
}

} // namespace

std::optional<std::string> read_message(LineReader& lines) {
  InputLine line = lines.read(kPrompt);
  if (line.kind == InputLine::Kind::End) {
    return std::nullopt;
  }
  std::string text = line.text;
  const bool is_quoted = text.starts_with(kQuotes);
  while (line.kind == InputLine::Kind::Text && goes_on(text, is_quoted)) {
    line = lines.read(kMorePrompt);
    text += line.kind == InputLine::Kind::Text ? "\n" + line.text : "";
  }
  return line.kind == InputLine::Kind::Interrupted ? "" : text;
}

} // namespace optiq::cli
