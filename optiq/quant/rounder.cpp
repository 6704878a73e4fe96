#include "optiq/quant/rounder.h"

#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "optiq/artifacts/affine_format.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"
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

const char* name_of(Rounding rounding) {
  switch (rounding) {
    case Rounding::Nearest:
      return "nearest";
    case Rounding::Search:
      return "search";
    case Rounding::Gptq:
      return "gptq";
  }
  return "";
}

Rounding rounding_of(const std::string& name) {
  for (const Rounding rounding :
       {Rounding::Nearest, Rounding::Search, Rounding::Gptq}) {
    if (name == name_of(rounding)) {
      return rounding;
    }
  }
  fail(
      ErrorKind::InvalidInput,
      "[convert] --rounding {}: expected nearest, search or gptq.",
      name);
}

Rounder fitting_rounder(std::function<const InputMetrics&()> metrics) {
  return [metrics = std::move(metrics)](
             const models::CheckpointTensor& weight, int bits, int group_size) {
    const std::string module = artifacts::split_tensor_name(weight.name).module;
    return kernels::fit_affine(
        weight.load(),
        bits,
        group_size,
        metrics().of(module, static_cast<std::size_t>(weight.shape[1])));
  };
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
    if (bits == artifacts::kDenseBits) {
      return device.dense(weight_of(checkpoint, module).load());
    }
    const kernels::AffineWeights q =
        rounder(weight_of(checkpoint, module), bits, group_size);
    return device.quantized(q.weight, q.scales, q.biases, bits, group_size);
  };
}

} // namespace optiq::quant
