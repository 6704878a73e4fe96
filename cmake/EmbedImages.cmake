cmake_minimum_required(VERSION 3.25)
# cmake "-DINPUTS=a.fatbin;b.fatbin" -DOUTPUT=f.cpp -DHEADER=optiq/... -DFUNCTION=ns::name -P EmbedImages.cmake
# Writes a source that defines `std::span<const std::string_view> ns::name()`: the
# bytes of each file. The assembler reads them, so that megabytes compile at once.
set(symbols "")
set(rows "")
foreach(input IN LISTS INPUTS)
  get_filename_component(stem ${input} NAME_WE)
  set(symbol optiq_image_${stem})
  string(APPEND symbols "\
asm(\".section .rodata\\n\"
    \".balign 64\\n\"
    \"${symbol}:\\n\"
    \".incbin \\\"${input}\\\"\\n\"
    \"${symbol}_end:\\n\"
    \".previous\\n\");
extern \"C\" const char ${symbol}[] __attribute__((visibility(\"hidden\")));
extern \"C\" const char ${symbol}_end[] __attribute__((visibility(\"hidden\")));
")
  string(APPEND rows "      {${symbol}, static_cast<std::size_t>(${symbol}_end - ${symbol})},\n")
endforeach()
file(WRITE ${OUTPUT}.tmp "#include \"${HEADER}\"\n\n${symbols}\n\
std::span<const std::string_view> ${FUNCTION}() {\n\
  static const std::string_view kImages[] = {\n${rows}  };\n\
  return kImages;\n}\n")
file(RENAME ${OUTPUT}.tmp ${OUTPUT})
