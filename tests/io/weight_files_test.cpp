#include "optiq/io/weight_files.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::io {
namespace {

using Names = std::vector<std::string>;

const std::string kWhole = "model.safetensors";
const Names kTwo = {
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors"};
const Names kThree = {
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors"};

Names joined(Names a, const Names& b) {
  a.insert(a.end(), b.begin(), b.end());
  std::sort(a.begin(), a.end());
  return a;
}

TEST(ChooseWeightFiles, AWholeFileHoldsAgainstAStaleIndex) {
  EXPECT_EQ(choose_weight_files({kWhole}, kTwo), Names{kWhole});
  // Shards that an earlier download left behind are the same weights again.
  EXPECT_EQ(choose_weight_files({kTwo[0], kWhole}, kTwo), Names{kWhole});
  EXPECT_EQ(choose_weight_files(joined(kTwo, {kWhole}), kTwo), Names{kWhole});
  EXPECT_EQ(
      choose_weight_files(joined(kTwo, {kWhole}), std::nullopt), Names{kWhole});
  EXPECT_EQ(
      choose_weight_files({"model.fp16.safetensors", kWhole}, std::nullopt),
      Names{kWhole});
}

TEST(ChooseWeightFiles, AnIndexThatNamesTheWholeFileDecides) {
  const Names indexed = {"extra.safetensors", kWhole};
  EXPECT_EQ(choose_weight_files({kWhole}, indexed), indexed);
}

TEST(ChooseWeightFiles, AWholeSetHoldsAgainstAnIndexOfOthers) {
  EXPECT_EQ(choose_weight_files(kTwo, kThree), kTwo);
  // But not a part of a set, nor beside one of the shards that are named.
  EXPECT_EQ(choose_weight_files({kTwo[0]}, kThree), kThree);
  EXPECT_EQ(choose_weight_files(joined(kTwo, {kThree[1]}), kThree), kThree);
  EXPECT_EQ(choose_weight_files({}, kThree), kThree);
}

TEST(ChooseWeightFiles, WithoutAnIndexASetIsWantedWhole) {
  EXPECT_EQ(choose_weight_files(kThree, std::nullopt), kThree);
  EXPECT_EQ(choose_weight_files({kThree[1]}, std::nullopt), kThree);
  EXPECT_EQ(
      choose_weight_files({"model-1-of-2.safetensors"}, std::nullopt),
      (Names{"model-1-of-2.safetensors", "model-2-of-2.safetensors"}));
  // Names that number no set are taken as they are.
  for (const char* name :
       {"model-0-of-2.safetensors",
        "model-3-of-2.safetensors",
        "model-1-of-2.fp16.safetensors",
        "model-1-of-99999999.safetensors",
        "model--1-of-2.safetensors",
        "model_extra.safetensors",
        "model.fp16.safetensors"}) {
    EXPECT_EQ(choose_weight_files({name}, std::nullopt), Names{name});
  }
}

TEST(FindWeightFiles, NamesWhatIsMissingAndFollowsLinks) {
  const test::ScratchFolder folder;
  EXPECT_TRUE(find_weight_files(folder.path()).names.empty());
  EXPECT_TRUE(find_weight_files(folder / "absent").names.empty());
  test::write_file(folder / "blob", "x");
  std::filesystem::create_symlink("blob", folder / kTwo[0]);
  std::filesystem::create_symlink("absent", folder / kTwo[1]);
  std::filesystem::create_directory(folder / "model.safetensors");
  const WeightFiles files = find_weight_files(folder.path());
  EXPECT_EQ(files.names, kTwo);
  EXPECT_EQ(files.missing, Names{kTwo[1]});
}

TEST(FindWeightFiles, NeedsNoIndexBesideAWholeFile) {
  const test::ScratchFolder folder;
  test::write_file(folder / "model-a.safetensors", "x");
  for (const char* text : {"", "{", "[]", R"({"weight_map":{"a":"../x"}})"}) {
    test::write_file(folder / kWeightIndexName, text);
    test::expect_error(ErrorKind::Corrupt, {"index.json"}, [&] {
      find_weight_files(folder.path());
    });
    test::write_file(folder / kWhole, "x");
    EXPECT_EQ(
        find_weight_files(folder.path()).names,
        (Names{"model-a.safetensors", kWhole}));
    std::filesystem::remove(folder / kWhole);
  }
}

} // namespace
} // namespace optiq::io
