#pragma once

#include <cstdint>
#include <vector>

#include "optiq/kernels/cpu/kv_layout.h"
#include "optiq/kernels/kv_format.h"

namespace optiq::kernels {

/** A rotation of vectors of `dim` values, with its tables. */
class Rotation {
 public:
  Rotation(KvRotation kind, int dim, std::uint64_t seed);

  cpu::RotationView view() const {
    return {signs_, columns_, rows_};
  }

 private:
  std::vector<float> signs_;
  std::vector<float> columns_;
  std::vector<float> rows_;
};

/** The table of a width, 1..5 bits. */
const cpu::CodeTable& code_table(int bits);

/** The Lloyd-Max centroids of a standard normal variable at 1..5 bits,
 * ascending: what Turbo's codes index. */
std::vector<float> turbo_centroids(int bits);

/** Turbo's rotation of vectors x [..., dim]: of the last axis, by the matrix of
 * this kind and seed; `inverse` turns back. dim is a multiple of 16. */
mx::array rotate_vectors(
    const mx::array& x,
    KvRotation kind,
    std::uint64_t seed,
    bool inverse = false);

} // namespace optiq::kernels
