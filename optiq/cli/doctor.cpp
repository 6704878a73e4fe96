#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <dlfcn.h>
#include <fmt/ranges.h>

#include "optiq/artifacts/json.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/system.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/output.h"
#include "optiq/io/mlx_version.h"
#include "optiq/kernels/devices.h"
#include "optiq/kernels/machine.h"

namespace optiq::cli {
namespace {

struct Diagnosis {
  std::string mlx_built;
  std::string mlx_loaded;
  std::string blas; // path of the library that answers MLX's cblas_sgemm
  std::string mlx_device; // where it runs
  std::string auto_device; // what --device auto takes
  std::string simd_target;
  std::vector<std::string> simd_targets;
  SystemInfo system;
};

std::string path_of_blas() {
  void* symbol = dlsym(RTLD_DEFAULT, "cblas_sgemm");
  Dl_info info{};
  if (symbol == nullptr || dladdr(symbol, &info) == 0) {
    return "";
  }
  return info.dli_fname;
}

Diagnosis diagnose() {
  return {
      .mlx_built = io::built_mlx_version(),
      .mlx_loaded = io::loaded_mlx_version(),
      .blas = path_of_blas(),
      .mlx_device = kernels::find_device("mlx").arithmetic(),
      .auto_device = kernels::find_device("auto").name(),
      .simd_target = kernels::simd_target(),
      .simd_targets = kernels::simd_targets(),
      .system = system_info()};
}

void print_json(const Diagnosis& d) {
  const artifacts::Json json = {
      {"mlx_built", d.mlx_built},
      {"mlx_loaded", d.mlx_loaded},
      {"blas", d.blas},
      {"devices",
       {{"cpu", d.simd_target},
        {"mlx", d.mlx_device},
        {"auto", d.auto_device}}},
      {"simd_target", d.simd_target},
      {"simd_targets", d.simd_targets},
      {"cpu", d.system.cpu},
      {"cores", d.system.cores},
      {"total_ram_bytes", d.system.total_ram_bytes},
      {"available_ram_bytes", d.system.available_ram_bytes}};
  print_json_document(json);
}

void print_lines(const Diagnosis& d) {
  using artifacts::format_size;
  print("MLX      {} (built against {})\n", d.mlx_loaded, d.mlx_built);
  print("BLAS     {}\n", d.blas.empty() ? "none found" : d.blas);
  print(
      "SIMD     {} (this machine runs {})\n",
      d.simd_target,
      fmt::join(d.simd_targets, ", "));
  print(
      "device   {} by itself; cpu ({}) and mlx ({}) by --device\n",
      d.auto_device,
      d.simd_target,
      d.mlx_device);
  print("CPU      {}, {} cores\n", d.system.cpu, d.system.cores);
  print(
      "RAM      {}, {} available\n",
      format_size(d.system.total_ram_bytes),
      format_size(d.system.available_ram_bytes));
}

} // namespace

void add_doctor_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "doctor", "Show the versions, libraries and hardware that optiq uses");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print one JSON object");
  command->callback([json] {
    const Diagnosis diagnosis = diagnose();
    *json ? print_json(diagnosis) : print_lines(diagnosis);
    // After the print: whoever meets the mismatch needs the rest as well.
    io::check_mlx_version(diagnosis.mlx_built, diagnosis.mlx_loaded);
  });
}

} // namespace optiq::cli
