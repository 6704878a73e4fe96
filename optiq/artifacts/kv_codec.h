#pragma once

#include <cstdint>
#include <string>

/** The one description of a K/V cache's format, from the command line over the
 * files to the kernels. */
namespace optiq::artifacts {

/** How a cache holds the vectors of a token. */
enum class KvMethod {
  Dense, // float32 or bfloat16
  Affine, // MLX's affine groups along head_dim, bf16 scales and biases
  Turbo, // f16 norm and Lloyd-Max codes of the rotated unit vector
};

/** What turbo rotates vectors with (arXiv 2504.19874). */
enum class KvRotation {
  Hadamard, // random signs, then a Walsh-Hadamard transform
  Orthogonal, // a random orthogonal matrix
};

/** What is known of the coding before a layer gives it a shape. Sides may
 * differ in width, and a side of 0 bits is dense. */
struct KvCodec {
  KvMethod method = KvMethod::Dense;
  double key_bits = 0; // affine 2, 3, 4, 5, 6, 8; turbo 1..5, 2.5, 3.5
  double value_bits = 0;
  int group_size = 64; // affine: 32, 64, 128; a head's last may be shorter
  KvRotation rotation = KvRotation::Hadamard; // turbo
  std::uint64_t seed = 42; // turbo: of the keys

  bool operator==(const KvCodec&) const = default;
};

const char* name_of(KvMethod method); // "dense", "affine", "turbo"
const char* name_of(KvRotation rotation); // "hadamard", "orthogonal"
/** Throw InvalidInput with the names that can be chosen: "affine", "turbo". */
KvMethod kv_method_of(const std::string& name);
KvRotation kv_rotation_of(const std::string& name);

} // namespace optiq::artifacts
