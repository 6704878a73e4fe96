#include "optiq/cli/output.h"

#include <array>

#include <unistd.h>

#include "optiq/base/error.h"

namespace optiq::cli {

void write_text(std::FILE* stream, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stream);
}

void print_lines(std::FILE* stream, std::string_view text) {
  write_text(stream, printable_lines(text));
}

void print_output(std::string_view text) {
  if (::isatty(STDOUT_FILENO) != 0) {
    print_lines(stdout, text);
  } else {
    write_text(stdout, text);
  }
  std::fflush(stdout);
}

void print_json_document(
    const artifacts::Json& json,
    int indent,
    std::FILE* stream) {
  write_text(stream, artifacts::dump_json(json, indent));
}

std::string read_standard_input(std::size_t max_bytes) {
  std::string text;
  std::array<char, 1 << 16> buffer{};
  while (true) {
    const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), stdin);
    if (n == 0) {
      break;
    }
    text.append(buffer.data(), n);
    if (text.size() > max_bytes) {
      fail(
          ErrorKind::InvalidInput,
          "[read_standard_input] stdin: found more than {} bytes, expected at "
          "most that many",
          max_bytes);
    }
  }
  if (std::ferror(stdin) != 0) {
    fail(ErrorKind::Io, "[read_standard_input] stdin: cannot be read");
  }
  return text;
}

} // namespace optiq::cli
