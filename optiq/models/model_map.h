#pragma once

#include "optiq/artifacts/model_map.h"
#include "optiq/io/model_directory.h"

namespace optiq::models {

/** What the bytes of a model directory are, from its headers alone. */
artifacts::ModelMap map_model(const io::ModelDirectory& directory);

} // namespace optiq::models
