#include "optiq/kernels/cpu/reductions.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "optiq/base/thread_pool.h"
#include "optiq/kernels/kernels.h"
#include "optiq/kernels/profile.h"
#include "optiq/kernels/sequence_checks_impl.h"

namespace optiq::kernels {
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
    return cpu::log_sum_exp(x + at, width);
  });
}

std::vector<std::int32_t> argmax(const mx::array& logits) {
  const OpTimer timer("argmax");
  require_logits("argmax", "logits", logits);
  const mx::array in = io::materialize(logits);
  const float* x = io::floats(in).data();
  return per_row<std::int32_t>(in, [&](std::size_t at, std::size_t width) {
    return cpu::argmax(x + at, width);
  });
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
    return cpu::kl_divergence(r + at, x + at, width);
  });
}

} // namespace optiq::kernels
