// The scaling of RoPE: keys <architecture>.rope.scaling.*, and tensors of
// divisors, one per frequency: rope_freqs (Llama 3.x; the numbers they were
// computed from are not stored), rope_factors_long and rope_factors_short
// (LongRoPE).
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "optiq/io/gguf/architecture_impl.h"

namespace optiq::io {
namespace {

using artifacts::Json;

constexpr const char* kRopeFactors = "rope_freqs.weight";
constexpr const char* kLongFactors = "rope_factors_long.weight";
constexpr const char* kShortFactors = "rope_factors_short.weight";

/** What Llama 3.x divides its frequencies by (docs/formats.md, GGUF): 1 at
 * short wavelengths, `factor` at long ones, a blend between. */
double llama3_divisor(double wavelength, double factor) {
  constexpr double kLow = 1; // low_freq_factor
  constexpr double kHigh = 4; // high_freq_factor
  constexpr double kOriginal = 8192; // original_max_position_embeddings
  if (wavelength < kOriginal / kHigh) {
    return 1;
  }
  if (wavelength > kOriginal / kLow) {
    return factor;
  }
  const double blend = (kOriginal / wavelength - kLow) / (kHigh - kLow);
  return 1 / ((1 - blend) / factor + blend);
}

std::vector<float>
read_divisors(const GgufFile& file, const GgufTensor& tensor, int rotary_dim) {
  const auto n = static_cast<std::size_t>(rotary_dim / 2);
  if (tensor.type != GgufType::F32 || tensor.nbytes != n * sizeof(float)) {
    reject_config(
        ErrorKind::Corrupt,
        file,
        "tensor '{}': found {} bytes of {}, expected {} numbers of F32",
        tensor.name,
        tensor.nbytes,
        name_of(tensor.type),
        n);
  }
  std::vector<float> divisors(n);
  std::memcpy(divisors.data(), file.bytes(tensor).data(), tensor.nbytes);
  return divisors;
}

/** The llama3 scaling whose divisors the file stores, recognized by its values.
 */
Json llama3_scaling(
    const GgufFile& file,
    const GgufTensor& tensor,
    double rope_theta,
    int rotary_dim) {
  const std::vector<float> divisors = read_divisors(file, tensor, rotary_dim);
  const double factor = divisors.back();
  for (std::size_t i = 0; i < divisors.size(); ++i) {
    const double wavelength = 2 * std::numbers::pi *
        std::pow(rope_theta, 2.0 * static_cast<double>(i) / rotary_dim);
    const double expected = llama3_divisor(wavelength, factor);
    // The converter computes in float32: a few units of 2^-24 in the frequency,
    // up to `factor` times as much where it is blended.
    constexpr double kTolerance = 1e-5;
    if (!(std::abs(divisors[i] - expected) <= kTolerance * expected * factor)) {
      reject_config(
          ErrorKind::Unsupported,
          file,
          "tensor '{}': divisor {} is {}, expected {} as Llama 3.x scales its "
          "frequencies (factor {}, 1, 4, 8192). Use the Hugging Face directory "
          "of this model instead",
          tensor.name,
          i,
          divisors[i],
          expected,
          factor);
    }
  }
  return {
      {"rope_type", "llama3"},
      {"factor", shortest_decimal(factor)},
      {"low_freq_factor", 1.0},
      {"high_freq_factor", 4.0},
      {"original_max_position_embeddings", 8192}};
}

Json yarn_scaling(const GgufKeys& keys) {
  if (keys.positive_or("rope.scaling.yarn_ext_factor", 1) != 1) {
    reject_config(
        ErrorKind::Unsupported,
        keys.file(),
        "key '{}': found a share of extrapolation other than 1. Use the "
        "Hugging Face directory of this model instead",
        keys.name_of("rope.scaling.yarn_ext_factor"));
  }
  Json scaling = {
      {"rope_type", "yarn"},
      {"factor", keys.positive("rope.scaling.factor")},
      {"original_max_position_embeddings",
       keys.integer("rope.scaling.original_context_length", kMaxGgufPositions)},
      {"beta_fast", keys.positive_or("rope.scaling.yarn_beta_fast", 32)},
      {"beta_slow", keys.positive_or("rope.scaling.yarn_beta_slow", 1)}};
  if (keys.has("rope.scaling.yarn_attn_factor")) {
    scaling["attention_factor"] =
        keys.positive("rope.scaling.yarn_attn_factor");
  }
  const double all_dim = keys.nonzero_or("rope.scaling.yarn_log_multiplier", 0);
  if (all_dim != 0) { // models that state it state mscale 1 (Mistral)
    scaling["mscale"] = 1.0;
    scaling["mscale_all_dim"] = all_dim;
  }
  return scaling;
}

Json longrope_scaling(const GgufKeys& keys, int rotary_dim) {
  Json scaling = {{"type", "longrope"}, {"rope_type", "longrope"}};
  for (const auto& [tensor_name, key] :
       {std::pair{kLongFactors, "long_factor"},
        std::pair{kShortFactors, "short_factor"}}) {
    const GgufTensor* tensor = keys.find_tensor(tensor_name);
    if (tensor == nullptr) {
      reject_config(
          ErrorKind::Corrupt,
          keys.file(),
          "found no tensor '{}', expected it beside the other factors",
          tensor_name);
    }
    Json& factors = scaling[key] = Json::array();
    for (const float divisor :
         read_divisors(keys.file(), *tensor, rotary_dim)) {
      factors.push_back(shortest_decimal(divisor));
    }
  }
  if (keys.has("rope.scaling.attn_factor")) {
    scaling["attention_factor"] = keys.positive("rope.scaling.attn_factor");
  }
  return scaling;
}

} // namespace

Json gguf_rope_scaling(
    const GgufKeys& keys,
    double rope_theta,
    int rotary_dim) {
  const std::string key = keys.name_of("rope.scaling.type");
  const std::string type = keys.file().text(key).value_or("none");
  const GgufTensor* divisors = keys.find_tensor(kRopeFactors);
  if (divisors != nullptr && type == "none") {
    return llama3_scaling(keys.file(), *divisors, rope_theta, rotary_dim);
  }
  const bool has_factors = keys.find_tensor(kLongFactors) != nullptr ||
      keys.find_tensor(kShortFactors) != nullptr;
  if (divisors == nullptr && has_factors &&
      (type == "none" || type == "longrope")) {
    return longrope_scaling(keys, rotary_dim);
  }
  if (divisors == nullptr && !has_factors) {
    if (type == "none") {
      return nullptr;
    }
    if (type == "linear") {
      return {
          {"rope_type", "linear"},
          {"factor", keys.positive("rope.scaling.factor")}};
    }
    if (type == "yarn") {
      return yarn_scaling(keys);
    }
  }
  reject_config(
      ErrorKind::Unsupported,
      keys.file(),
      "key '{}': found '{}'{}, expected none, linear, yarn, the divisors of "
      "Llama 3.x or those of longrope. Use the Hugging Face directory of this "
      "model instead",
      key,
      type,
      divisors != nullptr ? " with rope_freqs" : "");
}

bool is_rope_tensor(const std::string& name) {
  return name == kRopeFactors || name == kLongFactors || name == kShortFactors;
}

} // namespace optiq::io
