// JSON that users hand in: kv_config.json, and the artifacts of OptIQ. The
// document is given to every reader; what one accepts must read back as it was
// written.
#include "fuzz/fuzz_support.h"

#include "optiq/artifacts/eval_result.h"
#include "optiq/artifacts/kv_config.h"
#include "optiq/artifacts/metadata.h"
#include "optiq/artifacts/size.h"

namespace optiq::fuzz {
namespace {

using artifacts::Json;

/** from_json, to_json, through text, and again. */
template <typename Value>
void check_stable(
    const Json& json,
    Value (*from_json)(const Json&, const std::string&)) {
  accepts([&] {
    const Value value = from_json(json, "fuzz.json");
    std::string text;
    // Numbers that are not finite are refused by some writers.
    if (!accepts([&] { text = artifacts::dump_json(to_json(value), 2); })) {
      return;
    }
    Json again = artifacts::parse_json(text, "again.json");
    artifacts::decode_tagged_floats(again, "again.json");
    std::string second;
    const bool reads = accepts([&] {
      second = artifacts::dump_json(to_json(from_json(again, "again.json")), 2);
    });
    require(reads, "what was written is read");
    require(second == text, "what was read is written the same");
  });
}

void check_json(const Json& json, std::string_view text) {
  const std::string once = artifacts::dump_json(json, -1);
  Json again = artifacts::parse_json(once, "again.json");
  require(
      artifacts::dump_json(again, -1) == once,
      "JSON is written as it was read");
  artifacts::describe(json);
  accepts([&] {
    artifacts::parse_json(
        text,
        "fuzz.json",
        artifacts::kConfigJson,
        artifacts::DuplicateKeys::Refuse);
  });
  accepts([&] {
    artifacts::parse_json_members(
        text,
        "fuzz.json",
        artifacts::kMemberJson,
        [](const std::string&, Json&&) {});
  });
}

} // namespace
} // namespace optiq::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(
    std::uint8_t* data,
    std::size_t size,
    std::size_t max_size,
    unsigned seed) {
  return optiq::fuzz::mutate_json(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  const std::string_view text = fuzz::as_text(data, size);
  fuzz::accepts([&] { artifacts::parse_size(std::string(text)); });
  artifacts::Json json;
  if (!fuzz::accepts([&] {
        json = artifacts::parse_json(text, "fuzz.json");
        fuzz::check_json(json, text);
        artifacts::decode_tagged_floats(json, "fuzz.json");
      })) {
    return 0;
  }
  fuzz::check_stable(json, artifacts::kv_config_from_json);
  fuzz::check_stable(json, artifacts::kv_sensitivity_from_json);
  fuzz::check_stable(json, artifacts::plan_from_json);
  fuzz::check_stable(json, artifacts::metadata_from_json);
  fuzz::check_stable(json, artifacts::sensitivity_from_json);
  fuzz::check_stable(json, artifacts::eval_result_from_json);
  return 0;
}
