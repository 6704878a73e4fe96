#include "optiq/cli/kv_options.h"

#include <charconv>
#include <filesystem>
#include <tuple>
#include <utility>

#include "optiq/artifacts/affine_format.h"
#include "optiq/base/error.h"

namespace optiq::cli {
namespace {

double parse_bits(const std::string& text, const std::string& all) {
  double bits = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), bits);
  if (error != std::errc() || end != text.data() + text.size() || bits <= 0) {
    fail(
        ErrorKind::InvalidInput,
        "[--kv-bits] found '{}', expected a width as in 4, or those of keys "
        "and values as in 4,2",
        all);
  }
  return bits;
}

/** "4" -> 4, 4; "4,2" -> 4, 2. */
std::pair<double, double> parse_sides(const std::string& text) {
  const std::size_t comma = text.find(',');
  const double keys = parse_bits(text.substr(0, comma), text);
  return {
      keys,
      comma == std::string::npos ? keys
                                 : parse_bits(text.substr(comma + 1), text)};
}

} // namespace

void add_kv_options(CLI::App& command, KvFlags& flags) {
  command
      .add_option(
          "--kv-config", flags.config, "K/V cache per layer: a kv_config.json")
      ->option_text("FILE");
  command
      .add_option(
          "--kv-bits",
          flags.bits,
          "K/V cache of every layer: bits, or those of keys and values")
      ->option_text("N[,N]");
  command.add_option("--kv-method", flags.method, "How: affine (default)")
      ->check(CLI::IsMember({"affine", "turbo"}))
      ->option_text("affine|turbo");
  command
      .add_option(
          "--kv-rotation",
          flags.rotation,
          "turbo rotates by: hadamard (default)")
      ->check(CLI::IsMember({"hadamard", "orthogonal"}))
      ->option_text("hadamard|orthogonal");
  command.add_option(
      "--kv-seed", flags.codec.seed, "turbo: seed of rotations [42]");
  command
      .add_option(
          "--kv-group-size",
          flags.codec.group_size,
          "affine: values of a group [64]")
      ->check(CLI::IsMember(std::vector<int>(
          std::begin(artifacts::kAffineGroupSizes),
          std::end(artifacts::kAffineGroupSizes))))
      ->option_text(
          fmt::format("{}", fmt::join(artifacts::kAffineGroupSizes, "|")));
}

artifacts::KvConfig kv_config_of(
    const KvFlags& flags,
    const models::Model& model) {
  if (!flags.config.empty()) {
    return artifacts::read_kv_config(flags.config);
  }
  artifacts::KvConfig config;
  if (flags.bits.empty()) {
    return config;
  }
  artifacts::KvCodec codec = flags.codec;
  std::tie(codec.key_bits, codec.value_bits) = parse_sides(flags.bits);
  if (!flags.method.empty()) {
    codec.method = artifacts::kv_method_of(flags.method);
  }
  if (!flags.rotation.empty()) {
    codec.rotation = artifacts::kv_rotation_of(flags.rotation);
  }
  for (const int layer : models::kv_layers(model)) {
    config.layers.push_back({.layer_idx = layer, .codec = codec});
  }
  if (config.layers.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[--kv-bits] this model has no attention layer with a K/V cache");
  }
  return config;
}

models::Setup make_setup(
    const std::shared_ptr<const models::Model>& model,
    kernels::Compute compute,
    const KvFlags& flags) {
  return {model, compute, kv_config_of(flags, *model).layers};
}

std::string describe_kv(const KvFlags& flags) {
  if (!flags.config.empty()) {
    return std::filesystem::path(flags.config).filename().string();
  }
  if (flags.bits.empty()) {
    return "dense";
  }
  const std::string method = flags.method.empty() ? "affine" : flags.method;
  const std::string rotation =
      flags.rotation.empty() ? "" : " " + flags.rotation;
  return method + rotation + " " + flags.bits;
}

} // namespace optiq::cli
