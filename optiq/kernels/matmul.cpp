#include <algorithm>
#include <cassert>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cpu/panel_matmul.h"
#include "optiq/kernels/matrix_impl.h"
#include "optiq/kernels/profile.h"

namespace optiq::kernels {
namespace {

/** Output columns are handed out in pieces of this many. */
constexpr std::size_t kPiece = cpu::kPanelRows;

/** Activations with the memory behind them. */
struct OwnedActivations {
  cpu::Activations view;
  hwy::AlignedFreeUniquePtr<std::int32_t[]> cells;
  hwy::AlignedFreeUniquePtr<float[]> scales;
};

OwnedActivations make_activations(const cpu::ActivationLayout& layout) {
  OwnedActivations x;
  x.cells = hwy::AllocateAligned<std::int32_t>(layout.cells());
  x.scales = hwy::AllocateAligned<float>(layout.scales());
  if (!x.cells || !x.scales) {
    fail(
        ErrorKind::Exhausted,
        "[matmul] x [{}, {}]: no memory for its quantized form. Use smaller "
        "chunks.",
        layout.rows,
        layout.cols);
  }
  x.view = {layout, x.cells.get(), x.scales.get()};
  return x;
}

/** One matrix of a call. */
struct Job {
  const Matrix* weight;
  int activations; // index, -1 when dense
  float* y;
  std::size_t pieces;
  std::uint64_t cost; // of a piece
};

struct Range {
  std::size_t first;
  std::size_t last;
};

/** The pieces of a job that start inside [low, high) of the total cost, when
 * the job's first piece starts at `start`. */
Range pieces_inside(
    const Job& job,
    std::uint64_t start,
    std::uint64_t low,
    std::uint64_t high) {
  const auto at = [&](std::uint64_t cost) -> std::size_t {
    const std::uint64_t offset = cost > start ? cost - start : 0;
    return std::min<std::uint64_t>(
        job.pieces, (offset + job.cost - 1) / job.cost);
  };
  return {at(low), at(high)};
}

/** What all jobs of a call share. */
struct Call {
  std::span<const float> x;
  int rows;
  std::vector<OwnedActivations> activations;
  std::vector<Job> jobs;
  std::size_t scratch_floats = 0; // per rank
  hwy::AlignedFreeUniquePtr<float[]> scratch;
};

void multiply(const Call& call, const Job& job, const Range& range, int rank) {
  const Matrix::Storage& w = job.weight->storage();
  if (job.activations >= 0) {
    cpu::multiply_panels(
        call.activations[job.activations].view,
        w.panel_weights(),
        range.first,
        range.last,
        job.y);
    return;
  }
  const std::size_t columns = w.shape.rows;
  cpu::multiply_dense(
      {call.x.data(), call.rows, w.dense_weights(), job.y},
      std::min(columns, range.first * kPiece),
      std::min(columns, range.last * kPiece),
      call.scratch.get() + rank * call.scratch_floats);
}

/** Everything of one call in one region: quantize, then all matrices. */
void run(const Call& call) {
  std::uint64_t total = 0;
  for (const Job& job : call.jobs) {
    total += job.pieces * job.cost;
  }
  ThreadPool& pool = ThreadPool::shared();
  pool.run([&](int rank, int n_ranks) {
    for (const OwnedActivations& a : call.activations) {
      const std::size_t tasks = a.view.layout.tasks();
      cpu::quantize_activations(
          call.x.data(),
          a.view,
          tasks * rank / n_ranks,
          tasks * (rank + 1) / n_ranks);
    }
    if (n_ranks > 1 && !call.activations.empty()) {
      pool.barrier();
    }
    const std::uint64_t low = total * rank / n_ranks;
    const std::uint64_t high = total * (rank + 1) / n_ranks;
    std::uint64_t start = 0;
    for (const Job& job : call.jobs) {
      const Range range = pieces_inside(job, start, low, high);
      if (range.first < range.last) {
        multiply(call, job, range, rank);
      }
      start += job.pieces * job.cost;
    }
  });
}

/** Index of the activations that `weight` reads, made on first need. */
int activations_for(
    const Matrix& weight,
    int rows,
    Compute compute,
    std::vector<OwnedActivations>& all) {
  if (!weight.is_quantized()) {
    return -1;
  }
  const int digits = compute == Compute::Exact ? 2 : 1;
  const cpu::ActivationLayout layout = cpu::activation_layout(
      rows, weight.in_features(), weight.group_size(), digits);
  const auto same = std::find_if(all.begin(), all.end(), [&](const auto& a) {
    return a.view.layout.unit == layout.unit;
  });
  if (same != all.end()) {
    return static_cast<int>(same - all.begin());
  }
  all.push_back(make_activations(layout));
  return static_cast<int>(all.size()) - 1;
}

std::size_t pieces_of(const Matrix& weight) {
  return (static_cast<std::size_t>(weight.out_features()) + kPiece - 1) /
      kPiece;
}

/** Few rows: time goes with the bytes read. Many: with the multiply-adds, of
 * which a float one costs about four int8 ones. */
std::uint64_t piece_cost(const Matrix& weight, int rows) {
  if (rows > cpu::kDirectRows) {
    return weight.is_quantized() ? 1 : 4;
  }
  return std::max<std::uint64_t>(1, weight.nbytes() / pieces_of(weight));
}

/** Memory for dense products, one piece per rank. */
void add_scratch(Call& call) {
  const bool dense =
      std::any_of(call.jobs.begin(), call.jobs.end(), [](const Job& job) {
        return job.activations < 0;
      });
  call.scratch_floats = dense ? cpu::dense_scratch(call.rows) : 0;
  const std::size_t all = call.scratch_floats * ThreadPool::shared().size();
  call.scratch = hwy::AllocateAligned<float>(std::max<std::size_t>(1, all));
  if (!call.scratch) {
    fail(
        ErrorKind::Exhausted,
        "[matmul] x [{}, {}]: no memory for {} bytes of scratch. Free some "
        "RAM.",
        call.rows,
        call.x.size() / call.rows,
        all * sizeof(float));
  }
}

OpTimer::Described describe(std::span<const Matrix* const> weights) {
  OpTimer::Described what{{.name = "matmul"}, 0};
  for (const Matrix* weight : weights) {
    what.key.in = weight->in_features();
    what.key.out += weight->out_features();
    what.bytes += weight->nbytes();
  }
  what.key.bits = weights.empty() ? 0 : weights.front()->bits();
  return what;
}

void check_input(const mx::array& x, const Matrix& weight) {
  if (x.ndim() != 2 || x.dtype() != mx::float32 ||
      x.shape(1) != weight.in_features()) {
    fail(
        ErrorKind::InvalidInput,
        "[matmul] x: found {} of {} bytes per element, expected float32 [T, "
        "{}] for a weight [{}, {}].",
        shape_text(x),
        x.itemsize(),
        weight.in_features(),
        weight.out_features(),
        weight.in_features());
  }
}

} // namespace

std::vector<mx::array> matmul(
    const mx::array& x,
    std::span<const Matrix* const> weights,
    Compute compute) {
  const OpTimer timer([&] { return describe(weights); });
  for (const Matrix* weight : weights) {
    assert(weight != nullptr);
    check_input(x, *weight);
  }
  std::vector<mx::array> results;
  const int rows = weights.empty() ? 0 : x.shape(0);
  for (const Matrix* weight : weights) {
    results.push_back(
        io::make_array({rows, weight->out_features()}, mx::float32));
  }
  if (rows == 0) {
    return results;
  }
  const mx::array input = io::materialize(x);
  Call call{.x = io::floats(input), .rows = rows};
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const Matrix& weight = *weights[i];
    call.jobs.push_back(
        {&weight,
         activations_for(weight, rows, compute, call.activations),
         io::mutable_floats(results[i]).data(),
         pieces_of(weight),
         piece_cost(weight, rows)});
  }
  add_scratch(call);
  run(call);
  return results;
}

mx::array matmul(const mx::array& x, const Matrix& weight, Compute compute) {
  const Matrix* const one[] = {&weight};
  return matmul(x, one, compute)[0];
}

mx::array embed(std::span<const std::int32_t> ids, const Matrix& weight) {
  const OpTimer timer("embed");
  const Matrix::Storage& w = weight.storage();
  const auto cols = static_cast<std::size_t>(w.shape.cols);
  mx::array result =
      io::make_array({static_cast<int>(ids.size()), w.shape.cols}, mx::float32);
  const std::span<float> out = io::mutable_floats(result);
  parallel_for(ids.size(), 8, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      const std::span<float> row = out.subspan(t * cols, cols);
      const auto id = static_cast<std::size_t>(ids[t]);
      assert(id < static_cast<std::size_t>(w.shape.rows));
      if (w.dense) {
        const auto* data = static_cast<const std::byte*>(w.dense->data<void>());
        cpu::to_float(
            w.shape.params,
            data + id * cols * cpu::size_of(w.shape.params),
            cols,
            row.data());
      } else {
        cpu::unpack_row(w.shape, w.panels.get(), id, row);
      }
    }
  });
  return result;
}

} // namespace optiq::kernels
