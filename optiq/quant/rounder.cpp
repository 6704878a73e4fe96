#include "optiq/quant/rounder.h"

#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "optiq/quant/inventory.h"

namespace optiq::quant {
namespace {

std::size_t bytes_of(const kernels::AffineWeights& q) {
  return q.weight.nbytes() + q.scales.nbytes() + q.biases.nbytes();
}

struct RoundedWeights {
  using Key = std::tuple<std::string, int, int>; // name, bits, group size

  std::map<Key, kernels::AffineWeights> kept;
  std::size_t bytes = 0; // of what is kept
};

} // namespace

kernels::AffineWeights round_to_nearest(
    const models::CheckpointTensor& weight,
    int bits,
    int group_size) {
  return kernels::quantize_affine(weight.load(), bits, group_size);
}

Rounder memoized(Rounder rounder, std::size_t max_bytes) {
  return [rounder = std::move(rounder),
          max_bytes,
          rounded = std::make_shared<RoundedWeights>()](
             const models::CheckpointTensor& weight, int bits, int group_size) {
    const RoundedWeights::Key key{weight.name, bits, group_size};
    const auto found = rounded->kept.find(key);
    if (found != rounded->kept.end()) {
      return found->second;
    }
    kernels::AffineWeights made = rounder(weight, bits, group_size);
    if (rounded->bytes + bytes_of(made) <= max_bytes) {
      rounded->bytes += bytes_of(made);
      rounded->kept.emplace(key, made);
    }
    return made;
  };
}

MatrixMaker matrix_maker(
    const models::Checkpoint& checkpoint,
    Rounder rounder,
    kernels::Device& device) {
  return [&checkpoint, &device, rounder = std::move(rounder)](
             const std::string& module, int bits, int group_size) {
    const kernels::AffineWeights q =
        rounder(weight_of(checkpoint, module), bits, group_size);
    return device.quantized(q.weight, q.scales, q.biases, bits, group_size);
  };
}

} // namespace optiq::quant
