#pragma once

#include <string>
#include <string_view>

#include "optiq/report/markup.h"
#include "optiq/report/report.h"

/** What pages have in common, and the parts of a report, a <section> each. */
namespace optiq::report {

/** The style sheet of the page, light and dark. */
std::string style_sheet();

/** What a page begins with, up to <main>, and its end. */
void open_page(Markup& page, const std::string& title);
std::string close_page(Markup page);

/** Class that carries a width's color: "b4". Widths without a color of their
 * own share that of full precision. */
std::string width_class(int bits);
/** "4 bits"; "everything else" for 0. */
std::string width_label(int bits);

/** A colored square and its meaning, as an item of a legend. */
void write_legend_item(
    Markup& page,
    const std::string& color_class,
    std::string_view label);

void write_bit_map(Markup& page, const ReportInput& input);
void write_sensitivity(Markup& page, const ReportInput& input);
void write_sizes(Markup& page, const ReportInput& input);
void write_kv_cache(Markup& page, const ReportInput& input);
void write_adapter(Markup& page, const ReportInput& input);
void write_evals(Markup& page, const ReportInput& input);

} // namespace optiq::report
