#pragma once

#include <span>
#include <string_view>

namespace optiq::server {

struct EmbeddedFile {
  std::string_view name;
  std::string_view bytes;
};

/** The files of the folder page/. */
std::span<const EmbeddedFile> embedded_page_files();

} // namespace optiq::server
