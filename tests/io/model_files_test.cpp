#include "optiq/io/model_files.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::io {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::ScratchFolder;
using test::write_file;

TEST(ModelFolder, HoldsWhatWeAndHubsWriteAndNothingElse) {
  for (const char* file :
       {"config.json",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "README.md",
        "LICENSE",
        "LICENSE.txt",
        "tokenizer.json",
        "chat_template.jinja",
        "optiq/metadata.json",
        "optiq/mtp.safetensors",
        "optiq/eval_ppl.json",
        "optiq/kv_cache/kv_config.json",
        ".gitattributes"}) {
    EXPECT_TRUE(holds_file(model_folder(), file)) << file;
  }
  for (const char* file :
       {"main.c",
        "model.py",
        "notes.txt",
        "xmodel.safetensors",
        "sub/config.json",
        "LICENSE/x",
        "optiq/notes.json",
        "optiq/model.safetensors",
        ".git/HEAD",
        ".config.json",
        "model/x.safetensors",
        "package.json"}) {
    EXPECT_FALSE(holds_file(model_folder(), file)) << file;
  }
  for (const char* folder : {"optiq", "optiq/kv_cache"}) {
    EXPECT_TRUE(holds_folder(model_folder(), folder)) << folder;
  }
  for (const char* folder : {".git", "src", "opti", "kv_cache", "LICENSE"}) {
    EXPECT_FALSE(holds_folder(model_folder(), folder)) << folder;
  }
}

TEST(RequireApartFromModel, RefusesAFileOfTheModelUnderAnyName) {
  const ScratchFolder folder;
  const fs::path model = folder / "model";
  fs::create_directory(model);
  write_file(folder / "blob", "weights");
  write_file(model / "config.json", "{}");
  write_file(model / "page.html", "mine");
  fs::create_symlink("../blob", model / "model.safetensors");
  fs::create_symlink("model/config.json", folder / "link");
  fs::create_hard_link(model / "config.json", folder / "second-name");
  for (const char* name :
       {"model/config.json",
        "model/../model/config.json",
        "link",
        "second-name",
        "blob",
        "model/model.safetensors"}) {
    expect_error(ErrorKind::InvalidInput, {name, "is read from"}, [&] {
      require_apart_from_model(folder / name, model);
    });
  }
  for (const char* name : {"model", "model/page.html", "model/new", "other"}) {
    EXPECT_NO_THROW(require_apart_from_model(folder / name, model)) << name;
  }
  write_file(folder / "m.gguf", "GGUF");
  expect_error(ErrorKind::InvalidInput, {"m.gguf"}, [&] {
    require_apart_from_model(folder / "m.gguf", folder / "m.gguf");
  });
}

} // namespace
} // namespace optiq::io
