// Times training beside the prefill of the same rows, and says where it goes.
//
//   bench_training MODEL [--rows T] [--threads N] [--rank R] [--profile]
//
// MODEL is a directory or a GGUF file. An adapter of every linear of the
// layers; labels for all rows. Verified first: layers that run again change no
// bit of the gradients.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support.h"

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/kernels/machine.h"
#include "optiq/kernels/profile.h"
#include "optiq/models/checkpoint.h"
#include "optiq/models/forward.h"
#include "optiq/train/backpropagation.h"
#include "optiq/train/rank_plan.h"

namespace {

using optiq::kernels::Compute;
using optiq::models::Setup;
using optiq::nn::Adapter;
using optiq::train::Backpropagation;
using optiq::train::Example;

struct Options {
  std::string model;
  int rows = 512;
  int rank = 8;
  bool profiles = false;
};

constexpr int kRuns = 5;

Adapter make_adapter(const Setup& setup, int rank) {
  Adapter adapter;
  unsigned seed = 1;
  for (const auto& module : optiq::train::plan_ranks(
           *setup.model,
           {},
           {.rank = rank, .scaling = optiq::train::RankScaling::Constant})) {
    adapter.updates.insert(
        {module.module,
         {.a = bench::normal_array({module.rank, module.in}, ++seed),
          .b = bench::normal_array({module.rank, module.out}, ++seed),
          .scale = 1e-4f}});
  }
  return adapter;
}

Example make_example(int rows, int vocab_size) {
  std::mt19937 random(3);
  std::uniform_int_distribution<std::int32_t> any(0, vocab_size - 1);
  Example example;
  for (int t = 0; t < rows; ++t) {
    example.tokens.push_back(any(random));
    example.labels.push_back(any(random));
    example.weights.push_back(1.f / static_cast<float>(rows));
  }
  return example;
}

bool same_gradients(const optiq::train::Loss& a, const optiq::train::Loss& b) {
  for (const auto& [name, gradient] : a.gradients) {
    const auto& other = b.gradients.at(name);
    if (std::memcmp(
            optiq::io::floats(gradient.a).data(),
            optiq::io::floats(other.a).data(),
            gradient.a.nbytes()) != 0) {
      return false;
    }
  }
  return std::isfinite(a.sum) && a.sum == b.sum;
}

void print(const char* what, const bench::Timing& timing, int rows) {
  std::printf(
      "%-28s %8.1f tokens/s (%.1f to %.1f)\n",
      what,
      rows / timing.median,
      rows / timing.slowest,
      rows / timing.fastest);
}

void print_profile(
    Backpropagation& training,
    const Example& example,
    const Adapter& adapter) {
  const optiq::kernels::OpProfile profile;
  training.run({&example, 1}, adapter);
  for (const auto& total : profile.totals()) {
    std::printf(
        "  %-26s %6d x %6d %2d bits %6d calls %8.1f ms\n",
        std::string(total.key.name).c_str(),
        total.key.out,
        total.key.in,
        total.key.bits,
        static_cast<int>(total.calls),
        1e3 * total.seconds);
  }
}

int run(const Options& options) {
  const auto model =
      std::shared_ptr<const optiq::models::Model>(optiq::models::load_model(
          optiq::io::ModelDirectory::open(options.model)));
  const Setup exact(model, Compute::Exact);
  const Setup fast(model, Compute::Fast);
  const Adapter adapter = make_adapter(exact, options.rank);
  const Example example = make_example(options.rows, model->info().vocab_size);
  Backpropagation kept(exact);
  Backpropagation again(exact, {.recomputes_layers = true});
  if (!same_gradients(
          kept.run({&example, 1}, adapter),
          again.run({&example, 1}, adapter))) {
    std::printf("the gradients differ where layers run again\n");
    return 1;
  }
  std::printf(
      "%s, %s, %d threads, %d rows, rank %d\n",
      options.model.c_str(),
      optiq::kernels::simd_target().c_str(),
      optiq::ThreadPool::shared().size(),
      options.rows,
      options.rank);
  const auto prefill = [&](const Setup& setup) {
    return bench::time_runs(kRuns, [&] {
      optiq::models::Forward forward(setup);
      forward.add_fresh(example.tokens);
      forward.hidden_states();
    });
  };
  print("prefill, fast", prefill(fast), options.rows);
  print("prefill, exact", prefill(exact), options.rows);
  print(
      "training",
      bench::time_runs(
          kRuns,
          [&] {
            kept.run({&example, 1}, adapter);
          }),
      options.rows);
  print(
      "training, layers run again",
      bench::time_runs(
          kRuns,
          [&] {
            again.run({&example, 1}, adapter);
          }),
      options.rows);
  if (options.profiles) {
    print_profile(kept, example, adapter);
  }
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto number = [&] { return std::atoi(argv[++i]); };
    if (flag == "--profile") {
      options.profiles = true;
    } else if (i + 1 < argc && flag == "--rows") {
      options.rows = number();
    } else if (i + 1 < argc && flag == "--rank") {
      options.rank = number();
    } else if (i + 1 < argc && flag == "--threads") {
      optiq::ThreadPool::shared().resize(number());
    } else {
      options.model = flag;
    }
  }
  try {
    return run(options);
  } catch (const optiq::Error& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
