#include "optiq/kernels/cpu/product_run.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <hwy/aligned_allocator.h>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/kernels/cpu/amx.h"
#include "optiq/kernels/cpu/bfloat_parts.h"
#include "optiq/kernels/cpu/elementwise.h"
#include "optiq/kernels/cpu/matrix.h"
#include "optiq/kernels/cpu/panel_matmul.h"

namespace optiq::kernels::cpu {
namespace {

/** Output columns are handed out in panels of this many. */
constexpr std::size_t kPanel = kPanelRows;

// A part of products is not smaller but where each rank gets one only: of few
// rows so many bytes of weights, of many so many panels.
constexpr std::uint64_t kLeastBytes = 16384;
constexpr std::uint64_t kLeastPanels = 8;

// Up to here the caller prepares the rows before the others begin: it takes
// no longer than a barrier, and the others then read a quarter of the bytes
// from its cache.
constexpr std::size_t kValuesForOneRank = 2048;

// Panels between two steps of what follows a product: results of many rows are
// still in L2 then, few rows read their weights in long streams.
constexpr std::size_t kFewRowsChunk = 64;
constexpr std::size_t kDenseChunk = 15;
constexpr std::size_t kPartsChunk = 16;
constexpr std::size_t kManyRowsValues = 65536;

// A row of an update's A costs as much to fetch as to multiply by so many rows.
constexpr std::uint64_t kRowsOfAFetch = 8;

constexpr std::size_t kLine = 128; // what ranks write lies this far apart

std::size_t round_up(std::size_t n, std::size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

std::size_t panels_of(const Matrix& weight) {
  return (static_cast<std::size_t>(weight.out_features()) + kPanel - 1) /
      kPanel;
}

/** Whether it meets rows as parts of bfloat16: always or never, as their sums
 * are others than those of floats. */
bool reads_parts(const Matrix& weight) {
  return !weight.is_quantized() &&
      data_of(weight).shape.params == FloatType::BFloat16 && uses_amx();
}

/** Few rows: time goes with the bytes read. Many: with the multiply-adds, of
 * which a float one costs about four int8 ones or ones of parts. */
std::uint64_t panel_cost(const Matrix& weight, int rows) {
  if (rows > kDirectRows) {
    return weight.is_quantized() || reads_parts(weight) ? 1 : 4;
  }
  return std::max<std::uint64_t>(1, weight.nbytes() / panels_of(weight));
}

struct Range {
  std::size_t first;
  std::size_t last;
};

/** Part `index` of `count`. */
struct Part {
  int index = 0;
  int count = 1;

  Range of(std::size_t n) const {
    return {n * index / count, n * (index + 1) / count};
  }
};

/** Hands out panels and other things of several kinds, one kind after another:
 * those that begin within a part's equal share of the cost. */
class Share {
 public:
  Share(std::uint64_t total, Part part) {
    const Range range = part.of(total);
    low_ = range.first;
    high_ = range.last;
  }

  /** Of the next n; where a range begins is a multiple of `multiple`. */
  Range next(std::uint64_t n, std::uint64_t cost, std::uint64_t multiple = 1) {
    const auto at = [&](std::uint64_t limit) -> std::size_t {
      const std::uint64_t offset = limit > start_ ? limit - start_ : 0;
      return std::min(n, round_up((offset + cost - 1) / cost, multiple));
    };
    const Range range{at(low_), at(high_)};
    start_ += n * cost;
    return range;
  }

 private:
  std::uint64_t low_ = 0;
  std::uint64_t high_ = 0;
  std::uint64_t start_ = 0;
};

/** Everything that the ranks share while they run a call. */
class Run {
 public:
  explicit Run(const MatmulCall& call) : call_(call) {
    for (const MatmulJob& job : call.jobs) {
      add_input(*job.weight);
      add_updates(job.addends);
      add_updates(job.up_addends);
      total_ += cost_of(job) * panels_of(*job.weight);
      if (job.up != nullptr) {
        add_input(*job.up);
      }
    }
    for (const LowRankTerm* update : updates_) {
      updates_cost_ += inner_cost(*update) * update->a.rank;
    }
    allocate();
  }

  bool needs_preparation() const {
    return n_activations_ > 0 || parts_.values != nullptr || normed_ != nullptr;
  }

  /** Part of what all products read. */
  void prepare(Part part) const {
    for (int i = 0; i < n_activations_; ++i) {
      const Range tasks = part.of(activations_[i].layout.tasks());
      quantize_activations(
          call_.x, call_.norm, activations_[i], tasks.first, tasks.last);
    }
    if (parts_.values != nullptr) {
      const Range tasks = part.of(parts_.tasks());
      split_rows(call_.x, call_.norm, parts_, tasks.first, tasks.last);
    }
    if (normed_ != nullptr) {
      const Range rows = part.of(static_cast<std::size_t>(call_.rows));
      rms_norm(
          call_.x + rows.first * cols(),
          call_.norm.weight,
          call_.norm.eps,
          rows.last - rows.first,
          cols(),
          normed_ + rows.first * cols());
    }
  }

  bool has_updates() const {
    return updates_cost_ > 0;
  }
  /** Rows of all A. */
  std::size_t inner_ranks() const {
    std::size_t n = 0;
    for (const LowRankTerm* update : updates_) {
      n += static_cast<std::size_t>(update->a.rank);
    }
    return n;
  }

  /** Part of the inner products of low-rank updates. */
  void multiply_inners(Part part) const {
    Share share(updates_cost_, part);
    const float* x = normed_ == nullptr ? call_.x : normed_;
    for (std::size_t i = 0; i < updates_.size(); ++i) {
      const LowRankTerm& update = *updates_[i];
      const Range ranks = share.next(update.a.rank, inner_cost(update));
      multiply_inner(
          update,
          x,
          ranks.first,
          ranks.last,
          i + 1 < updates_.size() ? updates_[i + 1] : nullptr);
    }
  }

  /** Part of the products, on a rank of the pool. */
  void multiply(Part part, int rank) const {
    Share share(total_, part);
    for (const MatmulJob& job : call_.jobs) {
      const Range panels =
          share.next(panels_of(*job.weight), cost_of(job), panels_at_once());
      run_job(job, panels, rank);
    }
  }

  /** Into how many parts the products go: as many for each rank. */
  int parts_of_products(const ThreadPool& pool) const {
    const auto n_ranks = static_cast<std::size_t>(pool.size());
    const std::uint64_t most = total_ / least_cost() / n_ranks;
    return pool.pieces(std::max<std::size_t>(1, most) * n_ranks);
  }
  int parts_of_preparing(const ThreadPool& pool) const {
    return pool.pieces(
        n_activations_ > 0             ? activations_[0].layout.tasks()
            : parts_.values != nullptr ? parts_.tasks()
                                       : static_cast<std::size_t>(call_.rows));
  }

  std::size_t cols() const {
    return call_.jobs.front().weight->in_features();
  }

 private:
  static std::uint64_t inner_cost(const LowRankTerm& update) {
    return static_cast<std::uint64_t>(update.rows) + kRowsOfAFetch;
  }

  void add_updates(const Addends& addends) {
    for (const LowRankTerm& update : addends.updates) {
      updates_.push_back(&update);
    }
  }

  /** Tiles of many rows take two panels. */
  std::uint64_t panels_at_once() const {
    return call_.rows <= kDirectRows ? 1 : 2;
  }

  /** Notes in what form a matrix reads the rows. */
  void add_input(const Matrix& weight) {
    if (reads_parts(weight)) {
      parts_.rows = call_.rows;
      parts_.cols = weight.in_features();
      return;
    }
    if (!weight.is_quantized()) {
      reads_floats_ = true;
      return;
    }
    if (activations_of(weight) == nullptr) {
      activations_[n_activations_++].layout = layout_for(weight);
    }
  }

  ActivationLayout layout_for(const Matrix& weight) const {
    return activation_layout(
        call_.rows,
        weight.in_features(),
        weight.group_size(),
        weight.bits(),
        call_.compute == Compute::Int8 ? 1 : 2);
  }

  const Activations* activations_of(const Matrix& weight) const {
    const ActivationLayout wanted = layout_for(weight);
    for (int i = 0; i < n_activations_; ++i) {
      const ActivationLayout& layout = activations_[i].layout;
      if (layout.unit == wanted.unit && layout.form == wanted.form) {
        return &activations_[i];
      }
    }
    return nullptr;
  }

  std::uint64_t cost_of(const MatmulJob& job) const {
    return panel_cost(*job.weight, call_.rows) +
        (job.up == nullptr ? 0 : panel_cost(*job.up, call_.rows));
  }

  std::uint64_t least_cost() const {
    if (call_.rows <= kDirectRows) {
      return kLeastBytes;
    }
    std::uint64_t least = 1;
    for (const MatmulJob& job : call_.jobs) {
      least = std::max(
          least,
          cost_of(job) *
              (job.weight->is_quantized() ? kLeastPanels
                                          : dense_chunk(*job.weight)));
    }
    return least;
  }

  static std::size_t dense_chunk(const Matrix& weight) {
    return reads_parts(weight) ? kPartsChunk : kDenseChunk;
  }

  static bool has_addends(const MatmulJob& job) {
    return !job.addends.updates.empty() || job.addends.bias != nullptr;
  }

  bool has_many_rows() const {
    return call_.rows > kDirectRows;
  }

  /** Panels of a job between two steps of what follows. */
  std::size_t chunk_of(const MatmulJob& job) const {
    if (has_many_rows()) {
      if (!job.weight->is_quantized()) {
        return dense_chunk(*job.weight);
      }
      // Tiles take two panels at a time.
      const std::size_t pairs = kManyRowsValues / (2 * kPanel * call_.rows);
      return 2 * std::clamp<std::size_t>(pairs, 1, kFewRowsChunk / 2);
    }
    return job.up == nullptr && job.residual == nullptr && !has_addends(job)
        ? panels_of(*job.weight)
        : kFewRowsChunk;
  }

  /** Floats between rows of scratch: an odd number of cache lines, so that
   * they spread over all sets. */
  static std::size_t scratch_stride(std::size_t columns) {
    return round_up(columns, 2 * kPanel) + kPanel;
  }

  /** Floats of a rank's own: results on their way, those of `up`, then what
   * dense products need. */
  void size_scratch() {
    for (const MatmulJob& job : call_.jobs) {
      const std::size_t columns =
          kPanel * std::min(chunk_of(job), panels_of(*job.weight));
      const std::size_t floats = scratch_stride(columns) * call_.rows;
      if (has_many_rows()) {
        y_floats_ = std::max(y_floats_, floats);
      }
      if (job.up != nullptr) {
        up_floats_ = std::max(up_floats_, floats);
      }
    }
    const std::size_t dense = std::max(
        reads_floats_ ? dense_scratch(call_.rows) : 0,
        parts_.rows > 0 ? parts_scratch(call_.rows) : 0);
    y_floats_ = round_up(y_floats_, kLine / sizeof(float));
    up_floats_ = round_up(up_floats_, kLine / sizeof(float));
    rank_floats_ =
        round_up(y_floats_ + up_floats_ + dense, kLine / sizeof(float));
  }

  void allocate() {
    size_scratch();
    const bool reads_normed =
        (reads_floats_ || has_updates()) && call_.norm.weight != nullptr;
    const std::size_t normed =
        reads_normed ? call_.rows * cols() * sizeof(float) : 0;
    const std::size_t scratch =
        rank_floats_ * sizeof(float) * ThreadPool::shared().size();
    const std::size_t parts = parts_.size() * sizeof(std::uint16_t);
    std::size_t bytes =
        round_up(normed, kLine) + scratch + round_up(parts, kLine);
    for (int i = 0; i < n_activations_; ++i) {
      const ActivationLayout& layout = activations_[i].layout;
      bytes += round_up(layout.cells() * sizeof(std::int32_t), kLine) +
          round_up(layout.scales() * sizeof(float), kLine);
    }
    if (bytes == 0) {
      return;
    }
    memory_ = hwy::AllocateAligned<std::byte>(bytes);
    if (!memory_) {
      fail(
          ErrorKind::Exhausted,
          "[matmul] x [{}, {}]: found no memory for {} bytes of quantized rows "
          "and scratch. Free some RAM or use smaller chunks.",
          call_.rows,
          cols(),
          bytes);
    }
    std::byte* next = memory_.get();
    const auto take = [&next](std::size_t size) {
      return std::exchange(next, next + round_up(size, kLine));
    };
    scratch_ = reinterpret_cast<float*>(take(scratch));
    if (normed > 0) {
      normed_ = reinterpret_cast<float*>(take(normed));
    }
    if (parts > 0) {
      parts_.values = reinterpret_cast<std::uint16_t*>(take(parts));
    }
    for (int i = 0; i < n_activations_; ++i) {
      Activations& a = activations_[i];
      a.cells = reinterpret_cast<std::int32_t*>(
          take(a.layout.cells() * sizeof(std::int32_t)));
      a.scales =
          reinterpret_cast<float*>(take(a.layout.scales() * sizeof(float)));
    }
  }

  /** body(t) for all rows. */
  template <class Body>
  void for_rows(const Body& body) const {
    for (int t = 0; t < call_.rows; ++t) {
      body(static_cast<std::size_t>(t));
    }
  }

  /** Results of many rows are made in scratch: rows of y that are a power of
   * two apart share a few sets of a cache. */
  void run_job(const MatmulJob& job, const Range& range, int rank) const {
    const auto out = static_cast<std::size_t>(job.weight->out_features());
    const std::size_t chunk = chunk_of(job);
    float* const scratch = scratch_ + rank * rank_floats_;
    float* const dense_memory = scratch + y_floats_ + up_floats_;
    for (std::size_t at = range.first; at < range.last; at += chunk) {
      const Range part{at, std::min(range.last, at + chunk)};
      const std::size_t column = part.first * kPanel;
      const std::size_t columns = std::min(out, part.last * kPanel) - column;
      const std::size_t stride = scratch_stride(columns);
      const Output y{job.y + column, out};
      const Output made = has_many_rows() ? Output{scratch, stride} : y;
      fetch_first(job.addends, column, columns);
      run_product(*job.weight, part, made, dense_memory);
      if (job.residual != nullptr) {
        const float* residual = job.residual + column;
        for_rows([&](std::size_t t) {
          float* to = made.row(t);
          add(residual + t * out, to, columns, to);
        });
      }
      add_to(job.addends, column, columns, made);
      if (job.up != nullptr) {
        const Output up{scratch + y_floats_, stride};
        fetch_first(job.up_addends, column, columns);
        run_product(*job.up, part, up, dense_memory);
        add_to(job.up_addends, column, columns, up);
        for_rows([&](std::size_t t) {
          job.glu(made.row(t), up.row(t), columns, y.row(t));
        });
      } else if (has_many_rows()) {
        for_rows([&](std::size_t t) {
          std::copy_n(made.row(t), columns, y.row(t));
        });
      }
    }
  }

  /** What the first of the updates reads comes while the base's product
   * runs; each fetches what the one behind it reads. */
  static void
  fetch_first(const Addends& addends, std::size_t column, std::size_t columns) {
    if (!addends.updates.empty()) {
      fetch_outer(addends.updates.front(), column, column + columns);
    }
  }

  /** Adds columns [column, column + columns) of them. */
  void add_to(
      const Addends& addends,
      std::size_t column,
      std::size_t columns,
      const Output& to) const {
    const std::span<const LowRankTerm> updates = addends.updates;
    for (std::size_t i = 0; i < updates.size(); ++i) {
      add_low_rank(
          updates[i],
          column,
          column + columns,
          to,
          i + 1 < updates.size() ? &updates[i + 1] : nullptr);
    }
    if (addends.bias != nullptr) {
      for (int t = 0; t < call_.rows; ++t) {
        float* y = to.y + t * to.stride;
        add(y, addends.bias + column, columns, y);
      }
    }
  }

  void run_product(
      const Matrix& weight,
      const Range& part,
      const Output& to,
      float* scratch) const {
    const MatrixData& w = data_of(weight);
    if (weight.is_quantized()) {
      multiply_panels(
          *activations_of(weight),
          w.panel_weights(),
          part.first,
          part.last,
          to);
      return;
    }
    const std::size_t first = part.first * kPanel;
    const std::size_t last =
        std::min<std::size_t>(w.shape.rows, part.last * kPanel);
    const DenseWeights dense = w.dense_weights();
    if (reads_parts(weight)) {
      multiply_parts(
          parts_,
          static_cast<const std::uint16_t*>(dense.data),
          first,
          last,
          to,
          scratch);
      return;
    }
    multiply_dense(
        {normed_ == nullptr ? call_.x : normed_, call_.rows, dense, to},
        first,
        last,
        scratch);
  }

  /** Units of 32 and of 64 inputs, of digits and of words. */
  static constexpr int kMostForms = 4;

  const MatmulCall& call_;
  std::uint64_t total_ = 0; // cost of all jobs
  std::vector<const LowRankTerm*> updates_; // of all jobs
  std::uint64_t updates_cost_ = 0; // of their inner products
  bool reads_floats_ = false;
  int n_activations_ = 0;
  std::array<Activations, kMostForms> activations_;
  BFloatParts parts_; // of the rows, where a matrix reads them
  float* normed_ = nullptr; // rows for what reads floats, where there is a norm
  float* scratch_ = nullptr; // [ranks][rank_floats_]
  std::size_t y_floats_ = 0;
  std::size_t up_floats_ = 0;
  std::size_t rank_floats_ = 0;
  hwy::AlignedFreeUniquePtr<std::byte[]> memory_;
};

} // namespace

void run_matmuls(const MatmulCall& call) {
  const Run run(call);
  ThreadPool& pool = ThreadPool::shared();
  const bool alone = run.cols() * call.rows <= kValuesForOneRank;
  int n_preparing = 0;
  if (run.needs_preparation() && alone) {
    run.prepare({});
  } else if (run.needs_preparation()) {
    n_preparing = run.parts_of_preparing(pool);
  }
  const int n_inners = run.has_updates() ? pool.pieces(run.inner_ranks()) : 0;
  const int n_products = run.parts_of_products(pool);
  const auto prepare = [&](int, int i) { run.prepare({i, n_preparing}); };
  const auto inners = [&](int, int i) { run.multiply_inners({i, n_inners}); };
  const auto products = [&](int rank, int i) {
    run.multiply({i, n_products}, rank);
  };
  pool.run(
      {{n_preparing, prepare}, {n_inners, inners}, {n_products, products}});
}

} // namespace optiq::kernels::cpu
