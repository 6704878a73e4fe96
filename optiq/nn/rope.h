#pragma once

#include <vector>

namespace optiq::nn {

/** theta^(-2i / rotary_dim) for i < rotary_dim / 2: the default RoPE
 * (arXiv 2104.09864). */
std::vector<float> rope_inverse_frequencies(double theta, int rotary_dim);

} // namespace optiq::nn
