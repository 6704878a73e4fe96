#pragma once

#include <cstdint>
#include <vector>

#include "optiq/kernels/cpu/kv_layout.h"
#include "optiq/kernels/kernels.h"

namespace optiq::kernels {

/** A rotation of vectors of `dim` values, with its tables. */
class Rotation {
 public:
  Rotation(KvRotation kind, int dim, std::uint64_t seed);

  cpu::RotationView view() const {
    return {dim_, signs_, columns_, rows_};
  }

 private:
  std::size_t dim_;
  std::vector<float> signs_;
  std::vector<float> columns_;
  std::vector<float> rows_;
};

struct KvRotations {
  Rotation key;
  Rotation value;
};

/** The table of a width, 1..5 bits. */
const cpu::CodeTable& code_table(int bits);

/** What the kernels read. Points into `format`'s rotations. */
cpu::KvLayout layout_of(const KvFormat& format);

} // namespace optiq::kernels
