#pragma once

#include <mlx/array.h>

#include "optiq/io/gguf/file.h"

/** Tensors of a GGUF file as arrays. */
namespace optiq::io {

namespace mx = mlx::core;

/** Rows of a matrix of attention heads: the file stores the two halves of each
 * head's rotated dimensions interleaved (row 2i + t of a head is row
 * t * head_dim / 2 + i of the Hugging Face matrix). */
struct InterleavedHeads {
  int head_dim = 0; // 0: rows are stored in order
};

/** float32 values, exactly those of `gguf.quants.dequantize` (PyPI), of any
 * type. Throws nothing on a tensor of `file`. */
mx::array dequantize(
    const GgufFile& file,
    const GgufTensor& tensor,
    InterleavedHeads heads = {});

/** Rows [first, first + n) of the same. */
mx::array dequantize_rows(
    const GgufFile& file,
    const GgufTensor& tensor,
    InterleavedHeads heads,
    int first,
    int n);

/** F32, F16 and BF16 tensors as they are: a view of the file where rows are in
 * order and the offset is aligned for the dtype, else a copy. */
mx::array load_plain(
    const GgufFile& file,
    const GgufTensor& tensor,
    InterleavedHeads heads = {});

/** Width and parameters of the types that are MLX's affine format in groups of
 * 32: value = scale * code + bias, exactly. */
struct AffineForm {
  int bits = 0;
  mx::Dtype params = mx::float16; // of scales and biases
};
inline constexpr int kGgufGroup = 32;

/** Nothing for F32, F16 and BF16, for types in groups of 16 (Q2_K, Q3_K, Q6_K)
 * and for those whose codes are no line (IQ4_NL, IQ4_XS, MXFP4). */
std::optional<AffineForm> affine_form(GgufType type);

struct AffineParts {
  mx::array weight; // u32 [out, in * bits / 32]
  mx::array scales; // [out, in / 32]
  mx::array biases; // [out, in / 32]
};

/** The tensor [out, in] in MLX's affine format; its affine_form is not
 * nothing. Throws Unsupported for a bias that float16 cannot hold exactly. */
AffineParts split_affine(
    const GgufFile& file,
    const GgufTensor& tensor,
    InterleavedHeads heads = {});

} // namespace optiq::io
