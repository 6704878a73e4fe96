#include "fuzz/fuzz_support.h"

#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include "optiq/artifacts/json.h"

extern "C" std::size_t
LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace optiq::fuzz {
namespace {

using artifacts::Json;
using Random = std::minstd_rand;

std::size_t below(Random& random, std::size_t n) {
  return n == 0 ? 0 : random() % n;
}

void collect(Json& value, std::vector<Json*>& nodes) {
  nodes.push_back(&value);
  if (value.is_structured()) {
    for (Json& item : value) {
      collect(item, nodes);
    }
  }
}

/** Values at which readers have their limits. */
Json odd_value(Random& random) {
  static const std::vector<Json> kOdd = {
      nullptr,
      true,
      false,
      0,
      1,
      -1,
      2,
      255,
      256,
      65536,
      2147483647,
      2147483648u,
      -2147483648,
      4294967295u,
      4294967296u,
      9223372036854775807,
      18446744073709551615u,
      0.5,
      -0.0,
      1e-320,
      1e300,
      "",
      "\u2581",
      "\xf0\x9f\x98\x80",
      std::string("\0", 1),
      std::string(300, 'a'),
      Json::array(),
      Json::object(),
      Json::array({Json::array()}),
      {{"__float__", "NaN"}},
      {{"__float__", "Infinity"}}};
  return kOdd[below(random, kOdd.size())];
}

Json mutated_text(const std::string& text) {
  std::array<std::uint8_t, 256> bytes{};
  const std::size_t n = std::min(text.size(), bytes.size() / 2);
  std::copy_n(text.begin(), n, bytes.begin());
  const std::size_t size = LLVMFuzzerMutate(bytes.data(), n, bytes.size());
  return std::string(bytes.begin(), bytes.begin() + size);
}

void change_value(Json& value, Random& random) {
  if (value.is_string() && below(random, 2) == 0) {
    value = mutated_text(value.get<std::string>());
  } else if (value.is_number_integer() && below(random, 2) == 0) {
    const std::uint64_t moved = value.get<std::uint64_t>() + below(random, 5);
    value = static_cast<std::int64_t>(moved - 2);
  } else {
    value = odd_value(random);
  }
}

void change_members(Json& value, Random& random) {
  const std::size_t at = below(random, value.size());
  const Json item = value.empty() ? odd_value(random) : [&] {
    auto found = value.begin();
    std::advance(found, at);
    return *found;
  }();
  if (value.is_object()) {
    if (!value.empty() && below(random, 2) == 0) {
      auto found = value.begin();
      std::advance(found, at);
      value.erase(found);
    } else {
      const std::string key =
          value.empty() ? "" : std::next(value.begin(), at).key();
      value[mutated_text(key).get<std::string>()] = item;
    }
  } else if (!value.empty() && below(random, 2) == 0) {
    value.erase(at);
  } else {
    value.push_back(item);
  }
}

void change_document(Json& document, Random& random) {
  std::vector<Json*> nodes;
  collect(document, nodes);
  Json& chosen = *nodes[below(random, nodes.size())];
  const Json other = *nodes[below(random, nodes.size())];
  switch (below(random, 4)) {
    case 0:
      chosen = other;
      break;
    case 1:
      if (chosen.is_structured()) {
        change_members(chosen, random);
        break;
      }
      [[fallthrough]];
    default:
      change_value(chosen, random);
  }
}

} // namespace

const test::ScratchFolder& scratch() {
  static const test::ScratchFolder kFolder;
  return kFolder;
}

std::size_t mutate_json(
    std::uint8_t* data,
    std::size_t size,
    std::size_t max_size,
    unsigned seed) {
  Random random(seed);
  const std::string_view all = as_text(data, size);
  const auto n_documents =
      static_cast<std::size_t>(std::count(all.begin(), all.end(), '\0')) + 1;
  std::size_t begin = 0;
  for (std::size_t i = below(random, n_documents); i > 0; --i) {
    begin = all.find('\0', begin) + 1;
  }
  const std::size_t end = std::min(all.find('\0', begin), size);
  const std::string_view text = all.substr(begin, end - begin);
  Json document = Json::parse(text, nullptr, false);
  // What is nested so deep that dump could recurse too far is left to the
  // bytes' mutations.
  const auto depth_at_most = std::count_if(
      text.begin(), text.end(), [](char c) { return c == '[' || c == '{'; });
  if (document.is_discarded() || depth_at_most > 4096 ||
      below(random, 8) == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  for (std::size_t n = 1 + below(random, 3); n > 0; --n) {
    change_document(document, random);
  }
  const std::string changed = std::string(all.substr(0, begin)) +
      document.dump(-1, ' ', false, Json::error_handler_t::replace) +
      std::string(all.substr(end));
  if (changed.size() > max_size) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  std::copy(changed.begin(), changed.end(), data);
  return changed.size();
}

} // namespace optiq::fuzz
