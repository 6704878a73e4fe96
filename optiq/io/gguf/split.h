#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace optiq::io {

/** One file of a GGUF model that was split into several, as llama.cpp's
 * gguf-split names them: "<stem>-00002-of-00005.gguf". */
struct GgufPart {
  std::string stem; // with its folders
  int number = 1; // from 1
  int count = 1;
};

/** What the name says; nothing for a file that is a model by itself. */
std::optional<GgufPart> parse_gguf_part(std::string_view path);

/** The path of another part of the same model. */
std::string gguf_part_path(const GgufPart& part, int number);

/** Whether the file is a part after the first: no model to choose. */
bool is_later_gguf_part(std::string_view path);

} // namespace optiq::io
