#include <algorithm>
#include <string>

#include "optiq/text/unicode_properties_impl.h"

namespace optiq::text {
namespace {

constexpr std::uint32_t kLastCodePoint = 0x10FFFF;

/** Long names of categories, as they are compared. */
constexpr std::pair<std::string_view, std::string_view> kLongNames[] = {
    {"letter", "l"},
    {"casedletter", "lc"},
    {"uppercaseletter", "lu"},
    {"lowercaseletter", "ll"},
    {"titlecaseletter", "lt"},
    {"modifierletter", "lm"},
    {"otherletter", "lo"},
    {"mark", "m"},
    {"combiningmark", "m"},
    {"nonspacingmark", "mn"},
    {"spacingmark", "mc"},
    {"enclosingmark", "me"},
    {"number", "n"},
    {"decimalnumber", "nd"},
    {"letternumber", "nl"},
    {"othernumber", "no"},
    {"punctuation", "p"},
    {"connectorpunctuation", "pc"},
    {"dashpunctuation", "pd"},
    {"openpunctuation", "ps"},
    {"closepunctuation", "pe"},
    {"initialpunctuation", "pi"},
    {"finalpunctuation", "pf"},
    {"otherpunctuation", "po"},
    {"symbol", "s"},
    {"mathsymbol", "sm"},
    {"currencysymbol", "sc"},
    {"modifiersymbol", "sk"},
    {"othersymbol", "so"},
    {"separator", "z"},
    {"spaceseparator", "zs"},
    {"lineseparator", "zl"},
    {"paragraphseparator", "zp"},
    {"other", "c"},
    {"control", "cc"},
    {"format", "cf"},
    {"surrogate", "cs"},
    {"privateuse", "co"},
    {"unassigned", "cn"},
};

/** As names are compared: lower case, without blanks, '_' and '-'. */
std::string loose(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c != ' ' && c != '_' && c != '-') {
      out += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
  }
  return out;
}

/** The code points of the runs whose number is wanted. */
template <typename Wanted>
CodePointSet runs_of(std::span<const std::uint32_t> runs, Wanted wanted) {
  std::vector<CodePointRange> ranges;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (wanted(runs[i] & 0xFF)) {
      const std::uint32_t last =
          i + 1 < runs.size() ? (runs[i + 1] >> 8) - 1 : kLastCodePoint;
      ranges.push_back({runs[i] >> 8, last});
    }
  }
  return CodePointSet(std::move(ranges));
}

/** `name` is loose: "lu", or "l" for all that begin so, or "lc". */
std::optional<CodePointSet> find_category(std::string_view name) {
  for (const auto& [full, brief] : kLongNames) {
    if (name == full) {
      name = brief;
    }
  }
  std::vector<bool> wanted;
  for (const std::string_view category : kCategoryNames) {
    const std::string known = loose(category);
    wanted.push_back(
        name == known || (name.size() == 1 && known.starts_with(name)) ||
        (name == "lc" && (known == "lu" || known == "ll" || known == "lt")));
  }
  if (std::find(wanted.begin(), wanted.end(), true) == wanted.end()) {
    return std::nullopt;
  }
  return runs_of(
      unicode_categories(), [&](std::uint32_t i) { return wanted[i]; });
}

CodePointSet category(std::string_view name) {
  return find_category(name).value();
}

std::optional<CodePointSet> find_script(std::string_view name) {
  const auto names = unicode_script_names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (name == loose(names[i].name) || name == loose(names[i].code)) {
      return runs_of(
          unicode_scripts(), [&](std::uint32_t script) { return script == i; });
    }
  }
  if (name == "unknown" || name == "zzzz") {
    return runs_of(unicode_scripts(), [&](std::uint32_t script) {
      return script == names.size();
    });
  }
  return std::nullopt;
}

std::optional<CodePointSet> find_binary(std::string_view name) {
  // These are categories and a few more.
  constexpr std::pair<std::string_view, std::string_view> kMostly[] = {
      {"alphabetic", "l"}, {"lowercase", "ll"}, {"uppercase", "lu"}};
  for (const auto& [whole, category] : kMostly) {
    if (name == whole) {
      const CodePointSet more =
          find_binary("other" + std::string(whole)).value();
      const CodePointSet most = find_category(category).value();
      return name == "alphabetic"
          ? most.united(more).united(find_category("nl").value())
          : most.united(more);
    }
  }
  for (const UnicodeProperty& property : unicode_properties()) {
    if (name == loose(property.name)) {
      return CodePointSet(property.ranges);
    }
  }
  return std::nullopt;
}

CodePointSet binary(std::string_view name) {
  return find_binary(name).value();
}

CodePointSet ascii(std::initializer_list<CodePointRange> ranges) {
  return CodePointSet(std::vector<CodePointRange>(ranges));
}

CodePointSet graph() {
  return binary("whitespace")
      .united(category("cc"))
      .united(category("cn"))
      .united(category("cs"))
      .complement();
}

} // namespace

std::optional<CodePointSet> find_posix_class(std::string_view name) {
  if (name == "alnum") {
    return binary("alphabetic").united(category("nd"));
  }
  if (name == "alpha") {
    return binary("alphabetic");
  }
  if (name == "ascii") {
    return ascii({{0, 0x7F}});
  }
  if (name == "blank") {
    return category("zs").united(ascii({{'\t', '\t'}}));
  }
  if (name == "cntrl") {
    return category("cc");
  }
  if (name == "digit") {
    return category("nd");
  }
  if (name == "graph") {
    return graph();
  }
  if (name == "lower") {
    return binary("lowercase");
  }
  if (name == "print") {
    return graph().united(category("zs"));
  }
  if (name == "punct") {
    return category("p").united(category("s"));
  }
  if (name == "space") {
    return binary("whitespace");
  }
  if (name == "upper") {
    return binary("uppercase");
  }
  if (name == "xdigit") {
    return ascii({{'0', '9'}, {'A', 'F'}, {'a', 'f'}});
  }
  if (name == "word") {
    return binary("alphabetic")
        .united(category("m"))
        .united(category("nd"))
        .united(category("pc"));
  }
  return std::nullopt;
}

std::uint32_t script_of(std::uint32_t code_point) {
  const auto runs = unicode_scripts();
  const auto behind =
      std::upper_bound(runs.begin(), runs.end(), code_point << 8 | 0xFF);
  return *std::prev(behind) & 0xFF;
}

std::optional<CodePointSet> find_unicode_property(std::string_view name) {
  const std::string known = loose(name);
  const std::size_t equals = known.find('=');
  if (equals != std::string::npos) {
    const std::string key = known.substr(0, equals);
    const std::string value = known.substr(equals + 1);
    if (key == "script" || key == "sc") {
      return find_script(value);
    }
    return key == "generalcategory" || key == "gc" ? find_category(value)
                                                   : std::nullopt;
  }
  if (known == "any") {
    return CodePointSet::all();
  }
  if (known == "assigned") {
    return category("cn").complement();
  }
  for (const auto find :
       {find_category, find_posix_class, find_script, find_binary}) {
    if (auto set = find(known)) {
      return set;
    }
  }
  return std::nullopt;
}

} // namespace optiq::text
