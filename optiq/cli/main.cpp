#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sstream>
#include <string>

#include <CLI/CLI.hpp>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "optiq/base/error.h"
#include "optiq/base/mapping_guard.h"
#include "optiq/base/version.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/output.h"
#include "optiq/kernels/kernels.h"

namespace {

constexpr const char* kDescription =
    "Makes a large language model as good as it can be in a given number of "
    "bytes, and runs it.";

constexpr const char* kFooter = R"(Start here:
  optiq convert MODEL --target-bpw 4.5 --candidate-bits 4,8 -o OUT
  optiq generate OUT -p "What is 7 times 8?"
  optiq inspect OUT
Each command explains itself: optiq COMMAND --help)";

/** A sentence on stderr, and the exit code of the error's kind. */
int report(optiq::ErrorKind kind, const char* message) {
  std::fflush(stdout);
  optiq::cli::print_error("optiq: {}\n", message);
  return optiq::exit_code(kind);
}

/** One heap for all threads: glibc would reserve 64 MB of address space for
 * each thread that allocates, after a limit on it was checked. */
void share_one_heap() {
#ifdef __GLIBC__
  mallopt(M_ARENA_MAX, 1);
#endif
}

int run(int argc, char** argv) {
  share_one_heap();
  if (const char* target = std::getenv("OPTIQ_SIMD")) {
    optiq::kernels::force_simd_target(target);
  }
  CLI::App app(kDescription, "optiq");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string("optiq ") + optiq::kVersion);
  app.require_subcommand(1);
  optiq::cli::add_convert_command(app);
  optiq::cli::add_kv_cache_command(app);
  optiq::cli::add_generate_command(app);
  optiq::cli::add_eval_command(app);
  optiq::cli::add_bench_command(app);
  optiq::cli::add_inspect_command(app);
  optiq::cli::add_report_command(app);
  optiq::cli::add_list_command(app);
  optiq::cli::add_pull_command(app);
  optiq::cli::add_rm_command(app);
  optiq::cli::add_doctor_command(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::ostringstream out;
    std::ostringstream err;
    const int code = app.exit(e, out, err);
    optiq::cli::print_lines(stdout, out.str());
    optiq::cli::print_lines(stderr, err.str());
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
  optiq::guard_mappings();
  const int code = run_and_report(argc, argv);
  // Without exit handlers: OpenBLAS's waits for its threads, and those never
  // end where the address space is short (they retry a 128 MB allocation).
  std::fflush(nullptr);
  _exit(code);
}
