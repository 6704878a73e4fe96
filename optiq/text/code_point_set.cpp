#include <algorithm>

#include "optiq/text/code_point_set_impl.h"

namespace optiq::text {
namespace {

constexpr std::uint32_t kLastCodePoint = 0x10FFFF;

bool before(const CodePointRange& a, const CodePointRange& b) {
  return a.first != b.first ? a.first < b.first : a.last < b.last;
}

} // namespace

CodePointSet::CodePointSet(std::vector<CodePointRange> ranges) {
  if (!std::is_sorted(ranges.begin(), ranges.end(), before)) {
    std::sort(ranges.begin(), ranges.end(), before);
  }
  for (const CodePointRange& range : ranges) {
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    } else {
      ranges_.push_back(range);
    }
  }
}

CodePointSet CodePointSet::all() {
  return CodePointSet(std::vector<CodePointRange>{{0, kLastCodePoint}});
}

bool CodePointSet::contains(std::uint32_t code_point) const {
  const auto behind = std::upper_bound(
      ranges_.begin(),
      ranges_.end(),
      code_point,
      [](std::uint32_t c, const CodePointRange& range) {
        return c < range.first;
      });
  return behind != ranges_.begin() && code_point <= std::prev(behind)->last;
}

CodePointSet CodePointSet::complement() const {
  CodePointSet out;
  std::uint32_t next = 0;
  for (const CodePointRange& range : ranges_) {
    if (next < range.first) {
      out.ranges_.push_back({next, range.first - 1});
    }
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) {
    out.ranges_.push_back({next, kLastCodePoint});
  }
  return out;
}

CodePointSet CodePointSet::united(const CodePointSet& other) const {
  std::vector<CodePointRange> ranges(ranges_.size() + other.ranges_.size());
  std::merge(
      ranges_.begin(),
      ranges_.end(),
      other.ranges_.begin(),
      other.ranges_.end(),
      ranges.begin(),
      before);
  return CodePointSet(std::move(ranges));
}

CodePointSet CodePointSet::intersected(const CodePointSet& other) const {
  CodePointSet out;
  for (auto a = ranges_.begin(), b = other.ranges_.begin();
       a != ranges_.end() && b != other.ranges_.end();) {
    const std::uint32_t first = std::max(a->first, b->first);
    const std::uint32_t last = std::min(a->last, b->last);
    if (first <= last) {
      out.ranges_.push_back({first, last});
    }
    ++(a->last < b->last ? a : b);
  }
  return out;
}

CodePointSet CodePointSet::in_any_case() const {
  std::vector<CodePointRange> ranges = ranges_;
  for (const CaseRun& run : unicode_case_runs()) {
    const auto near = std::lower_bound(
        ranges_.begin(),
        ranges_.end(),
        run.first,
        [](const CodePointRange& range, std::uint32_t c) {
          return range.last < c;
        });
    if (near == ranges_.end() || near->first > run.last) {
      continue;
    }
    for (std::uint32_t c = run.first; c <= run.last; c += run.step) {
      if (contains(c)) {
        const auto other =
            static_cast<std::uint32_t>(static_cast<int>(c) + run.distance);
        ranges.push_back({other, other});
      }
    }
  }
  return CodePointSet(std::move(ranges));
}

bool CodePointSet::operator<(const CodePointSet& other) const {
  return std::lexicographical_compare(
      ranges_.begin(),
      ranges_.end(),
      other.ranges_.begin(),
      other.ranges_.end(),
      before);
}

} // namespace optiq::text
