#pragma once

#include <string>

#include <mlx/array.h>

/** What the reader and the writer of the format share. */
namespace optiq::io {

namespace mx = mlx::core;

inline constexpr const char* kMetadataKey = "__metadata__";

/** "BF16"; throws Unsupported for a dtype that is never written. */
const char* dtype_name(mx::Dtype dtype);

/** "[2, 3]". */
std::string shape_text(const mx::Shape& shape);

} // namespace optiq::io
