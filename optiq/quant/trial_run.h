#pragma once

#include <cstdint>
#include <map>

#include "optiq/io/model_directory.h"

namespace optiq::quant {

/**
 * Opens a model directory as every command does and runs one token through it,
 * a few layers in memory at a time. Throws what load_model throws; Corrupt,
 * naming the place, when a value is not finite.
 */
void run_one_token(const io::ModelDirectory& directory);

/** Bytes that it needs beside the process, of a directory whose tensors of
 * decoder layers have these bytes (by layer) and the others `outer`. */
std::uint64_t trial_run_bytes(
    const std::map<int, std::uint64_t>& layers,
    std::uint64_t outer);

} // namespace optiq::quant
