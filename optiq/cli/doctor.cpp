#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <dlfcn.h>
#include <fmt/ranges.h>

#include "optiq/artifacts/json.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/output.h"
#include "optiq/io/mlx_version.h"
#include "optiq/kernels/cuda/cuda_device.h"
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
  std::vector<kernels::cuda::CardInfo> cards;
  std::string why_no_cuda; // empty where the first card runs models
  double card_bandwidth = 0; // bytes read per second by the first card
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

/** Cards that the driver knows; none without a driver. */
std::vector<kernels::cuda::CardInfo> known_cards() {
  try {
    return kernels::cuda_cards();
  } catch (const Error&) {
    return {}; // why_no_cuda says it
  }
}

Diagnosis diagnose() {
  const std::string why_no_cuda = kernels::why_no_cuda();
  return {
      .mlx_built = io::built_mlx_version(),
      .mlx_loaded = io::loaded_mlx_version(),
      .blas = path_of_blas(),
      .mlx_device = kernels::find_device("mlx").arithmetic(),
      .auto_device = kernels::find_device("auto").name(),
      .cards = known_cards(),
      .why_no_cuda = why_no_cuda,
      .card_bandwidth =
          why_no_cuda.empty() ? kernels::measure_cuda_read_bandwidth(0) : 0.0,
      .simd_target = kernels::simd_target(),
      .simd_targets = kernels::simd_targets(),
      .system = system_info()};
}

artifacts::Json json_of_cards(const Diagnosis& d) {
  artifacts::Json cards = artifacts::Json::array();
  for (const kernels::cuda::CardInfo& card : d.cards) {
    cards.push_back(
        {{"name", card.name},
         {"compute_capability", fmt::format("{}.{}", card.major, card.minor)},
         {"total_bytes", card.total_bytes}});
  }
  return {
      {"cards", cards},
      {"why_not", d.why_no_cuda},
      {"read_bytes_per_second", d.card_bandwidth}};
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
      {"cuda", json_of_cards(d)},
      {"simd_target", d.simd_target},
      {"simd_targets", d.simd_targets},
      {"cpu", d.system.cpu},
      {"cores", d.system.cores},
      {"total_ram_bytes", d.system.total_ram_bytes},
      {"available_ram_bytes", d.system.available_ram_bytes}};
  print_json_document(json);
}

void print_cards(const Diagnosis& d) {
  for (const kernels::cuda::CardInfo& card : d.cards) {
    print(
        "card     cuda:{}: {}, sm_{}{}, {} multiprocessors, {}\n",
        card.index,
        card.name,
        card.major,
        card.minor,
        card.multiprocessors,
        artifacts::format_size(card.total_bytes));
  }
  if (d.why_no_cuda.empty()) {
    print("card     cuda:0 reads {:.0f} GB/s\n", d.card_bandwidth / 1e9);
  } else {
    print("card     not used: {}\n", d.why_no_cuda);
  }
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
  print_cards(d);
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
