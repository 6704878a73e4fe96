#include <map>
#include <string>
#include <utility>
#include <vector>

#include <mlx/ops.h>

#include "optiq/adapters/adapter_files.h"
#include "optiq/base/error.h"
#include "optiq/io/array.h"

namespace optiq::adapters {
namespace {

void require_same_shape(const AdapterUpdate& one, const AdapterUpdate& other) {
  if (one.a.shape(1) != other.a.shape(1) ||
      one.b.shape(1) != other.b.shape(1)) {
    fail(
        ErrorKind::InvalidInput,
        "[sum_of] module '{}': found updates [{}, {}] and [{}, {}], expected "
        "adapters of one model",
        one.module,
        one.b.shape(1),
        one.a.shape(1),
        other.b.shape(1),
        other.a.shape(1));
  }
}

/** Updates of one module, their scales in B, as one. */
AdapterUpdate stacked(const std::vector<AdapterUpdate>& parts) {
  std::vector<mx::array> a;
  std::vector<mx::array> b;
  for (const AdapterUpdate& part : parts) {
    require_same_shape(parts.front(), part);
    a.push_back(part.a);
    b.push_back(mx::multiply(part.b, mx::array(part.scale)));
  }
  return {
      .module = parts.front().module,
      .a = io::materialize(mx::concatenate(std::move(a), 0)),
      .b = io::materialize(mx::concatenate(std::move(b), 0))};
}

} // namespace

std::vector<AdapterUpdate> sum_of(const std::vector<WeightedUpdates>& terms) {
  std::map<std::string, std::vector<AdapterUpdate>> by_place;
  for (const WeightedUpdates& term : terms) {
    for (AdapterUpdate update : term.updates) {
      update.scale = static_cast<float>(term.weight * update.scale);
      by_place[artifacts::short_name(artifacts::module_id(update.module))]
          .push_back(std::move(update));
    }
  }
  std::vector<AdapterUpdate> sums;
  sums.reserve(by_place.size());
  for (const auto& [place, parts] : by_place) {
    sums.push_back(stacked(parts));
  }
  return sums;
}

} // namespace optiq::adapters
