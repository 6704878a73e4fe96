#pragma once

#include <memory>

#include "optiq/models/model.h"

namespace optiq::models {

/**
 * The model with its operations run by `device`, which stands before the
 * model's own and reads what lies there, as a tape does that notes them. The
 * weights are shared; `device` outlives the result. Throws Unsupported for a
 * model that is no decoder of the families'.
 */
std::unique_ptr<Model> run_on(const Model& model, kernels::Device& device);

} // namespace optiq::models
