#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/resource.h>

#include "optiq/artifacts/module_id.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/base/thread_pool.h"
#include "optiq/base/version.h"
#include "optiq/cli/adapter_option.h"
#include "optiq/cli/bench_profile.h"
#include "optiq/cli/bench_round.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/kv_options.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/eval/kl.h"
#include "optiq/generate/engine.h"
#include "optiq/kernels/devices.h"
#include "optiq/kernels/machine.h"
#include "optiq/models/forward.h"
#include "optiq/quant/calibration.h"

namespace optiq::cli {
namespace {

namespace mx = mlx::core;

using Tokens = std::vector<std::int32_t>;

// More than the last-level caches of the machines we know.
constexpr std::size_t kBandwidthBytes = std::size_t{256} << 20;
constexpr int kBandwidthRepeats = 5;
constexpr std::uint64_t kSeed = 1; // of the token ids
constexpr int kKlTokens = 256;
// Of logits that differ by rounding: bfloat16's through many layers. A token at
// a wrong position moves them by as much as they are.
constexpr double kMaxDistance = 0.05;

struct BenchFlags {
  std::string model;
  int prompt = 512;
  int gen = 128;
  int batch = 1;
  int context = 0;
  int repeats = 5;
  kernels::Compute compute = kernels::Compute::Fast;
  std::string device = "auto";
  bool profile = false;
  KvFlags kv;
  std::vector<std::string> adapters;
  std::string json;
};

/**
 * Tokens per second of the runs that count. A run during which the process
 * lost a core to another one is disturbed: it is repeated, up to as many times
 * as there are repeats, and counts only when no run was undisturbed.
 */
struct Samples {
  std::vector<double> tokens_per_second;
  bool disturbed = false; // every run was
  int runs = 0; // in all
};

struct Result {
  double load_seconds = 0;
  std::uint64_t peak_rss = 0; // without what the bandwidth probe takes
  Samples prefill;
  Samples decode;
  std::optional<double> kl_to_exact; // mean nats, of the arithmetic in use
  std::optional<WorkProfile> prefill_profile;
  std::optional<WorkProfile> decode_profile;
  double read_bandwidth = 0; // bytes per second
  double bytes_per_token = 0;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/** |a - b| / |b|: 0 for equal values only. */
double distance(std::span<const float> a, std::span<const float> b) {
  double difference = 0;
  double size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  return difference == 0 ? 0 : std::sqrt(difference / size);
}

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

/** Times that this process lost a core to another one. */
long involuntary_switches() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nivcsw;
}

/** Tokens of one sequence in the decode runs: while the contexts of a batch are
 * computed, the first ones answer already. */
int decode_tokens(const BenchFlags& flags) {
  const int context = std::max(1, flags.context);
  const int chunk = generate::EngineOptions{}.prefill_chunk;
  const int steps_before = flags.batch * (1 + context / chunk);
  return context + steps_before + flags.gen;
}

int longest_sequence(const BenchFlags& flags) {
  return std::max(flags.prompt + 1, decode_tokens(flags));
}

std::size_t cache_bytes(const models::Setup& setup, const BenchFlags& flags) {
  return cache::sequence_bytes(
             setup.layout,
             static_cast<std::size_t>(longest_sequence(flags)),
             generate::EngineOptions{}.prefill_chunk) *
      static_cast<std::size_t>(flags.batch);
}

/** What a decode step reads, per token: every matrix that all tokens share
 * (of an untied embedding only rows) and what adapters add, K/V at the mean
 * length, states. */
double bytes_per_token(const models::Setup& setup, const BenchFlags& flags) {
  const models::Model& model = *setup.model;
  std::uint64_t weights = 0;
  for (const models::Module& module : model.modules()) {
    const artifacts::ModuleRole role = module.id.role;
    const bool only_rows = role == artifacts::ModuleRole::LayerInputEmbedding ||
        (role == artifacts::ModuleRole::Embedding && !model.info().tied_head);
    if (!only_rows) {
      weights += module.matrix.nbytes();
    }
  }
  if (setup.adapter != nullptr) {
    for (const auto& [module, update] : setup.adapter->updates) {
      weights += update.a.nbytes() + update.b.nbytes();
    }
  }
  const int length = flags.context + flags.gen / 2;
  return static_cast<double>(weights) / flags.batch +
      static_cast<double>(cache::read_bytes(setup.layout, length));
}

class Bench {
 public:
  Bench(const models::Setup& setup, const BenchFlags& flags)
      : flags_(flags),
        engine_(
            setup,
            {.prefill_chunk_beside_answers =
                 generate::EngineOptions{}.prefill_chunk,
             .max_cache_bytes = cache_bytes(setup, flags),
             .max_running = flags.batch}),
        random_(kSeed) {}

