#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/cli/app.h"
#include "optiq/kernels/kernels.h"

namespace {

/** A sentence on stderr, and the exit code of the error's kind. */
int report(optiq::ErrorKind kind, const char* message) {
  std::fflush(stdout);
  std::fprintf(stderr, "optiq: %s\n", message);
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
    const int code = app->exit(e);
    return code == 0 ? 0 : optiq::exit_code(optiq::ErrorKind::InvalidInput);
  }
  return 0;
}

int run_and_report(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const optiq::Error& e) {
    return report(e.kind(), e.what());
  } catch (const std::bad_alloc&) {
    return report(optiq::ErrorKind::Exhausted, "out of memory");
  } catch (const std::exception& e) {
    return report(optiq::ErrorKind::Internal, e.what());
  }
}

} // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  const int code = run_and_report(argc, argv);
  // Without exit handlers: OpenBLAS's waits for its threads, and those never
  // end where the address space is short (they retry a 128 MB allocation).
  std::fflush(nullptr);
  _exit(code);
}
