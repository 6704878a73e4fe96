#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include <mlx/array.h>

/** The only place that touches the memory of MLX arrays. */
namespace optiq::io {

namespace mx = mlx::core;

/** A new evaluated, uninitialized, row-contiguous CPU array. Throws Exhausted.
 */
mx::array make_array(const mx::Shape& shape, mx::Dtype dtype);

/** An array that views foreign memory; `owner` lives as long as the view.
 * Copies where the device cannot view it. */
mx::array view_array(
    const void* data,
    const mx::Shape& shape,
    mx::Dtype dtype,
    std::shared_ptr<const void> owner);

/** Evaluated and row-contiguous (evaluates or copies when it is not). */
mx::array materialize(const mx::array& x);

/** The elements of an evaluated row-contiguous array under another shape of
 * equal size; shares the memory. */
mx::array reshaped(const mx::array& x, const mx::Shape& shape);

/** Rows [begin, begin + n) of the first axis of an evaluated row-contiguous
 * array; shares the memory. */
mx::array row_range(const mx::array& x, int begin, int n);

/** Rows (ascending) of an evaluated row-contiguous float32 array; one range
 * shares its memory. */
mx::array take_rows(const mx::array& x, std::span<const int> rows);

/** Elements of an evaluated row-contiguous float32 array. */
std::span<const float> floats(const mx::array& x);
/** Elements of an array of make_array that nobody else holds yet. */
std::span<float> mutable_floats(mx::array& x);

} // namespace optiq::io
