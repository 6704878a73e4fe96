#pragma once

#include <cstdint>
#include <map>

#include "optiq/kernels/device.h"

namespace optiq::train {

namespace mx = mlx::core;

/** Which inputs of low-rank updates are dropped in a forward. */
struct DropoutOptions {
  float rate = 0.f; // of the inputs; 0: none
  std::uint64_t seed = 0; // of this forward
};

/**
 * Dropout (Srivastava et al., 2014) as PEFT has it: of what the matrix A of an
 * update reads, and of nothing else, each value is 0 with the probability
 * `rate`, and 1 / (1 - rate) times itself otherwise, for every module by
 * itself. A mask follows from the seed, the module's number and the place in
 * the batch, so that a layer that runs again, and training that goes on, meet
 * the same.
 */
class Dropout {
 public:
  Dropout() = default; // drops nothing
  explicit Dropout(const DropoutOptions& options) : options_(options) {}

  bool is_on() const {
    return options_.rate > 0.f;
  }
  /** Gives the module with this A its number. */
  void add_module(const mx::array& a, std::uint64_t number) {
    numbers_.emplace(a.id(), number);
  }
  /** The mask of the module with this A times x [T, in], whose first row is row
   * `first` of the batch. Its own derivative: it is linear and diagonal. Copies
   * to the host and back. */
  mx::array apply(
      kernels::Device& device,
      const mx::array& x,
      const mx::array& a,
      int first) const;

 private:
  DropoutOptions options_;
  std::map<std::uintptr_t, std::uint64_t> numbers_; // by the handle of A
};

} // namespace optiq::train
