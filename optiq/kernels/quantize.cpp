#include "optiq/kernels/quantize.h"

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/affine_checks.h"
#include "optiq/kernels/cpu/affine_quantize.h"
#include "optiq/kernels/cpu/matrix.h"

namespace optiq::kernels {

AffineWeights quantize_affine(const mx::array& w, int bits, int group_size) {
  constexpr const char* kFunction = "quantize_affine";
  check_affine_format(kFunction, bits, group_size);
  const cpu::FloatType type = cpu::float_type_of(kFunction, "w", w.dtype());
  if (w.ndim() != 2 || w.size() == 0 || w.shape(1) % group_size != 0) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] w: found {}, expected [out, in] with `in` a multiple of {}. Take "
        "another group_size or leave this weight dense.",
        kFunction,
        shape_text(w),
        group_size);
  }
  const mx::array source = io::materialize(w);
  const int out = w.shape(0);
  const int in = w.shape(1);
  const int groups = in / group_size;
  AffineWeights result{
      io::make_array(
          {out, static_cast<int>(std::int64_t{in} * bits / 32)}, mx::uint32),
      io::make_array({out, groups}, w.dtype()),
      io::make_array({out, groups}, w.dtype())};
  const cpu::QuantizeArgs args{
      source.data<void>(),
      type,
      bits,
      group_size,
      result.weight.data<void>(),
      result.scales.data<void>(),
      result.biases.data<void>()};
  const std::size_t all = static_cast<std::size_t>(out) * groups;
  parallel_for(all, 16, [&](std::size_t first, std::size_t last) {
    cpu::quantize_groups(args, first, last);
  });
  return result;
}

} // namespace optiq::kernels
