#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace optiq::cli {

/** What came when a line was asked for. */
struct InputLine {
  enum class Kind { Text, Interrupted, End };
  Kind kind = Kind::End;
  std::string text; // without its newline
};

/**
 * Lines of standard input: on a terminal with editing and a history of earlier
 * ones (libedit), elsewhere as they come, without a prompt. While a line is
 * awaited, Ctrl-C gives it up (Interrupted) and Ctrl-D on an empty one is the
 * end.
 */
class LineReader {
 public:
  /** The history lies in this file, of mode 0600; an empty path: nowhere. A
   * file that cannot be read or written is a note on stderr. */
  explicit LineReader(std::filesystem::path history_file);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  bool is_terminal() const;
  InputLine read(const std::string& prompt);
  /** Adds what was typed, which may have several lines. */
  void remember(const std::string& text);

 private:
  struct Editor;
  std::unique_ptr<Editor> editor_; // on a terminal
};

} // namespace optiq::cli
