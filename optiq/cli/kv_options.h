#pragma once

#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "optiq/artifacts/kv_config.h"
#include "optiq/models/setup.h"

namespace optiq::cli {

/** What the user said about the K/V cache. */
struct KvFlags {
  std::string config; // a kv_config.json
  std::string bits; // "4" or "4,2" (keys, values)
  std::string method;
  std::string rotation;
  artifacts::KvCodec codec{.method = artifacts::KvMethod::Affine}; // the rest
};

/** --kv-config, or --kv-bits with --kv-method and the like. */
void add_kv_options(CLI::App& command, KvFlags& flags);

/** The layers to quantize: none without a flag. Throws InvalidInput for a width
 * that is none. */
artifacts::KvConfig kv_config_of(
    const KvFlags& flags,
    const models::Model& model);

/** The model with the caches that the flags ask for. */
models::Setup make_setup(
    const std::shared_ptr<const models::Model>& model,
    kernels::Compute compute,
    const KvFlags& flags);

/** For titles: "dense", "affine 4", "turbo 4,2", "kv_config.json". */
std::string describe_kv(const KvFlags& flags);

} // namespace optiq::cli
