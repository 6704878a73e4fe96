// Times decode steps of 8 sequences with and without adapters, and what it
// takes to switch between resident ones:
//
//   bench_adapters MODEL [--device NAME] [--steps N] [--resident N] [--profile]
//
// Each of the 8 rows has an adapter of its own, rank 16, at random values.
// Base and adapted steps take turns, so that other work on the machine meets
// both; medians are compared, and the fastest steps, which nothing disturbed. A
// step ends with the tokens of greedy answers. The bandwidth is the host's or
// the first card's.
// Checked first: a row's logits in the batch are those of its sequence alone,
// bit for bit, and not the base's.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <unistd.h>

#include "support.h"

#include "optiq/adapters/adapter_files.h"
#include "optiq/adapters/adapter_set.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/kernels/cuda/cuda_device.h"
#include "optiq/kernels/devices.h"
#include "optiq/kernels/machine.h"
#include "optiq/kernels/profile.h"
#include "optiq/models/forward.h"

namespace {

namespace fs = std::filesystem;
namespace mx = mlx::core;
using namespace optiq;

constexpr int kRows = 8;
constexpr int kRank = 16;
// Tokens of each sequence before the steps: so few that cards, too, give a row
// the same bits in a batch.
constexpr int kPrompt = 8;
constexpr std::size_t kBandwidthBytes = std::size_t{256} << 20;

struct Options {
  std::string model;
  std::string device = "cpu";
  int steps = 200;
  int resident = 100; // adapters to switch between; 0: none
  bool profiles = false; // where the time of steps goes
};

using Adapters = std::vector<std::shared_ptr<const nn::Adapter>>;
using Parts = std::vector<std::string>;

const Parts kTwo{"q_proj", "v_proj"};
const Parts kSeven{
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj"};

std::vector<adapters::AdapterUpdate>
random_updates(const models::Model& model, const Parts& parts, unsigned seed) {
  std::vector<adapters::AdapterUpdate> updates;
  for (const models::Module& module : model.modules()) {
    for (const std::string& part : parts) {
      if (module.name.ends_with(part)) {
        updates.push_back(
            {.module = module.name,
             .a = bench::normal_array(
                 {kRank, module.matrix.in_features()}, ++seed),
             .b = bench::normal_array(
                 {kRank, module.matrix.out_features()}, ++seed),
             .scale = 1e-3f});
      }
    }
  }
  return updates;
}

/** A folder with an adapter, which goes with it. */
class Folder {
 public:
  Folder(const models::Model& model, const Parts& parts, unsigned seed)
      : path_(
            fs::temp_directory_path() /
            ("bench_adapters." + std::to_string(::getpid()))) {
    fs::create_directories(path_);
    adapters::write_adapter(
        {.updates = random_updates(model, parts, seed),
         .record = artifacts::Json::object()},
        path_);
  }
  ~Folder() {
    fs::remove_all(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const fs::path& path() const {
    return path_;
  }

 private:
  fs::path path_;
};

/** Sequences of equal length that decode together. */
class Batch {
 public:
  explicit Batch(const models::Setup& setup) : setup_(setup) {
    const auto pool = std::make_shared<cache::BlockPool>(
        std::size_t{1} << 30, setup.model->device());
    for (int i = 0; i < kRows; ++i) {
      sequences_.push_back(
          std::make_unique<cache::Sequence>(pool, setup.layout));
    }
  }

  /** Logits of the last of n tokens of sequences [first, end). */
  mx::array
  run(const Adapters& adapters, int n_tokens, int first = 0, int end = kRows) {
    models::Forward forward(setup_);
    std::vector<std::vector<std::int32_t>> tokens(kRows);
    const std::vector<int> wanted{n_tokens - 1};
    for (int i = first; i < end; ++i) {
      for (int k = 0; k < n_tokens; ++k) {
        tokens[i].push_back(100 + (7 * i + 13 * k) % 1000);
      }
      forward.add(
          *sequences_[i],
          tokens[i],
          wanted,
          adapters.empty() ? nullptr : adapters[i].get());
    }
    return forward.run();
  }
  /** The same of all, with the next tokens. */
  void step(const Adapters& adapters) {
    setup_.model->device().argmax(run(adapters, 1));
  }

 private:
  const models::Setup& setup_;
  std::vector<std::unique_ptr<cache::Sequence>> sequences_;
};

/** Ends the program unless every row is what its sequence gives alone, and is
 * not what the base gives. */
void verify(const models::Setup& setup, const Adapters& adapters) {
  kernels::Device& device = setup.model->device();
  const auto logits_of = [&](const Adapters& of, int first, int end) {
    return device.to_host(Batch(setup).run(of, kPrompt, first, end));
  };
  const kernels::HostRows together = logits_of(adapters, 0, kRows);
  const kernels::HostRows base = logits_of({}, 0, kRows);
  for (int i = 0; i < kRows; ++i) {
    const kernels::HostRows alone = logits_of(adapters, i, i + 1);
    const auto differs = [&](std::span<const float> row) {
      return std::memcmp(
                 row.data(), together.row(i).data(), row.size_bytes()) != 0;
    };
    if (differs(alone.row(0)) || !differs(base.row(i))) {
      std::fprintf(stderr, "row %d: not its own adapter's logits\n", i);
      std::exit(1);
    }
  }
}

/** Seconds of steps, base and adapted in turns, sorted. */
struct Steps {
  std::vector<double> base;
  std::vector<double> adapted;
};

Steps time_steps(
    const models::Setup& setup,
    const Adapters& adapters,
    int steps) {
  Batch base(setup);
  Batch adapted(setup);
  base.run({}, kPrompt);
  adapted.run(adapters, kPrompt);
  Steps seconds;
  for (int i = 0; i < steps; ++i) {
    seconds.base.push_back(bench::time_runs(1, [&] { base.step({}); }).median);
    seconds.adapted.push_back(
        bench::time_runs(1, [&] { adapted.step(adapters); }).median);
  }
  std::sort(seconds.base.begin(), seconds.base.end());
  std::sort(seconds.adapted.begin(), seconds.adapted.end());
  return seconds;
}

void print_steps(
    const char* name,
    double base,
    double adapted,
    double adapter_seconds) {
  std::printf(
      "  %s step %.3f ms, base %.3f ms: %.1f %% of the base's tokens/s, %.2f x "
      "(base + adapters)\n",
      name,
      1e3 * adapted,
      1e3 * base,
      100 * base / adapted,
      adapted / (base + adapter_seconds));
}

std::size_t bytes_of(const Adapters& adapters) {
  std::size_t bytes = 0;
  for (const auto& adapter : adapters) {
    for (const auto& [module, update] : adapter->updates) {
      bytes += update.a.nbytes() + update.b.nbytes();
    }
  }
  return bytes;
}

void print_profile(const models::Setup& setup, const Adapters& adapters) {
  Batch batch(setup);
  batch.run(adapters, kPrompt);
  kernels::OpProfile profile;
  constexpr int kSteps = 20;
  for (int i = 0; i < kSteps; ++i) {
    batch.step(adapters);
  }
  for (const kernels::OpTotal& total : profile.totals()) {
    std::printf(
        "    %-18s %6d x %5d %8.1f us a step\n",
        std::string(total.key.name).c_str(),
        total.key.out,
        total.key.in,
        1e6 * total.seconds / kSteps);
  }
}

void time_parts(
    const models::Setup& setup,
    const Parts& parts,
    const Options& options) {
  adapters::AdapterSet set(setup.model);
  Adapters adapters;
  for (int i = 0; i < kRows; ++i) {
    const std::string id = std::to_string(i);
    const Folder folder(*setup.model, parts, 1000u * (i + 1));
    adapters::mount_adapter(set, id, folder.path());
    adapters.push_back(set.find(id));
  }
  verify(setup, adapters);
  const int steps = options.steps;
  const Steps found = time_steps(setup, adapters, steps);
  const bool is_on_card = options.device.starts_with("cuda");
  const double bandwidth = is_on_card
      ? kernels::measure_cuda_read_bandwidth(0)
      : kernels::measure_read_bandwidth(kBandwidthBytes, 5);
  const auto bytes = static_cast<double>(bytes_of(adapters));
  std::printf(
      "%zu modules of a layer, adapters %.1f MB at %.1f GB/s\n",
      parts.size(),
      1e-6 * bytes,
      1e-9 * bandwidth);
  const double read = bytes / bandwidth;
  print_steps("median ", found.base[steps / 2], found.adapted[steps / 2], read);
  print_steps("fastest", found.base.front(), found.adapted.front(), read);
  if (options.profiles) {
    std::printf("  base\n");
    print_profile(setup, {});
    std::printf("  adapted\n");
    print_profile(setup, adapters);
  }
}

/** Resident bytes of this process. */
std::size_t resident_bytes() {
  std::size_t total = 0;
  std::size_t resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr || std::fscanf(file, "%zu %zu", &total, &resident) != 2) {
    std::fprintf(stderr, "cannot read /proc/self/statm\n");
    std::exit(1);
  }
  std::fclose(file);
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

void time_switching(const models::Setup& setup, int n) {
  adapters::AdapterSet set(
      setup.model, {.max_resident_bytes = std::size_t{4} << 30});
  const Folder folder(*setup.model, kSeven, 1);
  const auto mount = [&](int i) {
    adapters::mount_adapter(set, std::to_string(i), folder.path());
  };
  mount(0); // what the first one makes ready
  adapters::unmount_adapter(set, "0");
  const std::size_t before = resident_bytes();
  for (int i = 0; i < n; ++i) {
    mount(i);
  }
  const auto taken = static_cast<double>(resident_bytes() - before);
  const auto list = adapters::list_adapters(set);
  double in_bf16 = 0;
  for (const adapters::MountedAdapter& adapter : list) {
    in_bf16 += 2.0 * static_cast<double>(adapter.parameters);
  }
  int next = 0;
  const bench::Timing timing = bench::time_runs(2000, [&] {
    const adapters::AdapterActivation active(
        set, std::to_string(next++ * 37 % n));
  });
  std::printf(
      "%d resident adapters: switching %.1f us (at most %.1f us), each %.2f MB, "
      "%.2f x its parameters in bf16\n",
      n,
      1e6 * timing.median,
      1e6 * timing.slowest,
      1e-6 * taken / n,
      taken / in_bf16);
}

} // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--profile") {
      options.profiles = true;
    } else if (i + 1 < argc && flag == "--device") {
      options.device = argv[++i];
    } else if (i + 1 < argc && flag == "--steps") {
      options.steps = std::atoi(argv[++i]);
    } else if (i + 1 < argc && flag == "--resident") {
      options.resident = std::atoi(argv[++i]);
    } else {
      options.model = flag;
    }
  }
  try {
    const std::shared_ptr<const models::Model> model = models::load_model(
        io::ModelDirectory::open(options.model),
        kernels::find_device(options.device));
    const models::Setup setup(model, kernels::Compute::Fast);
    std::printf(
        "%s, %s, %d cores, %s: %d rows, rank %d, %d steps\n",
        model->device().name(),
        kernels::simd_target().c_str(),
        usable_cores(),
        options.model.c_str(),
        kRows,
        kRank,
        options.steps);
    time_parts(setup, kTwo, options);
    time_parts(setup, kSeven, options);
    if (options.resident > 0) {
      time_switching(setup, options.resident);
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return exit_code(error.kind());
  }
  return 0;
}
