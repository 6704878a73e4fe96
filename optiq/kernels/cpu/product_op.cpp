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

/** Whether something comes between the product and what follows it. */
bool has_extras(const Product& product) {
  for (const Projection& projection : product.projections) {
    if (projection.bias != nullptr || !projection.updates.empty()) {
      return true;
    }
  }
  return false;
}

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

/** The products with nothing between them and the residual. */
std::vector<mx::array> run_plain(const mx::array& x, const Product& product) {
  std::vector<mx::array> results;
  std::vector<MatmulJob> jobs;
  std::optional<mx::array> residual;
  for (const Projection& projection : product.projections) {
    const mx::Shape shape{x.shape(0), projection.weight->out_features()};
    results.push_back(io::make_array(shape, mx::float32));
    jobs.push_back(
        {.weight = projection.weight,
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
mx::array run_glu(const mx::array& x, const Product& product) {
  const Matrix& gate = *product.projections[0].weight;
  mx::array result =
      io::make_array({x.shape(0), gate.out_features()}, mx::float32);
  const MatmulJob job{
      .weight = &gate,
      .up = product.projections[1].weight,
      .glu = *product.activation == Activation::Silu ? swiglu : geglu,
      .y = io::mutable_floats(result).data()};
  run(x, product, {&job, 1});
  return result;
}

/** y += scale (x A^T) B^T on the rows of each update; x is normed already. */
void add_updates(
    const mx::array& x,
    std::span<const LowRankUpdate> updates,
    mx::array& y) {
  const auto multiply_floats = [](const mx::array& rows, const mx::array& w) {
    const Matrix matrix = dense_matrix(w);
    Product product;
    product.projections = {{.weight = &matrix}};
    check_input(rows, product);
    return run_plain(rows, product).front();
  };
  const std::size_t width = y.shape(1);
  for (const LowRankUpdate& update : updates) {
    if (update.first_row < 0 || update.rows < 0 ||
        update.rows > x.shape(0) - update.first_row || update.b.ndim() != 2 ||
        update.b.shape(0) != y.shape(1)) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] low-rank update: found rows {} + {} and B {}, expected them "
          "within {} rows and B [{}, rank].",
          kFunction,
          update.first_row,
          update.rows,
          shape_text(update.b),
          x.shape(0),
          y.shape(1));
    }
    if (update.rows == 0) {
      continue;
    }
    const mx::array change = multiply_floats(
        multiply_floats(
            io::row_range(x, update.first_row, update.rows), update.a),
        update.b);
    const float* from = io::floats(change).data();
    float* to = io::mutable_floats(y).data() + update.first_row * width;
    for (std::size_t i = 0; i < change.size(); ++i) {
      to[i] += update.scale * from[i];
    }
  }
}

/** Every step by itself: products, updates, biases, activation. */
std::vector<mx::array> run_with_extras(
    const mx::array& x,
    const Product& product) {
  std::vector<mx::array> results = run_plain(x, product);
  std::optional<mx::array> normed;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const Projection& projection = product.projections[i];
    if (!projection.updates.empty()) {
      if (!normed) {
        normed = product.norm == nullptr ? x : normalize(x, *product.norm);
      }
      add_updates(*normed, projection.updates, results[i]);
    }
    if (projection.bias != nullptr) {
      results[i] = add_bias(results[i], *projection.bias);
    }
  }
  if (product.activation) {
    return {glu(results[0], results[1], *product.activation)};
  }
  return results;
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
  if (has_extras(product)) {
    return run_with_extras(input, product);
  }
  if (product.activation) {
    return {run_glu(input, product)};
  }
  return run_plain(input, product);
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
