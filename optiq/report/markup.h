#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace optiq::report {

/** Text for an HTML or SVG document: markup characters become entities;
 * invalid UTF-8 and characters that XML forbids become U+FFFD. */
std::string escape(std::string_view text);

using Attributes = std::vector<std::pair<std::string_view, std::string>>;

/**
 * Writes HTML and SVG whose elements are always closed and whose text and
 * attributes are always escaped.
 */
class Markup {
 public:
  Markup& open(std::string_view tag, const Attributes& attributes = {});
  Markup& close();
  Markup& text(std::string_view text);
  /** An element without content: <rect .../>. */
  Markup& leaf(std::string_view tag, const Attributes& attributes);
  /** An element with text alone: <td>4</td>. */
  Markup& element(
      std::string_view tag,
      const Attributes& attributes,
      std::string_view text);
  /** A style sheet of ours; nothing is escaped. */
  Markup& style(std::string_view css);

  /** The document; every element must have been closed. */
  std::string finish(std::string_view doctype) &&;

 private:
  void start(std::string_view tag, const Attributes& attributes);

  std::string out_;
  std::vector<std::string> open_;
};

} // namespace optiq::report
