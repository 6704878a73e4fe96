#pragma once

#include <string>
#include <vector>

#include "optiq/models/checkpoint.h"
#include "optiq/quant/inventory.h"

namespace optiq::quant {

/** What the user should know of a source before it is converted: what is left
 * out, and what stays as it is. */
std::vector<std::string> source_notices(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory);

} // namespace optiq::quant