  /** A prefill in one piece must give the logits of one that ends token by
   * token, bit for bit where the device promises it; a wrong engine has no
   * speed. */
  void verify() {
    const auto& layout = engine_.setup().layout;
    const auto pool = std::make_shared<cache::BlockPool>(
        2 * cache_bytes(engine_.setup(), flags_), engine_.model().device());
    const Tokens tokens = random_tokens(flags_.prompt);
    const std::span<const std::int32_t> all = tokens;
    cache::Sequence whole(pool, layout);
    const kernels::HostRows expected = feed(whole, all);
    cache::Sequence parts(pool, layout);
    const std::size_t cut = all.size() - std::min<std::size_t>(3, all.size());
    if (cut > 0) {
      feed(parts, all.first(cut));
    }
    kernels::HostRows found = expected;
    for (std::size_t i = cut; i < all.size(); ++i) {
      found = feed(parts, all.subspan(i, 1));
    }
    const bool exact = engine_.model().device().has_exact_rows();
    const double off = distance(found.all(), expected.all());
    if (!(off <= (exact ? 0 : kMaxDistance))) {
      fail(
          ErrorKind::Internal,
          "[bench] the logits after {} tokens depend on how they were fed, by "
          "{} of their size, expected {}. Please report this",
          tokens.size(),
          off,
          exact ? "equal bits" : "rounding");
    }
  }

  Samples measure_prefill() {
    return measure(1.0 * flags_.prompt * flags_.batch, [&] {
      BenchRound round = start_prefill();
      return prefill(round);
    });
  }

  Samples measure_decode() {
    return measure(1.0 * flags_.gen * flags_.batch, [&] {
      BenchRound round = start_decode();
      return decode(round);
    });
  }

  BenchRound start_prefill() {
    return BenchRound(engine_, random_tokens(flags_.prompt), flags_.batch, 1);
  }
  /** Seconds of one prefill of each sequence. */
  static double prefill(BenchRound& round) {
    return seconds_of([&] { round.prefill(); });
  }

  /** With all contexts computed. */
  BenchRound start_decode() {
    const int context = std::max(1, flags_.context);
    return BenchRound(
        engine_,
        random_tokens(static_cast<std::size_t>(context)),
        flags_.batch,
        decode_tokens(flags_) - context,
        true);
  }
  /** Seconds of the steps. */
  double decode(BenchRound& round) const {
    return seconds_of([&] {
      for (int i = 0; i < flags_.gen; ++i) {
        round.step();
      }
    });
  }

 private:
  /** Logits of the last of these tokens. */
  kernels::HostRows feed(
      cache::Sequence& sequence,
      std::span<const std::int32_t> tokens) const {
    const auto chunk =
        static_cast<std::size_t>(engine_.options().prefill_chunk);
    for (; tokens.size() > chunk; tokens = tokens.subspan(chunk)) {
      models::Forward(engine_.setup()).add(sequence, tokens.first(chunk)).run();
    }
    const int last = static_cast<int>(tokens.size()) - 1;
    return engine_.model().device().to_host(
        models::Forward(engine_.setup())
            .add(sequence, tokens, {&last, 1})
            .run());
  }

  /** One run that is not counted, then the repeats. */
  Samples measure(double tokens, const std::function<double()>& run) {
    run();
    Samples samples;
    std::vector<double> disturbed;
    const auto repeats = static_cast<std::size_t>(flags_.repeats);
    while (samples.tokens_per_second.size() < repeats &&
           samples.runs < 2 * flags_.repeats) {
      const long before = involuntary_switches();
      const double speed = tokens / run();
      const bool clean = involuntary_switches() == before;
      (clean ? samples.tokens_per_second : disturbed).push_back(speed);
      ++samples.runs;
    }
    if (samples.tokens_per_second.empty()) {
      samples.tokens_per_second = std::move(disturbed);
      samples.disturbed = true;
    }
    return samples;
  }

  Tokens random_tokens(std::size_t n) {
    const auto vocab =
        static_cast<std::uint64_t>(engine_.model().info().vocab_size);
    Tokens tokens(n);
    for (std::int32_t& token : tokens) {
      token = static_cast<std::int32_t>(random_() % vocab);
    }
    return tokens;
  }

