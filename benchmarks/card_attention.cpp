// Times attention of one row to a long past on the first NVIDIA card, after
// checking it against the CPU's. Layers with a past of their own are attended
// to in turn, more of them than the card's caches hold. Prints, per format and
// shape: microseconds of the kernel alone (an event before and behind it, so
// with what a launch costs), of the one that places heads, and of both where
// launches follow each other; and what of the card's read bandwidth, measured
// in the same run, the second of them is.
//
//   bench_card_attention [context ...]     default: 512 8192 32768
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "support.h"

#include "optiq/kernels/cuda/cuda_device.h"
#include "optiq/kernels/devices.h"
#include "optiq/kernels/profile.h"

namespace {

namespace mx = mlx::core;
using bench::normal_array;
using optiq::kernels::AttentionRule;
using optiq::kernels::BlockId;
using optiq::kernels::BlockStore;
using optiq::kernels::Compute;
using optiq::kernels::Device;
using optiq::kernels::KvFormat;
using optiq::kernels::KvMethod;
using optiq::kernels::OpProfile;
using optiq::kernels::OpTotal;
using optiq::kernels::Segment;

constexpr int kBlockTokens = 64;
constexpr std::size_t kWorkingSet = std::size_t{400} << 20;
constexpr std::size_t kMostLayers = 200;
constexpr int kCheckedTokens = 1000; // a whole span, and a part of one
constexpr int kCalls = 200;

struct Shape {
  int n_heads;
  int n_kv_heads;
  int head_dim;
};

AttentionRule rule_of(const Shape& shape) {
  return {
      .n_heads = shape.n_heads,
      .n_kv_heads = shape.n_kv_heads,
      .head_dim = shape.head_dim,
      .scores = {.scale = 1.f / std::sqrt(static_cast<float>(shape.head_dim))}};
}

KvFormat
format_of(const Shape& shape, KvMethod method, double bits, Compute compute) {
  return {
      .n_kv_heads = shape.n_kv_heads,
      .head_dim = shape.head_dim,
      .codec = {.method = method, .key_bits = bits, .value_bits = bits},
      .compute = compute};
}

/** Queries, keys and values of `rows` tokens on a device. */
struct Rows {
  mx::array q;
  mx::array k;
  mx::array v;

  Rows(Device& device, const Shape& shape, int rows, unsigned seed)
      : q(random(device, rows, shape.n_heads * shape.head_dim, seed)),
        k(random(device, rows, shape.n_kv_heads * shape.head_dim, seed + 1)),
        v(random(device, rows, shape.n_kv_heads * shape.head_dim, seed + 2)) {}

 private:
  static mx::array random(Device& device, int rows, int width, unsigned seed) {
    return device.upload(normal_array({rows, width}, seed));
  }
};

/** Layers of one sequence, all with the same past of `context` tokens. */
class Layers {
 public:
  Layers(
      Device& device,
      const Shape& shape,
      KvFormat format,
      int context,
      std::size_t most)
      : device_(device),
        rule_(rule_of(shape)),
        format_(device.kv_format(std::move(format))),
        store_(device.make_block_store(std::size_t{64} << 20)),
        context_(context) {
    const std::size_t bytes = format_.block_bytes();
    const std::size_t blocks =
        (static_cast<std::size_t>(context) + kBlockTokens - 1) / kBlockTokens;
    layers_.resize(
        std::clamp<std::size_t>(kWorkingSet / (blocks * bytes), 1, most));
    const Rows rows(device, shape, kBlockTokens, 1);
    for (std::size_t b = 0; b < blocks; ++b) {
      for (std::vector<BlockId>& layer : layers_) {
        layer.push_back(store_->take(bytes));
      }
      const BlockId only[] = {layers_[0][b]};
      attend(rows, {.rows = kBlockTokens, .blocks = only});
      for (std::size_t i = 1; i < layers_.size(); ++i) {
        store_->copy(layers_[i][b], only[0], bytes);
      }
    }
  }

  mx::array attend(const Rows& rows, const Segment& segment) {
    return device_.attend(
        rows.q, rows.k, rows.v, rule_, {&segment, 1}, format_);
  }
  /** The last row of each layer in turn, `n` calls. */
  mx::array decode(const Rows& row, int n) {
    mx::array y = row.q;
    for (int i = 0; i < n; ++i) {
      y = attend(
          row,
          {.rows = 1,
           .start = context_ - 1,
           .blocks = layers_[static_cast<std::size_t>(i) % layers_.size()]});
    }
    return y;
  }
  double layer_bytes() const {
    return static_cast<double>(format_.block_bytes()) * context_ / kBlockTokens;
  }

