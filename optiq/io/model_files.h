#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "optiq/base/folder_kind.h"

/** Which files a model directory holds, by name. */
namespace optiq::io {

/** Files that a conversion carries from its source: tokenizer, chat template,
 * generation defaults, licences; globs as FolderKind's. */
const std::vector<std::string>& side_file_globs();

/** A model directory: what optiq convert writes, eval and kv-cache add, and
 * hubs keep beside. */
const FolderKind& model_folder();

/** Throws InvalidInput when `file`, which is to be written, is one that a model
 * (a directory or a GGUF file) is read from, under this or another name. */
void require_apart_from_model(
    const std::filesystem::path& file,
    const std::filesystem::path& model);

} // namespace optiq::io
