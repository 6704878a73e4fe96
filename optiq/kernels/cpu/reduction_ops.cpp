#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <vector>

#include "optiq/base/thread_pool.h"
#include "optiq/kernels/checks_impl.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/cpu/reductions.h"
#include "optiq/kernels/logit_checks.h"
#include "optiq/kernels/profile.h"

namespace optiq::kernels::cpu {
namespace {

// Logits below which waking a thread does not pay.
constexpr std::size_t kGrain = 8192;

void require_logits(
    const char* function,
    const char* name,
    const mx::array& x) {
  require_rank(function, name, x, 2);
  if (x.shape(1) == 0) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found rows without logits, expected [T, V] with V > 0. Pass "
        "the vocabulary's logits.",
        function,
        name);
  }
}

/** f(offset of the row, V) for every row of x [T, V]. */
template <class Result, class F>
std::vector<Result> per_row(const mx::array& x, const F& f) {
  std::vector<Result> results(x.shape(0));
  const std::size_t width = x.shape(1);
  parallel_for(
      results.size(),
      std::max<std::size_t>(1, kGrain / width),
      [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) {
          results[t] = f(t * width, width);
        }
      });
  return results;
}

} // namespace

std::vector<double> log_sum_exp(const mx::array& logits) {
  const OpTimer timer("log_sum_exp");
  require_logits("log_sum_exp", "logits", logits);
  const mx::array in = io::materialize(logits);
  const float* x = io::floats(in).data();
  return per_row<double>(in, [&](std::size_t at, std::size_t width) {
    return log_sum_exp(x + at, width);
  });
}

std::vector<std::int32_t> argmax(const mx::array& logits) {
  const OpTimer timer("argmax");
  require_logits("argmax", "logits", logits);
  const mx::array in = io::materialize(logits);
  const float* x = io::floats(in).data();
  return per_row<std::int32_t>(in, [&](std::size_t at, std::size_t width) {
    return argmax(x + at, width);
  });
}

std::vector<float> pick(
    const mx::array& logits,
    std::span<const std::int32_t> ids) {
  require_logits("pick", "logits", logits);
  const mx::array in = io::materialize(logits);
  const auto width = static_cast<std::size_t>(in.shape(1));
  std::vector<float> picked;
  for (std::size_t t = 0; t < ids.size(); ++t) {
    if (ids.size() != static_cast<std::size_t>(in.shape(0)) || ids[t] < 0 ||
        static_cast<std::size_t>(ids[t]) >= width) {
      fail(
          ErrorKind::InvalidInput,
          "[pick] ids: found {} with {} at row {}, expected {} below {}.",
          ids.size(),
          ids[t],
          t,
          in.shape(0),
          width);
    }
    picked.push_back(io::floats(in)[t * width + ids[t]]);
  }
  return picked;
}

std::vector<double> kl_divergence(
    const mx::array& reference,
    const mx::array& logits) {
  const OpTimer timer("kl_divergence");
  require_logits("kl_divergence", "reference", reference);
  const mx::array p = io::materialize(reference);
  const mx::array q =
      require_floats("kl_divergence", "logits", logits, reference.shape());
  const float* r = io::floats(p).data();
  const float* x = io::floats(q).data();
  return per_row<double>(p, [&](std::size_t at, std::size_t width) {
    return kl_divergence(r + at, x + at, width);
  });
}

std::vector<BlockSums> block_sums(
    const mx::array& logits,
    std::span<const float> scales) {
  constexpr const char* kName = "block_sums";
  const OpTimer timer(kName);
  require_logits(kName, "logits", logits);
  require_scales(kName, logits, scales);
  const mx::array in = io::materialize(logits);
  const auto width = static_cast<std::size_t>(in.shape(1));
  std::vector<const float*> blocks(count_logit_blocks(width));
  std::vector<BlockSums> rows;
  for (std::size_t t = 0; t < scales.size(); ++t) {
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      blocks[b] = io::floats(in).data() + t * width + b * kLogitBlock;
    }
    const LogitBlocks row{blocks, width};
    BlockSums& sums = rows.emplace_back();
    sums.maxima.resize(blocks.size());
    block_maxima(row, sums.maxima);
    sums.masses.resize(blocks.size());
    block_masses(row, sums.maxima, scales[t], sums.masses);
    sums.depths.resize(blocks.size());
    block_depths(row, sums.maxima, scales[t], sums.depths);
  }
  return rows;
}

HostRows take_blocks(
    const mx::array& logits,
    std::span<const LogitBlockId> blocks) {
  constexpr const char* kName = "take_blocks";
  require_logits(kName, "logits", logits);
  require_blocks(kName, logits, blocks);
  const mx::array in = io::materialize(logits);
  const auto width = static_cast<std::size_t>(in.shape(1));
  const auto taken = std::make_shared<std::vector<float>>(
      blocks.size() * kLogitBlock, -std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto begin = static_cast<std::size_t>(blocks[i].block) * kLogitBlock;
    const auto row = io::floats(in).subspan(
        static_cast<std::size_t>(blocks[i].row) * width, width);
    std::ranges::copy(
        row.subspan(begin, std::min(kLogitBlock, width - begin)),
        taken->begin() + static_cast<std::ptrdiff_t>(i * kLogitBlock));
  }
  return {*taken, static_cast<int>(kLogitBlock), taken};
}

} // namespace optiq::kernels::cpu
