#include "optiq/quant/share.h"

#include <charconv>
#include <string_view>

#include <fmt/format.h>

#include "optiq/base/error.h"

namespace optiq::quant {
namespace {

constexpr int kMaxShares = 10'000;

/** 0 for what is no number of shares. */
int number_of(std::string_view text) {
  int n = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, n);
  return error == std::errc() && at == end && n >= 1 && n <= kMaxShares ? n : 0;
}

} // namespace

std::string Share::name() const {
  return fmt::format("{} of {}", index, count);
}

ChunkRange Share::chunks(std::size_t n_chunks) const {
  const auto begin = [&](int i) {
    return n_chunks * static_cast<std::size_t>(i) /
        static_cast<std::size_t>(count);
  };
  return {begin(index - 1), begin(index)};
}

Share parse_share(const std::string& text) {
  const std::size_t slash = text.find('/');
  const std::string_view all = text;
  const Share share{
      number_of(all.substr(0, slash)),
      slash == std::string::npos ? 0 : number_of(all.substr(slash + 1))};
  if (share.index == 0 || share.count == 0 || share.index > share.count) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --shard {}: expected I/N, share I of N, from 1/N to N/N and "
        "N at most {}.",
        text,
        kMaxShares);
  }
  return share;
}

} // namespace optiq::quant
