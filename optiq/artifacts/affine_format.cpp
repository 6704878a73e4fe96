#include "optiq/artifacts/affine_format.h"

#include <algorithm>

namespace optiq::artifacts {

bool is_one_of(std::span<const int> list, double value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

std::string list_text(std::span<const int> list) {
  std::string text;
  for (std::size_t i = 0; i < list.size(); ++i) {
    text += i == 0 ? "" : i + 1 == list.size() ? " or " : ", ";
    text += std::to_string(list[i]);
  }
  return text;
}

} // namespace optiq::artifacts