  const BenchFlags& flags_;
  generate::Engine engine_;
  std::mt19937_64 random_;
};

double bandwidth_fraction(const Result& result) {
  return median(result.decode.tokens_per_second) * result.bytes_per_token /
      result.read_bandwidth;
}

void add_samples(
    artifacts::Json& json,
    const std::string& name,
    const Samples& samples) {
  const auto [low, high] = std::minmax_element(
      samples.tokens_per_second.begin(), samples.tokens_per_second.end());
  json[name + "_tokens_per_second"] = median(samples.tokens_per_second);
  json[name + "_spread"] = {*low, *high};
  json[name + "_runs"] = samples.runs;
  json[name + "_runs_counted"] = samples.tokens_per_second.size();
  json[name + "_disturbed"] = samples.disturbed;
}

artifacts::Json to_json(const BenchFlags& flags, const Result& result) {
  artifacts::Json json;
  json["model"] = flags.model;
  add_samples(json, "prefill", result.prefill);
  add_samples(json, "decode", result.decode);
  json["bytes_per_token"] = result.bytes_per_token;
  json["read_bandwidth"] = result.read_bandwidth;
  json["bandwidth_fraction"] = bandwidth_fraction(result);
  if (result.kl_to_exact) {
    json["kl_to_exact"] = *result.kl_to_exact;
  }
  if (result.prefill_profile) {
    json["prefill_profile"] = to_json(*result.prefill_profile);
    json["decode_profile"] = to_json(*result.decode_profile);
  }
  json["prompt"] = flags.prompt;
  json["gen"] = flags.gen;
  json["batch"] = flags.batch;
  json["context"] = flags.context;
  json["kv"] = describe_kv(flags.kv);
  json["adapters"] = flags.adapters;
  json["repeats"] = flags.repeats;
  json["compute"] = name_of(flags.compute);
  json["threads"] = ThreadPool::shared().size();
  json["device"] = kernels::find_device(flags.device).name();
  json["simd"] = kernels::simd_target();
  json["cpu"] = system_info().cpu;
  json["version"] = kVersion;
  json["load_seconds"] = result.load_seconds;
  json["peak_rss_bytes"] = result.peak_rss;
  return json;
}

void print_samples(const char* name, const Samples& samples) {
  const auto [low, high] = std::minmax_element(
      samples.tokens_per_second.begin(), samples.tokens_per_second.end());
  print(
      "{:<16} {:.1f} tokens/s ({:.1f} to {:.1f}; {} of {} runs count{})\n",
      name,
      median(samples.tokens_per_second),
      *low,
      *high,
      samples.tokens_per_second.size(),
      samples.runs,
      samples.disturbed ? ", all DISTURBED by other processes" : "");
}

void print_result(const BenchFlags& flags, const Result& result) {
  print(
      "{}: {} arithmetic, {} K/V cache, device {}, {}, {} threads, batch {}, "
      "context {}, medians of {}\n",
      flags.model,
      name_of(flags.compute),
      describe_kv(flags.kv),
      kernels::find_device(flags.device).name(),
      kernels::simd_target(),
      ThreadPool::shared().size(),
      flags.batch,
      flags.context,
      flags.repeats);
  print_samples(
      fmt::format("prefill {}", flags.prompt).c_str(), result.prefill);
  print_samples(fmt::format("decode {}", flags.gen).c_str(), result.decode);
  print(
      "{:<16} {} read per token, {:.0f} % of {:.1f} GB/s measured here\n",
      "bandwidth",
      artifacts::format_size(
          static_cast<std::uint64_t>(result.bytes_per_token)),
      100 * bandwidth_fraction(result),
      result.read_bandwidth / 1e9);
  print(
      "{:<16} {:.2f} s to load, {} resident at most\n",
      "memory",
      result.load_seconds,
      artifacts::format_size(result.peak_rss));
  if (result.kl_to_exact) {
    print(
        "{:<16} {:.2e} nats to exact arithmetic, mean over {} tokens of text\n",
        "KL",
        *result.kl_to_exact,
        kKlTokens);
  } else if (flags.compute != kernels::Compute::Exact) {
    print("{:<16} not measured: the model has no tokenizer\n", "KL");
  }
  if (result.prefill_profile) {
    print_profile("one prefill", *result.prefill_profile);
    print_profile(
        fmt::format("{} decode steps", flags.gen).c_str(),
        *result.decode_profile);
  }
}

void check_lengths(const models::Model& model, const BenchFlags& flags) {
  const int longest = longest_sequence(flags);
  if (longest > model.info().max_positions) {
    fail(
        ErrorKind::InvalidInput,
        "[bench] {} tokens in one sequence, expected at most the model's {} "
        "positions. Lower --prompt, --context, --gen or --batch",
        longest,
        model.info().max_positions);
  }
}

/** Mean KL of an arithmetic to the exact one on text (on random ids a model is
 * sure of nothing); nothing without a tokenizer. */
std::optional<double> measure_kl_to_exact(
    const io::ModelDirectory& directory,
    const models::Setup& setup,
    const BenchFlags& flags) {
  std::optional<quant::CalibrationEncoder> encoder;
  try {
    encoder = quant::make_calibration_encoder(directory);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::NotFound) {
      throw;
    }
    return std::nullopt;
  }
  const quant::Calibration text = quant::load_calibration(
      {.n_chunks = 1,
       .chunk_tokens = std::min(kKlTokens, setup.model->info().max_positions)},
      *encoder);
  const auto exact = with_adapters(
      make_setup(setup.model, kernels::Compute::Exact, flags.kv),
      flags.adapters);
  return eval::measure_kl(exact, setup, text.chunks, {}).mean_kl;
}

void run_bench(const BenchFlags& flags) {
  Result result;
  std::optional<models::Setup> loaded;
  std::optional<io::ModelDirectory> directory;
  result.load_seconds = seconds_of([&] {
    directory = open_model(flags.model);
    loaded = with_adapters(
        make_setup(
            load_checked(*directory, kernels::find_device(flags.device)),
            flags.compute,
            flags.kv),
        flags.adapters);
  });
  const models::Setup& setup = *loaded;
  check_lengths(*setup.model, flags);
  const kernels::Device& device = setup.model->device();
  if (flags.profile && std::string_view(device.name()) == "mlx") {
    fail(
        ErrorKind::Unsupported,
        "[bench] --profile on device {}: its operations run when all are asked "
        "for, and have no times of their own. Choose --device cpu or cuda",
        device.name());
  }
  kernels::require_bytes(
      device, 2 * cache_bytes(setup, flags), "the KV cache of the benchmark");
  Bench bench(setup, flags);
  bench.verify();
  result.prefill = bench.measure_prefill();
  result.decode = bench.measure_decode();
  result.peak_rss = peak_rss_bytes();
  result.read_bandwidth =
      kernels::measure_read_bandwidth(kBandwidthBytes, kBandwidthRepeats);
  result.bytes_per_token = bytes_per_token(setup, flags);
  if (flags.compute != kernels::Compute::Exact) {
    result.kl_to_exact = measure_kl_to_exact(*directory, setup, flags);
  }
  if (flags.profile) {
    BenchRound round = bench.start_prefill();
    result.prefill_profile = profile_work([&] { return bench.prefill(round); });
    BenchRound decoding = bench.start_decode();
    result.decode_profile =
        profile_work([&] { return bench.decode(decoding); });
  }
  print_result(flags, result);
  if (!flags.json.empty()) {
    write_result(
        flags.json,
        artifacts::dump_json(to_json(flags, result), 2),
        directory->path());
  }
}

} // namespace

