#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sstream>
#include <string>
#include <system_error>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/mapping_guard.h"
#include "optiq/base/system.h"
#include "optiq/cli/app.h"
#include "optiq/cli/output.h"
#include "optiq/kernels/machine.h"

namespace {

/** A sentence on stderr, and the exit code of the error's kind. */
int report(optiq::ErrorKind kind, const char* message) {
  std::fflush(stdout); // what was printed comes before the error
  optiq::cli::print_error("optiq: {}\n", message);
  return optiq::exit_code(kind);
}

int run(int argc, char** argv) {
  optiq::share_one_heap();
  if (const char* target = std::getenv("OPTIQ_SIMD")) {
    optiq::kernels::force_simd_target(target);
  }
  const auto app = optiq::cli::make_app();
  try {
    app->parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::ostringstream out;
    std::ostringstream err;
    const int code = app->exit(e, out, err);
    optiq::cli::print_lines(stdout, out.str());
    optiq::cli::print_lines(stderr, err.str());
    return code == 0 ? 0 : optiq::exit_code(optiq::ErrorKind::InvalidInput);
  }
  return 0;
}

int run_and_report(int argc, char** argv) {
  try {
    const int code = run(argc, argv);
    optiq::cli::flush_stdout();
    return code;
  } catch (const optiq::cli::ReaderGone&) {
    return optiq::cli::kReaderGoneExitCode;
  } catch (const optiq::Error& e) {
    return report(e.kind(), e.what());
  } catch (const std::bad_alloc&) {
    return report(optiq::ErrorKind::Exhausted, "out of memory");
  } catch (const std::system_error& e) {
    if (e.code() != std::errc::resource_unavailable_try_again) {
      return report(optiq::ErrorKind::Internal, e.what());
    }
    return report(
        optiq::ErrorKind::Exhausted,
        "the system gave no further thread, found its memory or number of "
        "threads at an end. Close other programs, raise the limit (ulimit -v, "
        "-u), or ask for fewer (--threads)");
  } catch (const std::exception& e) {
    return report(optiq::ErrorKind::Internal, e.what());
  }
}

} // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  optiq::cli::hold_standard_streams();
  optiq::guard_mappings();
  const int code = run_and_report(argc, argv);
  // Without exit handlers: OpenBLAS's waits for its threads, and those never
  // end where the address space is short (they retry a 128 MB allocation).
  std::fflush(nullptr);
  _exit(code);
}
