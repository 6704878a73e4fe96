#pragma once

#include <string_view>

/** The files of page/, embedded. */
namespace optiq::server::page {

std::string_view index_html();
std::string_view style_css();
std::string_view main_js();
std::string_view icon_svg();

} // namespace optiq::server::page