 private:
  Device& device_;
  AttentionRule rule_;
  KvFormat format_;
  std::unique_ptr<BlockStore> store_;
  int context_;
  std::vector<std::vector<BlockId>> layers_; // blocks of each
};

/** Relative error of a row against the CPU's in `exact`; ends the program when
 * it is more than codes on the edge of two explain. */
double check(Device& card, const Shape& shape, const KvFormat& format) {
  const auto row_on = [&](Device& device, Compute compute) {
    KvFormat wanted = format;
    wanted.compute = compute;
    Layers layers(device, shape, wanted, kCheckedTokens, 1);
    const Rows row(device, shape, 1, 7);
    const optiq::kernels::HostRows y = device.to_host(layers.decode(row, 1));
    return std::vector<float>(y.all().begin(), y.all().end());
  };
  const std::vector<float> y = row_on(card, format.compute);
  const std::vector<float> expected =
      row_on(optiq::kernels::cpu_device(), Compute::Exact);
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    error += std::pow(y[i] - expected[i], 2);
    size += std::pow(expected[i], 2);
  }
  const double relative = std::sqrt(error / size);
  constexpr double kMost = 5e-3;
  if (!(relative <= kMost)) { // written so that NaN fails
    std::fprintf(stderr, "relative error %g\n", relative);
    std::exit(1);
  }
  return relative;
}

/** Seconds a call of the kernels whose names begin so. */
double seconds_of(const OpProfile& profile, std::string_view name) {
  double seconds = 0;
  for (const OpTotal& total : profile.totals()) {
    if (total.key.name.starts_with(name)) {
      seconds += total.seconds / kCalls;
    }
  }
  return seconds;
}

void bench_format(
    Device& card,
    const Shape& shape,
    const KvFormat& format,
    const std::string& name,
    int context,
    double bandwidth) {
  const double error = check(card, shape, format);
  Layers layers(card, shape, format, context, kMostLayers);
  const Rows row(card, shape, 1, 7);
  const auto run = [&] {
    const mx::array y = layers.decode(row, kCalls);
    card.to_host(y); // which waits
  };
  run();
  const bench::Timing together = bench::time_runs(5, run);
  OpProfile profile;
  run();
  const double attending = seconds_of(profile, "attend");
  const double placing = seconds_of(profile, "place_heads");
  const double each = together.median / kCalls;
  std::printf(
      "  %-9s %6d keys  attention alone %6.1f us, placing heads %5.1f us, both "
      "in a row %6.1f us (%.1f-%.1f)  %5.2f MB  %3.0f %% of the reads  error "
      "%.1e\n",
      name.c_str(),
      context,
      1e6 * attending,
      1e6 * placing,
      1e6 * each,
      1e6 * together.fastest / kCalls,
      1e6 * together.slowest / kCalls,
      1e-6 * layers.layer_bytes(),
      100 * layers.layer_bytes() / each / bandwidth,
      error);
  std::fflush(stdout);
}

void bench_shape(
    Device& card,
    const Shape& shape,
    const std::vector<int>& contexts,
    double bandwidth) {
  std::printf(
      "%d heads, %d kv heads of %d\n",
      shape.n_heads,
      shape.n_kv_heads,
      shape.head_dim);
  for (const int context : contexts) {
    const auto run = [&](const char* name, KvMethod method, double bits) {
      const KvFormat format = format_of(shape, method, bits, Compute::Fast);
      bench_format(card, shape, format, name, context, bandwidth);
    };
    run("bfloat16", KvMethod::Dense, 0);
    run("affine 8", KvMethod::Affine, 8);
    run("affine 4", KvMethod::Affine, 4);
    run("turbo 4", KvMethod::Turbo, 4);
    run("turbo 3", KvMethod::Turbo, 3);
  }
}

} // namespace

int main(int argc, char** argv) {
  const std::vector<int> contexts = bench::contexts_of(
      argc, argv, "bench_card_attention", {512, 8192, 32768});
  if (const std::string why = optiq::kernels::why_no_cuda(); !why.empty()) {
    std::fprintf(stderr, "%s\n", why.c_str());
    return 1;
  }
  Device& card = optiq::kernels::cuda_device(0);
  const double bandwidth = optiq::kernels::measure_cuda_read_bandwidth(0);
  std::printf(
      "%s, reads %.0f GB/s; calls of a run: %d, medians of 5\n",
      card.arithmetic().c_str(),
      1e-9 * bandwidth,
      kCalls);
  for (const Shape& shape :
       {Shape{32, 8, 128}, Shape{32, 8, 256}, Shape{16, 4, 256}}) {
    bench_shape(card, shape, contexts, bandwidth);
  }
  return 0;
}
