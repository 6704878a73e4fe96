#include <iterator>
#include <vector>

#include "optiq/artifacts/affine_format.h"
#include "optiq/report/sections_impl.h"

namespace optiq::report {
namespace {

// Widths run from light and warm (few bits) to dark and cool (many), so that
// they stay in order for every kind of color vision; the dark theme lifts the
// lightness of the cool end. --bN is the fill, --tN the text on it. Neither
// '<' nor '&' may occur: the page is XML.
constexpr std::string_view kStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #171a21; --soft: #596172;
  --line: #dfe3ea; --grid: #e9ecf1; --empty: #f0f2f5;
  --b2: #f2b134; --t2: #171a21; --b3: #ec7f4a; --t3: #171a21;
  --b4: #d33f58; --t4: #ffffff; --b5: #ab3282; --t5: #ffffff;
  --b6: #7a3396; --t6: #ffffff; --b8: #413a99; --t8: #ffffff;
  --b16: #6b7484; --t16: #ffffff;
  --k0: #2f6fb7; --k1: #e08a1e; --k2: #7b8494; --k3: #2a9d8f; --k4: #b5588f;
  --k5: #8d6e4b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12141a; --card: #1b1e26; --ink: #e9ebf0; --soft: #a0a8b8;
    --line: #323743; --grid: #2a2e39; --empty: #232732;
    --b2: #f7cd74; --t2: #171a21; --b3: #f59d6c; --t3: #171a21;
    --b4: #ec6b7d; --t4: #171a21; --b5: #d467ae; --t5: #171a21;
    --b6: #b06fd0; --t6: #171a21; --b8: #8079e0; --t8: #171a21;
    --b16: #6a7282; --t16: #ffffff;
    --k0: #5b9be0; --k1: #eda64b; --k2: #8a93a5; --k3: #4cc0b1; --k4: #d583b4;
    --k5: #b39370;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial,
    "Liberation Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 4px; }
.panels + h2 { margin-top: 24px; }
h3 { font-size: 13px; font-weight: 600; margin: 0 0 4px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; }
.soft, p.note { color: var(--soft); }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 20px; margin-top: 20px;
}
.stats { display: grid; gap: 12px; margin-top: 20px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.stat { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 12px 16px; }
.stat b { display: block; font-size: 22px; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.stat span { color: var(--soft); font-size: 13px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px;
  margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas,
  "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
svg { display: block; }
svg text { font-size: 11px; fill: var(--soft); }
svg.map text.on { font-size: 11px; font-weight: 600; }
.legend, .chips { list-style: none; display: flex; flex-wrap: wrap;
  gap: 4px 18px; margin: 0 0 14px; padding: 0; font-size: 13px; }
.legend li { display: flex; align-items: center; gap: 6px; }
.legend svg { flex: none; }
.chips { gap: 6px; }
.chips li { border-radius: 5px; padding: 2px 9px; font-weight: 600; }
.panels { display: grid; gap: 18px 20px;
  grid-template-columns: repeat(auto-fill, minmax(235px, 1fr)); }
.tables { display: grid; gap: 18px 32px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(330px, 100%), 1fr)); }
.tables table { width: 100%; }
.panels svg { width: 100%; height: auto; max-width: 340px; }
.bar { width: 100%; height: 30px; margin-bottom: 14px; }
.bar rect { stroke: var(--card); stroke-width: 2px;
  vector-effect: non-scaling-stroke; }
table { border-collapse: collapse; font-size: 13.5px; min-width: 320px;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 12px; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tr.group th { color: var(--ink); font-weight: 600; }
tr + tr.group th { padding-top: 16px; }
.tables + p.note { margin: 12px 0 0; }
tr:last-child td { border-bottom: 0; }
td svg { display: inline-block; margin-right: 8px; vertical-align: -1px; }
.curve { fill: none; stroke-width: 1.6px; stroke-linejoin: round; }
.curve.faint { stroke-width: 1px; opacity: 0.35; }
svg.curves { width: 100%; max-width: 720px; height: auto; margin-bottom: 14px; }
.line-k0 { stroke: var(--k0); } .line-k1 { stroke: var(--k1); }
.line-k2 { stroke: var(--k2); } .line-k3 { stroke: var(--k3); }
.line-k4 { stroke: var(--k4); } .line-k5 { stroke: var(--k5); }
.heat { margin-bottom: 14px; }
.heat td { text-align: center; padding: 6px 12px;
  background: color-mix(in srgb, var(--k0) var(--heat), var(--card)); }
.grid { stroke: var(--grid); stroke-width: 1px; }
.axis { stroke: var(--line); stroke-width: 1px; }
.empty { fill: var(--empty); }
.guard { fill: none; stroke-width: 1px; stroke-opacity: 0.9; }
.dot { stroke-width: 1.6px; }
.dot.open { fill: var(--card); }
.trend { fill: none; stroke-width: 1.2px; opacity: 0.55; }
.error { stroke-width: 1.2px; }
.fill-k0 { fill: var(--k0); } .fill-k1 { fill: var(--k1); }
.fill-k2 { fill: var(--k2); } .fill-k3 { fill: var(--k3); }
.fill-k4 { fill: var(--k4); } .fill-k5 { fill: var(--k5); }
@media (max-width: 520px) {
  main { padding: 18px 12px 32px; }
  section { padding: 14px; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 8px; }
}
)css";

/** Widths with a color of their own. */
std::vector<int> colored_widths() {
  std::vector<int> widths(
      std::begin(artifacts::kAffineBits), std::end(artifacts::kAffineBits));
  widths.push_back(16); // full precision
  return widths;
}

std::string width_rules() {
  std::string css;
  for (const int bits : colored_widths()) {
    const std::string n = std::to_string(bits);
    css += ".fill-b" + n + " { fill: var(--b" + n + "); }\n";
    css += ".line-b" + n + " { stroke: var(--b" + n + "); }\n";
    css += "svg text.on-b" + n + " { fill: var(--t" + n + "); }\n";
    css += ".guard-b" + n + " { stroke: var(--t" + n + "); }\n";
    css += ".chip-b" + n + " { background: var(--b" + n + "); color: var(--t" +
        n + "); }\n";
  }
  return css;
}

} // namespace

std::string style_sheet() {
  return std::string(kStyle) + width_rules();
}

std::string width_class(int bits) {
  return artifacts::is_one_of(artifacts::kAffineBits, bits)
      ? "b" + std::to_string(bits)
      : "b16";
}

std::string width_label(int bits) {
  return bits == 0 ? "everything else" : std::to_string(bits) + " bits";
}

void write_legend_item(
    Markup& page,
    const std::string& color_class,
    std::string_view label) {
  page.open("li")
      .open("svg", {{"width", "12"}, {"height", "12"}, {"aria-hidden", "true"}})
      .leaf(
          "rect",
          {{"width", "12"},
           {"height", "12"},
           {"rx", "2"},
           {"class", "fill-" + color_class}})
      .close()
      .text(label)
      .close();
}

} // namespace optiq::report
