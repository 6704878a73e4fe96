#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "support/scratch_folder.h"

#include "optiq/base/error.h"

/** What the fuzz targets share. */
namespace optiq::fuzz {

/** Ends the process, which libFuzzer reports with the input, unless what was
 * accepted has the property. */
inline void require(bool holds, std::string_view property) {
  if (!holds) {
    std::fprintf(
        stderr,
        "broken property: %.*s\n",
        static_cast<int>(property.size()),
        property.data());
    std::abort();
  }
}

/** Whether `read` returns. Throwing optiq::Error says that the input is bad;
 * an internal error is a defect, and any other exception ends the process. */
template <typename Read>
bool accepts(Read&& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    require(error.kind() != ErrorKind::Internal, error.what());
    return false;
  }
}

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/** Splits at the first byte 0: a document, and what is done with it. */
inline std::pair<std::string_view, std::string_view> split_at_zero(
    std::string_view text) {
  const std::size_t at = text.find('\0');
  return at == std::string_view::npos
      ? std::pair(text, std::string_view())
      : std::pair(text.substr(0, at), text.substr(at + 1));
}

/** A folder of this process. */
const test::ScratchFolder& scratch();

/** A new version of documents that are separated by a byte 0: in one that is
 * JSON, a value changed, removed, doubled or exchanged with another; one that
 * is not changes as libFuzzer mutates bytes. Returns the new size. */
std::size_t mutate_json(
    std::uint8_t* data,
    std::size_t size,
    std::size_t max_size,
    unsigned seed);

} // namespace optiq::fuzz
