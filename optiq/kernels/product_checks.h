#pragma once

#include "optiq/kernels/device.h"

namespace optiq::kernels {

/** Throws InvalidInput unless what comes behind the projections fits their
 * number and sizes. Messages begin with `function`. */
void check_product(const char* function, const Product& product);

} // namespace optiq::kernels
