#include "optiq/kernels/product_checks.h"

#include "optiq/base/error.h"

namespace optiq::kernels {

void check_product(const char* function, const Product& product) {
  const std::size_t n = product.projections.size();
  if ((product.activation && n != 2) ||
      (product.residual != nullptr && n != 1)) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] found {} projections, expected 2 for an activation and 1 for a "
        "residual.",
        function,
        n);
  }
  if (product.activation) {
    const int gate = product.projections[0].weight->out_features();
    const int up = product.projections[1].weight->out_features();
    if (gate != up) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] up: found {} outputs, expected the {} of gate.",
          function,
          up,
          gate);
    }
  }
}

} // namespace optiq::kernels
