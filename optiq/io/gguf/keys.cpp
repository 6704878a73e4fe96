#include <algorithm>
#include <charconv>
#include <cmath>

#include "optiq/io/gguf/keys_impl.h"

namespace optiq::io {

double shortest_decimal(double value) {
  char text[32];
  const auto end =
      std::to_chars(text, text + sizeof(text), static_cast<float>(value)).ptr;
  double decimal = 0;
  std::from_chars(text, end, decimal);
  return decimal;
}

int checked_integer(
    const GgufFile& file,
    const std::string& key,
    std::optional<std::uint64_t> value,
    std::uint64_t most) {
  if (!value || *value < 1 || *value > most) {
    reject_config(
        ErrorKind::Corrupt,
        file,
        "key '{}': found {}, expected an integer from 1 to {}",
        key,
        value ? std::to_string(*value) : "none",
        most);
  }
  return static_cast<int>(*value);
}

int GgufKeys::integer(const char* key, std::uint64_t most) const {
  const std::string name = name_of(key);
  return checked_integer(file_, name, file_.integer(name), most);
}

int GgufKeys::integer_or(const char* key, int fallback, std::uint64_t most)
    const {
  return has(key) ? integer(key, most) : fallback;
}

double GgufKeys::positive(const char* key) const {
  const auto found = file_.number(name_of(key));
  const double value = found ? shortest_decimal(*found) : 0;
  if (!std::isfinite(value) || value <= 0) {
    reject_config(
        ErrorKind::Corrupt,
        file_,
        "key '{}': found {}, expected a number above 0",
        name_of(key),
        found ? std::to_string(*found) : "none");
  }
  return value;
}

double GgufKeys::positive_or(const char* key, double fallback) const {
  return has(key) ? positive(key) : fallback;
}

double GgufKeys::nonzero_or(const char* key, double fallback) const {
  return file_.number(name_of(key)).value_or(0) == 0 ? fallback : positive(key);
}

const GgufTensor* GgufKeys::find_tensor(const std::string& name) const {
  const auto& tensors = file_.tensors();
  const auto found = std::find_if(
      tensors.begin(), tensors.end(), [&](const GgufTensor& tensor) {
        return tensor.name == name;
      });
  return found == tensors.end() ? nullptr : &*found;
}

} // namespace optiq::io
