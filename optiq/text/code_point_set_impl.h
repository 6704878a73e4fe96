#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "optiq/text/unicode_tables.h"

namespace optiq::text {

/** A set of code points: ranges in order that do not touch. */
class CodePointSet {
 public:
  CodePointSet() = default;
  /** Of ranges in any order, which may overlap. */
  explicit CodePointSet(std::vector<CodePointRange> ranges);
  explicit CodePointSet(std::span<const CodePointRange> ranges)
      : CodePointSet(
            std::vector<CodePointRange>(ranges.begin(), ranges.end())) {}
  static CodePointSet all();

  std::span<const CodePointRange> ranges() const {
    return ranges_;
  }
  bool empty() const {
    return ranges_.empty();
  }
  bool contains(std::uint32_t code_point) const;
  CodePointSet complement() const;
  CodePointSet united(const CodePointSet& other) const;
  CodePointSet intersected(const CodePointSet& other) const;
  /** With every character that is equal to a member in any case. */
  CodePointSet in_any_case() const;
  bool operator<(const CodePointSet& other) const;

 private:
  std::vector<CodePointRange> ranges_;
};

} // namespace optiq::text
