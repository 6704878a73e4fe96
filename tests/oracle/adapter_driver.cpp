// adapter_driver write MODEL DIR SEED
//   an adapter at random values, of all linears but the head, ranks 1 to 5 and
//   scales that differ.
// adapter_driver logits MODEL DIR IDS.safetensors OUT.safetensors
//   logits [n, vocab] of the int32 tensor "ids" [n], with the adapter, exact.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "support/small_adapter.h"

#include "optiq/adapters/adapter_set.h"
#include "optiq/base/error.h"
#include "optiq/models/forward.h"

namespace optiq {
namespace {

namespace mx = mlx::core;
using kernels::Compute;

void write(const models::Model& model, char** arguments) {
  auto updates = testing::random_updates(
      model,
      {"_proj", "_qkv", "_z", "_a", "_b"},
      5,
      static_cast<unsigned>(std::atoi(arguments[1])),
      0.1f);
  std::filesystem::create_directory(arguments[0]);
  adapters::write_adapter(
      {.updates = std::move(updates),
       .base_model = "tiny",
       .record = artifacts::Json::object()},
      arguments[0]);
}

void write_logits(
    const std::shared_ptr<const models::Model>& model,
    char** arguments) {
  adapters::AdapterSet set(model, {.compute = Compute::Exact});
  adapters::mount_adapter(set, "one", arguments[0]);
  models::Setup setup(model, Compute::Exact);
  setup.adapter = set.find("one");
  const auto file = io::SafetensorsFile::open(arguments[1]);
  const mx::array values = file.load(file.tensors().front());
  const std::vector<std::int32_t> ids(
      values.data<std::int32_t>(), values.data<std::int32_t>() + values.size());
  std::vector<int> wanted;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    wanted.push_back(static_cast<int>(i));
  }
  const auto pool = std::make_shared<cache::BlockPool>(std::size_t{1} << 28);
  cache::Sequence sequence(pool, setup.layout);
  testing::write_tensors(
      arguments[2],
      {{"logits", models::Forward(setup).add(sequence, ids, wanted).run()}});
}

} // namespace
} // namespace optiq

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if ((verb != "write" || argc != 5) && (verb != "logits" || argc != 6)) {
    std::fprintf(stderr, "expected the arguments that the source names\n");
    return 2;
  }
  try {
    const std::shared_ptr<const optiq::models::Model> model =
        optiq::models::load_model(optiq::io::ModelDirectory::open(argv[2]));
    if (verb == "write") {
      optiq::write(*model, argv + 3);
    } else {
      optiq::write_logits(model, argv + 3);
    }
  } catch (const optiq::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return optiq::exit_code(e.kind());
  }
  return 0;
}
