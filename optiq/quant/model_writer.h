#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/progress.h"
#include "optiq/io/model_directory.h"
#include "optiq/models/checkpoint.h"
#include "optiq/quant/rounder.h"

/**
 * An MLX model directory from a source directory and a plan:
 *   config.json                    source's, with `quantization` (twice)
 *   model*.safetensors, index      tensors in source order under MLX names
 *   optiq/metadata.json            plan and provenance
 *   optiq/sensitivity.json         when measured
 *   optiq/mtp.safetensors          when the source has an MTP head
 *   README.md, tokenizer and other side files
 * Nothing in it depends on the time or on where it was made.
 */
namespace optiq::quant {

struct ModelToWrite {
  const io::ModelDirectory& source;
  const models::Checkpoint& checkpoint;
  const artifacts::Metadata& metadata;
  const std::optional<artifacts::Sensitivity>& sensitivity;
  Rounder rounder = round_to_nearest;
};

/** Summed bytes of the files that write_model makes. */
std::uint64_t written_bytes(const ModelToWrite& model);

/** Writes everything into an existing empty directory, flushed to the disk;
 * reports bytes (stage "write"). Throws Io, Denied, Exhausted. */
void write_model(
    const ModelToWrite& model,
    const std::filesystem::path& directory,
    const ProgressSink& progress);

/** Reads a written directory back and compares it with the plan: widths by the
 * tensors' shapes, bytes of the files, metadata. Throws Internal naming the
 * first difference. */
void verify_model(
    const ModelToWrite& model,
    const std::filesystem::path& directory);

/** Bytes of optiq/mtp.safetensors; 0 without an MTP head. */
std::uint64_t mtp_bytes(
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan);

/** config.json of the result. */
artifacts::Json make_config(
    const io::ModelDirectory& source,
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan);

} // namespace optiq::quant
