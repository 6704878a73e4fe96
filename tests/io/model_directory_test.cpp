#include "optiq/io/model_directory.h"

#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "io/safetensors_cases.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::io {
namespace {

using test::expect_error;
using test::ScratchFolder;
using test::write_file;

/** A file with one U8 tensor of the given name. */
std::string tensor_file(const std::string& name) {
  return test::file_bytes(
      "{" + test::entry(name, "\"U8\"", "[4]", "[0,4]") + "}", 4);
}

void write_index(const ScratchFolder& folder, const std::string& weight_map) {
  write_file(
      folder / "model.safetensors.index.json",
      "{\"metadata\":{},\"weight_map\":" + weight_map + "}");
}

ModelDirectory open(const ScratchFolder& folder) {
  return ModelDirectory::open(folder.path());
}

TEST(ModelDirectory, NamesWhatIsMissing) {
  const ScratchFolder folder;
  expect_error(ErrorKind::NotFound, {"absent"}, [&] {
    ModelDirectory::open(folder / "absent");
  });
  expect_error(ErrorKind::NotFound, {"config.json"}, [&] { open(folder); });
  expect_error(ErrorKind::NotFound, {"config.json", "not a directory"}, [&] {
    write_file(folder / "config.json", "{}");
    ModelDirectory::open(folder / "config.json");
  });
  expect_error(
      ErrorKind::NotFound, {"model*.safetensors"}, [&] { open(folder); });
}

TEST(ModelDirectory, SaysWhatOtherWeightsItFound) {
  for (const char* name : {"pytorch_model.bin", "a.pt", "a.pth"}) {
    const ScratchFolder folder;
    write_file(folder / "config.json", "{}");
    write_file(folder / name, "x");
    expect_error(ErrorKind::Unsupported, {name}, [&] { open(folder); });
  }
}

TEST(ModelDirectory, NamesTheGgufFileThatWasMeant) {
  const ScratchFolder folder;
  write_file(folder / "model-q4.gguf", "x");
  const auto open_it = [&] { open(folder); };
  expect_error(ErrorKind::NotFound, {"config.json", "model-q4.gguf"}, open_it);
  write_file(folder / "config.json", "{}");
  expect_error(ErrorKind::NotFound, {"safetensors", "model-q4.gguf"}, open_it);
}

TEST(ModelDirectory, ConfigMustBeAnObject) {
  const ScratchFolder folder;
  for (const char* text : {"", "[]", "null", "{", "{\"a\":NaN}"}) {
    write_file(folder / "config.json", text);
    expect_error(ErrorKind::Corrupt, {"config.json"}, [&] { open(folder); });
  }
}

TEST(ModelDirectory, TaggedFloatsAreDecoded) {
  const ScratchFolder folder;
  write_file(folder / "model.safetensors", tensor_file("t"));
  write_file(
      folder / "config.json",
      R"({"a":[{"__float__":"Infinity"},{"b":{"__float__":"-Infinity"}}],)"
      R"("c":{"__float__":"NaN"},"d":{"__float__":"NaN","e":1}})");
  const ModelDirectory model = open(folder);
  const auto& config = model.config();
  EXPECT_EQ(config.at("a")[0].get<double>(), HUGE_VAL);
  EXPECT_EQ(config.at("a")[1].at("b").get<double>(), -HUGE_VAL);
  EXPECT_TRUE(std::isnan(config.at("c").get<double>()));
  EXPECT_TRUE(config.at("d").is_object()); // two keys: an object of its own
  write_file(folder / "config.json", R"({"a":{"__float__":"Infinite"}})");
  expect_error(ErrorKind::Corrupt, {"Infinite"}, [&] { open(folder); });
}

TEST(ModelDirectory, GenerationConfigIsOptional) {
  const ScratchFolder folder;
  write_file(folder / "config.json", "{}");
  write_file(folder / "model.safetensors", tensor_file("t"));
  EXPECT_TRUE(open(folder).generation_config().empty());
  write_file(folder / "generation_config.json", "{\"top_k\":20}");
  EXPECT_EQ(open(folder).generation_config().at("top_k"), 20);
}

TEST(ModelDirectory, TheIndexDecidesWhichFilesAreShards) {
  const ScratchFolder folder;
  write_file(folder / "config.json", "{}");
  write_file(folder / "model-b.safetensors", tensor_file("b"));
  write_file(folder / "weights.safetensors", tensor_file("w"));
  write_file(folder / "model-a.safetensors", tensor_file("a"));
  const auto names = [&] {
    std::vector<std::string> found;
    const ModelDirectory model = open(folder);
    for (const TensorInfo& tensor : model.tensors()) {
      found.push_back(tensor.name);
    }
    return found;
  };
  EXPECT_EQ(names(), (std::vector<std::string>{"a", "b"})); // the glob
  write_index(
      folder, R"({"w":"weights.safetensors","b":"model-b.safetensors"})");
  EXPECT_EQ(names(), (std::vector<std::string>{"b", "w"}));
}

TEST(ModelDirectory, AMissingShardIsNamed) {
  const ScratchFolder folder;
  write_file(folder / "config.json", "{}");
  write_file(folder / "model-1.safetensors", tensor_file("a"));
  write_index(
      folder, R"({"a":"model-1.safetensors","b":"model-2.safetensors"})");
  expect_error(
      ErrorKind::NotFound,
      {"model-2.safetensors", "model.safetensors.index.json"},
      [&] { open(folder); });
}

TEST(ModelDirectory, ShardNamesMustStayInTheDirectory) {
  const ScratchFolder folder;
  write_file(folder / "config.json", "{}");
  write_file(folder / "model-a.safetensors", tensor_file("a"));
  for (const char* name :
       {"\"../model.safetensors\"",
        "\"/etc/passwd\"",
        "\"./model.safetensors\"",
        "\"sub/model.safetensors\"",
        "\"..\"",
        "\".\"",
        "\"\"",
        "\"model.safetensors\\u0000\"",
        "7",
        "null"}) {
    write_index(folder, "{\"a\":" + std::string(name) + "}");
    expect_error(ErrorKind::Corrupt, {"'a'", "index"}, [&] { open(folder); });
  }
  write_index(folder, "[]");
  expect_error(ErrorKind::Corrupt, {"weight_map"}, [&] { open(folder); });
}

TEST(ModelDirectory, ATensorInTwoShardsIsRefused) {
  const ScratchFolder folder;
  write_file(folder / "config.json", "{}");
  write_file(folder / "model-1.safetensors", tensor_file("a"));
  write_file(folder / "model-old.safetensors", tensor_file("a"));
  expect_error(ErrorKind::Corrupt, {"'a'", "model-old.safetensors"}, [&] {
    open(folder);
  });
}

TEST(ModelDirectory, KeptVisionTowersAreNoShard) {
  const ScratchFolder folder;
  write_file(folder / "config.json", "{}");
  write_file(folder / "model.safetensors", tensor_file("a"));
  write_file(folder / "optiq_vision.safetensors", tensor_file("v"));
  write_index(
      folder, R"({"a":"model.safetensors","v":"optiq_vision.safetensors"})");
  const ModelDirectory model = open(folder);
  EXPECT_FALSE(model.has("v"));
  EXPECT_EQ(
      model.file_bytes(),
      std::filesystem::file_size(folder / "model.safetensors"));
}

TEST(CopySideFiles, CarriesWhatTextNeedsAndLicences) {
  const ScratchFolder from;
  const ScratchFolder to;
  const std::set<std::string> carried = {
      "generation_config.json",
      "tokenizer.json",
      "tokenizer_config.json",
      "special_tokens_map.json",
      "vocab.json",
      "merges.txt",
      "tokenizer.model",
      "chat_template.jinja",
      "chat_template.json",
      "added_tokens.json",
      "LICENSE",
      "LICENSE.txt",
      "NOTICE",
      "NOTICE.md"};
  for (const std::string& name : carried) {
    write_file(from / name, name + " content");
  }
  for (const char* name :
       {"config.json",
        "modeling.py",
        "preprocessor_config.json",
        "README.md",
        "model.safetensors",
        "model.safetensors.index.json"}) {
    write_file(from / name, "left behind");
  }
  std::filesystem::create_directory(from / "LICENSES"); // not a file
  copy_side_files(from.path(), to.path());
  std::set<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(to.path())) {
    const std::string name = entry.path().filename().string();
    found.insert(name);
    EXPECT_EQ(test::read_file(entry.path()), name + " content");
  }
  EXPECT_EQ(found, carried);
}

TEST(CopySideFiles, FollowsLinks) {
  const ScratchFolder from;
  const ScratchFolder to;
  write_file(from / "blob", "{}");
  std::filesystem::create_symlink("blob", from / "tokenizer.json");
  copy_side_files(from.path(), to.path());
  EXPECT_FALSE(std::filesystem::is_symlink(to / "tokenizer.json"));
  EXPECT_EQ(test::read_file(to / "tokenizer.json"), "{}");
}

} // namespace
} // namespace optiq::io