void add_bench_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "bench", "Time prefill and decode against the machine's read bandwidth");
  auto flags = std::make_shared<BenchFlags>();
  const CLI::Range counts(1, 1 << 24);
  add_model_option(*command, flags->model);
  command->add_option("--prompt", flags->prompt, "Tokens of a prefill")
      ->check(counts)
      ->capture_default_str();
  command->add_option("--gen", flags->gen, "Tokens decoded per sequence")
      ->check(counts)
      ->capture_default_str();
  command->add_option("--batch", flags->batch, "Sequences decoded together")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      ->add_option(
          "--context", flags->context, "Tokens in the cache before decoding")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command->add_option("--repeats", flags->repeats, "Counted runs")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  add_compute_option(*command, flags->compute);
  add_device_option(*command, flags->device);
  add_kv_options(*command, flags->kv);
  add_adapter_option(*command, flags->adapters, kAdaptersToRunWith);
  add_threads_option(*command);
  command->add_flag(
      "--profile",
      flags->profile,
      "Also show the time per operation, of runs apart from the timed ones");
  add_file_option(
      *command, "--json", flags->json, "Write the result to this file");
  command->footer(
      "Feeds random tokens. A model that fits into the processor's caches can "
      "exceed\nthe bandwidth of memory.\n"
      "Example:\n"
      "  optiq bench DIR --prompt 512 --gen 128 --json bench.json");
  command->callback([flags] { run_bench(*flags); });
}

} // namespace optiq::cli
