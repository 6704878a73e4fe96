#include <cassert>
#include <optional>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/affine_checks.h"
#include "optiq/kernels/checks_impl.h"
#include "optiq/kernels/cpu/elementwise.h"
#include "optiq/kernels/cpu/matrix.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/cpu/product_run.h"
#include "optiq/kernels/product_checks.h"
#include "optiq/kernels/profile.h"

namespace optiq::kernels::cpu {
namespace {

constexpr const char* kFunction = "multiply";

OpTimer::Described describe(const Product& product) {
  OpTimer::Described what{
      {.name = product.activation        ? "matmul_glu"
           : product.residual != nullptr ? "matmul_add"
                                         : "matmul"},
      0};
  for (const Projection& projection : product.projections) {
    what.key.in = projection.weight->in_features();
    what.key.out += projection.weight->out_features();
    what.bytes += projection.weight->nbytes();
    for (const LowRankUpdate& update : projection.updates) {
      what.bytes += update.a.nbytes() + update.b.nbytes();
    }
  }
  what.key.bits = product.projections.empty()
      ? 0
      : product.projections.front().weight->bits();
  return what;
}

void check_input(const mx::array& x, const Product& product) {
  for (const Projection& projection : product.projections) {
    const Matrix& weight = *projection.weight;
    data_of(weight); // throws here, not in a thread of the pool
    if (x.ndim() != 2 || x.dtype() != mx::float32 ||
        x.shape(1) != weight.in_features()) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] x: found {} of {} bytes per element, expected float32 [T, {}] "
          "for a weight [{}, {}].",
          kFunction,
          shape_text(x),
          x.itemsize(),
          weight.in_features(),
          weight.out_features(),
          weight.in_features());
    }
  }
  check_product(kFunction, product);
}

LowRankSide side_of(const char* name, const mx::array& side) {
  return {
      .data = side.data<void>(),
      .type = float_type_of(kFunction, name, side.dtype()),
      .rank = side.shape(0),
      .width = side.shape(1)};
}

void check_update(const LowRankUpdate& update, int rows, const Matrix& weight) {
  const int first = update.first_row;
  if (first < 0 || update.rows < 0 || update.rows > rows - first ||
      update.a.ndim() != 2 || update.b.ndim() != 2 ||
      update.a.shape(0) != update.b.shape(0) ||
      update.a.shape(1) != weight.in_features() ||
      update.b.shape(1) != weight.out_features()) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] low-rank update: found rows {} + {}, A {} and B {}, expected "
        "them within {} rows, A [rank, {}] and B [rank, {}].",
        kFunction,
        first,
        update.rows,
        shape_text(update.a),
        shape_text(update.b),
        rows,
        weight.in_features(),
        weight.out_features());
  }
}

/** What is added to one projection, and the memory that this takes. */
class ProjectionAddends {
 public:
  ProjectionAddends(const Projection& projection, int rows) {
    if (projection.bias != nullptr) {
      bias_ = require_floats(
          "add_bias",
          "bias",
          *projection.bias,
          {projection.weight->out_features()});
    }
    std::size_t inner_floats = 0;
    for (const LowRankUpdate& update : projection.updates) {
      check_update(update, rows, *projection.weight);
      inner_floats += std::size_t{1} * update.rows * update.a.shape(0);
    }
    inner_.resize(inner_floats);
    sides_.reserve(2 * projection.updates.size());
    terms_.reserve(projection.updates.size());
    float* inner = inner_.data();
    for (const LowRankUpdate& update : projection.updates) {
      if (update.rows > 0) {
        add(update, inner);
        inner += std::size_t{1} * update.rows * update.a.shape(0);
      }
    }
  }

  Addends addends() const {
    return {
        .updates = terms_, .bias = bias_ ? io::floats(*bias_).data() : nullptr};
  }

