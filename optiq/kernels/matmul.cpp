#include <cassert>
#include <optional>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cpu/elementwise.h"
#include "optiq/kernels/matmul_call_impl.h"
#include "optiq/kernels/matrix_impl.h"
#include "optiq/kernels/profile.h"
#include "optiq/kernels/sequence_checks_impl.h"

namespace optiq::kernels {
namespace {

OpTimer::Described describe(
    std::string_view name,
    std::span<const Matrix* const> weights) {
  OpTimer::Described what{{.name = name}, 0};
  for (const Matrix* weight : weights) {
    what.key.in = weight->in_features();
    what.key.out += weight->out_features();
    what.bytes += weight->nbytes();
  }
  what.key.bits = weights.empty() ? 0 : weights.front()->bits();
  return what;
}

/** x as rows that every weight can read. */
mx::array check_input(
    const mx::array& x,
    std::span<const Matrix* const> weights) {
  for (const Matrix* weight : weights) {
    assert(weight != nullptr);
    if (x.ndim() != 2 || x.dtype() != mx::float32 ||
        x.shape(1) != weight->in_features()) {
      fail(
          ErrorKind::InvalidInput,
          "[matmul] x: found {} of {} bytes per element, expected float32 [T, "
          "{}] for a weight [{}, {}].",
          shape_text(x),
          x.itemsize(),
          weight->in_features(),
          weight->out_features(),
          weight->in_features());
    }
  }
  return io::materialize(x);
}

/** The weight of a norm before a product of `cols` inputs, or nothing. */
std::optional<mx::array> check_norm(const RowNorm* norm, int cols) {
  if (norm == nullptr) {
    return std::nullopt;
  }
  return require_floats("matmul", "norm weight", norm->weight, {cols});
}

/** Runs jobs on the rows of x, unless there is nothing to do. */
void run(
    const mx::array& x,
    const RowNorm* norm,
    Compute compute,
    std::span<const MatmulJob> jobs) {
  if (x.shape(0) == 0 || jobs.empty()) {
    return;
  }
  const auto weight = check_norm(norm, x.shape(1));
  MatmulCall call{
      .x = io::floats(x).data(),
      .rows = x.shape(0),
      .compute = compute,
      .jobs = jobs};
  if (weight) {
    call.norm = {io::floats(*weight).data(), norm->eps};
  }
  run_matmuls(call);
}

} // namespace

const char* name_of(Compute compute) {
  switch (compute) {
    case Compute::Int8:
      return "int8";
    case Compute::Fast:
      return "fast";
    case Compute::Exact:
      return "exact";
  }
  return "";
}

std::vector<mx::array> matmul(
    const mx::array& x,
    std::span<const Matrix* const> weights,
    Compute compute,
    const RowNorm* norm) {
  const OpTimer timer([&] { return describe("matmul", weights); });
  const mx::array input = check_input(x, weights);
  std::vector<mx::array> results;
  std::vector<MatmulJob> jobs;
  for (const Matrix* weight : weights) {
    results.push_back(
        io::make_array({x.shape(0), weight->out_features()}, mx::float32));
    jobs.push_back(
        {.weight = weight, .y = io::mutable_floats(results.back()).data()});
  }
  run(input, norm, compute, jobs);
  return results;
}

mx::array matmul(const mx::array& x, const Matrix& weight, Compute compute) {
  const Matrix* const one[] = {&weight};
  return matmul(x, one, compute)[0];
}

mx::array matmul_add(
    const mx::array& x,
    const Matrix& weight,
    const mx::array& residual,
    Compute compute) {
  const Matrix* const one[] = {&weight};
  const OpTimer timer([&] { return describe("matmul_add", one); });
  const mx::array input = check_input(x, one);
  const mx::Shape shape{x.shape(0), weight.out_features()};
  const mx::array added =
      require_floats("matmul_add", "residual", residual, shape);
  mx::array result = io::make_array(shape, mx::float32);
  const MatmulJob job{
      .weight = &weight,
      .residual = io::floats(added).data(),
      .y = io::mutable_floats(result).data()};
  run(input, nullptr, compute, {&job, 1});
  return result;
}

mx::array matmul_glu(
    const mx::array& x,
    const Matrix& gate,
    const Matrix& up,
    Activation activation,
    Compute compute,
    const RowNorm* norm) {
  const Matrix* const both[] = {&gate, &up};
  const OpTimer timer([&] { return describe("matmul_glu", both); });
  const mx::array input = check_input(x, both);
  if (gate.out_features() != up.out_features()) {
    fail(
        ErrorKind::InvalidInput,
        "[matmul_glu] up: found {} outputs, expected the {} of gate.",
        up.out_features(),
        gate.out_features());
  }
  mx::array result =
      io::make_array({x.shape(0), gate.out_features()}, mx::float32);
  const MatmulJob job{
      .weight = &gate,
      .up = &up,
      .glu = activation == Activation::Silu ? cpu::swiglu : cpu::geglu,
      .y = io::mutable_floats(result).data()};
  run(input, norm, compute, {&job, 1});
  return result;
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
