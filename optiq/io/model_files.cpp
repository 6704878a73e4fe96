#include "optiq/io/model_files.h"

#include <system_error>

#include "optiq/base/error.h"

namespace optiq::io {
namespace {

namespace fs = std::filesystem;

// What text generation needs. Python code is not carried: nothing here runs it.
const std::vector<std::string> kSideFiles = {
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "LICENSE*",
    "NOTICE*",
};

FolderKind make_model_folder() {
  FolderKind kind{
      .name = "a model directory",
      .files =
          {"config.json",
           "model*.safetensors",
           "model.safetensors.index.json",
           "README.md",
           "optiq/metadata.json",
           "optiq/sensitivity.json",
           "optiq/mtp.safetensors",
           "optiq/eval*.json",
           "optiq/kv_cache/kv_config.json",
           "optiq/kv_cache/kv_sensitivity.json",
           // The Python original's.
           "kv_config.json",
           "optiq_metadata.json",
           "optiq_vision.safetensors",
           // What hubs and other converters keep beside a model.
           ".gitattributes",
           "preprocessor_config.json",
           "processor_config.json",
           "video_preprocessor_config.json"},
      .required = {"config.json", "model*.safetensors"}};
  kind.files.insert(kind.files.end(), kSideFiles.begin(), kSideFiles.end());
  return kind;
}

void refuse_if_same(
    const fs::path& file,
    const fs::path& part,
    const fs::path& model) {
  std::error_code absent; // then it is another
  if (fs::equivalent(file, part, absent)) {
    fail(
        ErrorKind::InvalidInput,
        "[require_apart_from_model] {}: the model {} is read from this file. "
        "Choose another name",
        file.string(),
        model.string());
  }
}

} // namespace

const std::vector<std::string>& side_file_globs() {
  return kSideFiles;
}

const FolderKind& model_folder() {
  static const FolderKind kind = make_model_folder();
  return kind;
}

void require_apart_from_model(const fs::path& file, const fs::path& model) {
  std::error_code none; // what cannot be listed was not read
  if (!fs::is_directory(model, none)) {
    refuse_if_same(file, model, model);
  }
  for (fs::directory_iterator at(model, none), end; !none && at != end;
       at.increment(none)) {
    if (holds_file(model_folder(), at->path().filename().string())) {
      refuse_if_same(file, at->path(), model);
    }
  }
}

} // namespace optiq::io
