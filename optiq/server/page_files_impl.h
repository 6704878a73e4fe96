#pragma once

#include <string_view>

/** The files of page/, embedded. */
namespace optiq::server::page {

std::string_view index_html();
std::string_view style_css();
std::string_view icon_svg();
std::string_view main_js();
std::string_view api_js();
std::string_view conversation_list_js();
std::string_view dom_js();
std::string_view drawers_js();
std::string_view events_js();
std::string_view format_js();
std::string_view inline_js();
std::string_view live_js();
std::string_view markdown_js();
std::string_view model_view_js();
std::string_view settings_js();
std::string_view store_js();
std::string_view transcript_js();

} // namespace optiq::server::page
