#include <cmath>

#include "optiq/models/config_impl.h"

namespace optiq::models {

const artifacts::Json* ConfigReader::find(const char* key) const {
  const auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

int ConfigReader::bounded(const char* key, int limit) const {
  const int value = artifacts::required<int>(json_, key, where_);
  if (value < 1 || value > limit) {
    fail(
        ErrorKind::Corrupt,
        "[{}] {}: {} is {}, expected 1 to {}",
        function_,
        where_,
        key,
        value,
        limit);
  }
  return value;
}

int ConfigReader::bounded_or(const char* key, int limit, int fallback) const {
  return find(key) == nullptr ? fallback : bounded(key, limit);
}

double ConfigReader::number_above(double above, const char* key) const {
  const auto value = artifacts::required<double>(json_, key, where_);
  if (!std::isfinite(value) || value <= above) {
    fail(
        ErrorKind::Corrupt,
        "[{}] {}: {} is {}, expected a finite number above {}",
        function_,
        where_,
        key,
        value,
        above);
  }
  return value;
}

double ConfigReader::number_above_or(
    double above,
    const char* key,
    double fallback) const {
  return find(key) == nullptr ? fallback : number_above(above, key);
}

} // namespace optiq::models
