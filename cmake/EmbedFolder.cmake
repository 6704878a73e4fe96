cmake_minimum_required(VERSION 3.25)
# cmake -DINPUT=folder -DOUTPUT=f.cpp -DHEADER=optiq/... -DFUNCTION=ns::name -P EmbedFolder.cmake
# Writes a source that defines `std::span<const EmbeddedFile> ns::name()`: the
# files of a folder in the order of their names. HEADER has the struct, in ns.
file(GLOB names RELATIVE ${INPUT} ${INPUT}/*)
set(arrays "")
set(rows "")
foreach(name IN LISTS names)
  file(READ ${INPUT}/${name} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
  string(MAKE_C_IDENTIFIER ${name} id)
  string(APPEND arrays "static constexpr unsigned char k_${id}[] = {\n${bytes}};\n\n")
  string(APPEND rows "    {\"${name}\", {reinterpret_cast<const char*>(k_${id}), sizeof(k_${id})}},\n")
endforeach()
file(WRITE ${OUTPUT}.tmp "#include \"${HEADER}\"\n\n${arrays}\
auto ${FUNCTION}() -> std::span<const EmbeddedFile> {\n\
  static const EmbeddedFile kFiles[] = {\n${rows}  };\n\
  return kFiles;\n}\n")
file(RENAME ${OUTPUT}.tmp ${OUTPUT})