 private:
  void add(const LowRankUpdate& update, float* inner) {
    sides_.push_back(io::materialize(update.a));
    terms_.push_back(
        {.first_row = static_cast<std::size_t>(update.first_row),
         .rows = update.rows,
         .a = side_of("A", sides_.back()),
         .scale = update.scale,
         .inner = inner});
    sides_.push_back(io::materialize(update.b));
    terms_.back().b = side_of("B", sides_.back());
  }

  std::optional<mx::array> bias_;
  std::vector<mx::array> sides_; // of the terms
  std::vector<LowRankTerm> terms_;
  std::vector<float> inner_;
};

/** Runs jobs on the rows of x, unless there is nothing to do. */
void run(
    const mx::array& x,
    const Product& product,
    std::span<const MatmulJob> jobs) {
  if (x.shape(0) == 0 || jobs.empty()) {
    return;
  }
  MatmulCall call{
      .x = io::floats(x).data(),
      .rows = x.shape(0),
      .compute = product.compute,
      .jobs = jobs};
  std::optional<mx::array> weight;
  if (product.norm != nullptr) {
    weight = require_floats(
        kFunction, "norm weight", product.norm->weight, {x.shape(1)});
    call.norm = {io::floats(*weight).data(), product.norm->eps};
  }
  run_matmuls(call);
}

std::vector<mx::array> run_each(
    const mx::array& x,
    const Product& product,
    std::span<const ProjectionAddends> addends) {
  std::vector<mx::array> results;
  std::vector<MatmulJob> jobs;
  std::optional<mx::array> residual;
  for (std::size_t i = 0; i < addends.size(); ++i) {
    const Matrix& weight = *product.projections[i].weight;
    const mx::Shape shape{x.shape(0), weight.out_features()};
    results.push_back(io::make_array(shape, mx::float32));
    jobs.push_back(
        {.weight = &weight,
         .addends = addends[i].addends(),
         .y = io::mutable_floats(results.back()).data()});
    if (product.residual != nullptr) {
      residual =
          require_floats(kFunction, "residual", *product.residual, shape);
      jobs.back().residual = io::floats(*residual).data();
    }
  }
  run(x, product, jobs);
  return results;
}

/** activation(gate) * up in the same pass over memory. */
mx::array run_glu(
    const mx::array& x,
    const Product& product,
    std::span<const ProjectionAddends> addends) {
  const Matrix& gate = *product.projections[0].weight;
  mx::array result =
      io::make_array({x.shape(0), gate.out_features()}, mx::float32);
  const MatmulJob job{
      .weight = &gate,
      .up = product.projections[1].weight,
      .glu = *product.activation == Activation::Silu ? swiglu : geglu,
      .addends = addends[0].addends(),
      .up_addends = addends[1].addends(),
      .y = io::mutable_floats(result).data()};
  run(x, product, {&job, 1});
  return result;
}

} // namespace

std::vector<mx::array> multiply(const mx::array& x, const Product& product) {
  if (product.norm != nullptr && product.norm->is_layer_norm) {
    // Only an RMSNorm goes along with the products.
    Product rest = product;
    rest.norm = nullptr;
    return multiply(normalize(x, *product.norm), rest);
  }
  const OpTimer timer([&] { return describe(product); });
  check_input(x, product);
  const mx::array input = io::materialize(x);
  std::vector<ProjectionAddends> addends;
  addends.reserve(product.projections.size());
  for (const Projection& projection : product.projections) {
    addends.emplace_back(projection, x.shape(0));
  }
  if (product.activation) {
    return {run_glu(input, product, addends)};
  }
  return run_each(input, product, addends);
}

mx::array
embed(std::span<const std::int32_t> ids, const Matrix& weight, float factor) {
  const OpTimer timer("embed");
  const MatrixData& w = data_of(weight);
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
        to_float(
            w.shape.params,
            data + id * cols * size_of(w.shape.params),
            cols,
            row.data());
      } else {
        unpack_row(w.shape, w.panels.get(), id, row);
      }
      if (factor != 1.f) {
        for (float& value : row) {
          value *= factor;
        }
      }
    }
  });
  return result;
}

} // namespace optiq::kernels::cpu
