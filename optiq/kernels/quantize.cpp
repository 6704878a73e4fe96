#include "optiq/kernels/quantize.h"

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/affine_checks.h"
#include "optiq/kernels/cpu/affine_fit.h"
#include "optiq/kernels/cpu/affine_quantize.h"
#include "optiq/kernels/cpu/matrix.h"

namespace optiq::kernels {
namespace {

/** A checked weight, on the host, and room for its codes. */
struct Quantization {
  Quantization(
      const char* function,
      const mx::array& w,
      int bits,
      int group_size)
      : type(cpu::float_type_of(function, "w", w.dtype())),
        source(io::materialize(checked(function, w, bits, group_size))),
        out(w.shape(0)),
        in(w.shape(1)),
        groups(in / group_size),
        result{
            io::make_array(
                {out, static_cast<int>(std::int64_t{in} * bits / 32)},
                mx::uint32),
            io::make_array({out, groups}, w.dtype()),
            io::make_array({out, groups}, w.dtype())} {}

  static const mx::array&
  checked(const char* function, const mx::array& w, int bits, int group_size) {
    check_affine_format(function, bits, group_size);
    if (w.ndim() != 2 || w.size() == 0 || w.shape(1) % group_size != 0) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] w: found {}, expected [out, in] with `in` a multiple of {}. "
          "Take another group_size or leave this weight dense.",
          function,
          shape_text(w),
          group_size);
    }
    return w;
  }

  cpu::FloatType type;
  mx::array source;
  int out;
  int in;
  int groups; // of a row
  AffineWeights result;
};

} // namespace

AffineWeights quantize_affine(const mx::array& w, int bits, int group_size) {
  Quantization q("quantize_affine", w, bits, group_size);
  const cpu::QuantizeArgs args{
      q.source.data<void>(),
      q.type,
      bits,
      group_size,
      q.result.weight.data<void>(),
      q.result.scales.data<void>(),
      q.result.biases.data<void>()};
  const std::size_t all = static_cast<std::size_t>(q.out) * q.groups;
  parallel_for(all, 16, [&](std::size_t first, std::size_t last) {
    cpu::quantize_groups(args, first, last);
  });
  return q.result;
}

AffineWeights fit_affine(
    const mx::array& w,
    int bits,
    int group_size,
    const ErrorMetric& metric) {
  constexpr const char* kFunction = "fit_affine";
  Quantization q(kFunction, w, bits, group_size);
  const auto in = static_cast<std::size_t>(q.in);
  if (metric.importance.size() != in ||
      (!metric.factor.empty() && metric.factor.size() != in * in)) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] w: found {} inputs, expected the {} of the error metric.",
        kFunction,
        in,
        metric.importance.size());
  }
  const cpu::FitArgs args{
      .values = q.source.data<void>(),
      .type = q.type,
      .bits = bits,
      .group = group_size,
      .columns = in,
      .importance = metric.importance.data(),
      .factor = metric.factor.empty() ? nullptr : metric.factor.data(),
      .codes = q.result.weight.data<void>(),
      .scales = q.result.scales.data<void>(),
      .biases = q.result.biases.data<void>()};
  parallel_for(
      static_cast<std::size_t>(q.out),
      cpu::kFitRows,
      [&](std::size_t first, std::size_t last) {
        cpu::fit_rows(args, first, last);
      });
  return q.result;
}

} // namespace optiq::kernels
