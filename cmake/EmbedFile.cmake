cmake_minimum_required(VERSION 3.25)
# cmake -DINPUT=f.jsonl -DOUTPUT=f.cpp -DHEADER=optiq/... -DFUNCTION=ns::name -P EmbedFile.cmake
# Writes a source that defines `std::string_view ns::name()`: the bytes of INPUT.
file(READ ${INPUT} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
file(WRITE ${OUTPUT}.tmp "#include \"${HEADER}\"\n\n\
static constexpr unsigned char kBytes[] = {\n${bytes}};\n\n\
std::string_view ${FUNCTION}() {\n\
  return {reinterpret_cast<const char*>(kBytes), sizeof(kBytes)};\n}\n")
file(RENAME ${OUTPUT}.tmp ${OUTPUT})
