#include "optiq/kernels/logit_checks.h"

#include <algorithm>
#include <cstddef>

#include "optiq/base/error.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels {

void require_scales(
    const char* function,
    const mx::array& logits,
    std::span<const float> scales) {
  const auto good = std::count_if(
      scales.begin(), scales.end(), [](float s) { return s > 0; });
  const int rows = logits.shape(0);
  if (good != rows || scales.size() != static_cast<std::size_t>(rows)) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] scales: found {}, {} of them above 0, expected {} above 0, one a "
        "row. Pass as many.",
        function,
        scales.size(),
        good,
        rows);
  }
}

void require_blocks(
    const char* function,
    const mx::array& logits,
    std::span<const LogitBlockId> blocks) {
  const auto n = count_logit_blocks(static_cast<std::size_t>(logits.shape(1)));
  for (const LogitBlockId& id : blocks) {
    check_range(function, "row", id.row, 1, logits.shape(0));
    check_range(function, "block", id.block, 1, static_cast<int>(n));
  }
}

void require_labels(
    const char* function,
    const mx::array& logits,
    std::span<const std::int32_t> labels,
    std::span<const float> weights) {
  const std::size_t rows = logits.ndim() == 2 ? logits.shape(0) : 0;
  if (logits.ndim() != 2 || labels.size() != rows || weights.size() != rows) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] found {} labels and {} weights, expected one of each for the {} "
        "rows of logits, [T, V].",
        function,
        labels.size(),
        weights.size(),
        rows);
  }
  for (const std::int32_t label : labels) {
    if (label < 0 || label >= logits.shape(1)) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] label: found {}, expected a token below {}.",
          function,
          label,
          logits.shape(1));
    }
  }
}

void require_weights(
    const char* function,
    const mx::array& logits,
    std::span<const float> weights) {
  if (logits.ndim() != 2 ||
      weights.size() != static_cast<std::size_t>(logits.shape(0))) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] found {} weights, expected one for each of the rows of {}.",
        function,
        weights.size(),
        shape_text(logits));
  }
}

} // namespace optiq::kernels
