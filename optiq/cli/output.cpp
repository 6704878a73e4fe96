#include "optiq/cli/output.h"

#include <array>
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/output_file.h"
#include "optiq/io/model_files.h"

namespace optiq::cli {
namespace {

// errno of the first write to stdout that failed: stdio forgets it.
int stdout_error = 0;

void remember(bool is_written) {
  if (!is_written && stdout_error == 0) {
    stdout_error = errno;
  }
}

} // namespace

void hold_standard_streams() {
  // A folder can be neither read nor written. open takes the lowest free
  // number, so that the three are looked at in order.
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) < 0) {
      ::open("/", O_RDONLY | O_DIRECTORY);
    }
  }
}

void flush_stdout() {
  remember(std::fflush(stdout) == 0);
  if (stdout_error == EPIPE) {
    throw ReaderGone();
  }
  if (stdout_error != 0) {
    fail(
        stdout_error == ENOSPC ? ErrorKind::Exhausted : ErrorKind::Io,
        "[stdout] what was printed did not arrive: {}. Free some space or "
        "write elsewhere",
        std::generic_category().message(stdout_error));
  }
}

void write_result(
    const std::string& file,
    std::string_view content,
    const std::filesystem::path& model) {
  io::require_apart_from_model(file, model);
  remember(std::fflush(stdout) == 0); // a failure shows at the end
  write_named_file(file, content);
}

void write_text(std::FILE* stream, std::string_view text) {
  const bool is_written =
      std::fwrite(text.data(), 1, text.size(), stream) == text.size();
  if (stream == stdout) {
    remember(is_written);
  }
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
  flush_stdout();
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
