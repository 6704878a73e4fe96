# nvcc: OPTIQ_NVCC, the one that scripts/setup --cuda fetched, or the system's.
# OPTIQ_CUDA: AUTO builds kernels where there is one, ON demands it, OFF builds
# a library that says that it has none.
set(OPTIQ_CUDA AUTO CACHE STRING "Kernels for NVIDIA cards: AUTO, ON or OFF")
set(OPTIQ_CUDA_ARCHITECTURES 80 89 90a 100 120 CACHE STRING "Compute capabilities that get machine code; with 80 comes its PTX, which serves the others")
set_property(CACHE OPTIQ_CUDA PROPERTY STRINGS AUTO ON OFF)

find_program(OPTIQ_NVCC nvcc
  HINTS ${OPTIQ_CACHE_DIR}/cuda/bin /usr/local/cuda/bin
  DOC "CUDA's compiler, 13.0")
if(OPTIQ_CUDA STREQUAL "ON" AND NOT OPTIQ_NVCC)
  message(FATAL_ERROR "OPTIQ_CUDA is ON and no nvcc was found: run scripts/setup --cuda, or set OPTIQ_NVCC")
endif()

# optiq_add_cuda_kernels(target HEADER header FUNCTION function ABSENT source SOURCES name ...)
# Compiles cuda/device/<name>.cu into fat binaries and into `target` a source that
# defines `std::span<const std::string_view> function()`, all of them; without
# nvcc, ABSENT defines it.
function(optiq_add_cuda_kernels target)
  cmake_parse_arguments(PARSE_ARGV 1 K "" "HEADER;FUNCTION;ABSENT" "SOURCES")
  if(OPTIQ_CUDA STREQUAL "OFF" OR NOT OPTIQ_NVCC)
    return()
  endif()
  set_source_files_properties(${CMAKE_CURRENT_SOURCE_DIR}/${K_ABSENT} PROPERTIES HEADER_FILE_ONLY ON)
  set(code "")
  foreach(architecture IN LISTS OPTIQ_CUDA_ARCHITECTURES)
    list(APPEND code -gencode arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  # Half the time of a build for one architecture alone.
  if(80 IN_LIST OPTIQ_CUDA_ARCHITECTURES)
    list(APPEND code -gencode arch=compute_80,code=compute_80)
  endif()
  set(images "")
  foreach(name IN LISTS K_SOURCES)
    set(source ${CMAKE_CURRENT_SOURCE_DIR}/cuda/device/${name}.cu)
    set(image ${CMAKE_CURRENT_BINARY_DIR}/${name}.fatbin)
    add_custom_command(
      OUTPUT ${image}
      COMMAND ${OPTIQ_NVCC} -std=c++20 -O3 --expt-relaxed-constexpr -Werror all-warnings
        --compress-mode=size -I${PROJECT_SOURCE_DIR} ${code} -fatbin
        -MD -MF ${image}.d -MT ${image} -o ${image} ${source}
      DEPENDS ${source}
      DEPFILE ${image}.d
      COMMENT "CUDA kernels of ${name}"
      VERBATIM)
    list(APPEND images ${image})
  endforeach()
  set(embedded ${CMAKE_CURRENT_BINARY_DIR}/embedded_cuda_kernels.cpp)
  add_custom_command(
    OUTPUT ${embedded}
    COMMAND ${CMAKE_COMMAND} "-DINPUTS=${images}" -DOUTPUT=${embedded} -DHEADER=${K_HEADER}
      -DFUNCTION=${K_FUNCTION} -P ${PROJECT_SOURCE_DIR}/cmake/EmbedImages.cmake
    DEPENDS ${images} ${PROJECT_SOURCE_DIR}/cmake/EmbedImages.cmake
    VERBATIM)
  # The images are read by the assembler: a change of theirs must reach it.
  set_source_files_properties(${embedded} PROPERTIES OBJECT_DEPENDS "${images}")
  target_sources(${target} PRIVATE ${embedded})
endfunction()
