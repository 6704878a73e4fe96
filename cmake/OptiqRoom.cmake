# The one order of rooms: a room depends on rooms to its left only.
set(OPTIQ_ROOM_ORDER base artifacts io text kernels cache nn models adapters generate eval train quant server report cli)
set(OPTIQ_WARNINGS -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wno-missing-field-initializers)

# Fails when room <name> may not depend on <dep>: `report` sees artifacts and base, every other room its left.
function(optiq_check_dep name dep)
  if(name STREQUAL "report")
    set(left base artifacts)
  else()
    list(FIND OPTIQ_ROOM_ORDER ${name} at)
    if(at EQUAL -1)
      message(FATAL_ERROR "room '${name}' is not in OPTIQ_ROOM_ORDER")
    endif()
    list(SUBLIST OPTIQ_ROOM_ORDER 0 ${at} left)
  endif()
  if(NOT dep IN_LIST left)
    message(FATAL_ERROR "room '${name}' may not depend on '${dep}': it is not to its left")
  endif()
endfunction()

# optiq_add_room(<name> [DEPS room ...] [LIBS target ...])
# One room = one folder under optiq/ = the objects of every source in the
# folder; DEPS pass on how to compile, and liboptiq.so takes the objects of all
# rooms but cli (OptiqLibrary.cmake). LIBS are third-party targets.
function(optiq_add_room name)
  cmake_parse_arguments(PARSE_ARGV 1 R "" "" "DEPS;LIBS")
  foreach(dep IN LISTS R_DEPS)
    optiq_check_dep(${name} ${dep})
  endforeach()
  set_property(GLOBAL APPEND PROPERTY OPTIQ_ROOMS ${name})
  list(JOIN R_DEPS "," allowed)
  set_property(GLOBAL PROPERTY OPTIQ_ROOM_${name}_DEPS "${allowed}")
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optiq/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  if(OPTIQ_ROOMS_ONLY)
    set(absent ${R_DEPS})
    list(REMOVE_ITEM absent ${OPTIQ_ROOMS_ONLY})
    list(REMOVE_ITEM R_DEPS ${absent})
  endif()
  list(TRANSFORM R_DEPS PREPEND optiq_)
  set(target optiq_${name})
  if(name STREQUAL "cli")
    set(target optiq_cli_library) # optiq_cli is the executable
  endif()
  add_library(${target} OBJECT ${sources})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_features(${target} PUBLIC cxx_std_20)
  # Callers inside liboptiq.so may inline its functions although it is shared.
  target_compile_options(${target} PRIVATE ${OPTIQ_WARNINGS}
    $<$<CXX_COMPILER_ID:GNU>:-fno-semantic-interposition>)
  target_link_libraries(${target} PUBLIC ${R_DEPS} ${R_LIBS})
endfunction()

function(optiq_add_room_lint)
  get_property(rooms GLOBAL PROPERTY OPTIQ_ROOMS)
  foreach(room IN LISTS rooms)
    get_property(allowed GLOBAL PROPERTY OPTIQ_ROOM_${room}_DEPS)
    add_test(NAME lint/room_${room} COMMAND ${CMAKE_COMMAND} -DROOM=${room} -DALLOWED=${allowed} -DROOT=${PROJECT_SOURCE_DIR} -P ${PROJECT_SOURCE_DIR}/cmake/CheckRoom.cmake)
    set_tests_properties(lint/room_${room} PROPERTIES LABELS lint)
  endforeach()
endfunction()

# optiq_embed_file(target file header function): compiles a source into `target`
# that defines `std::string_view function()`, the bytes of `file`.
function(optiq_embed_file target file header function)
  get_filename_component(stem ${file} NAME_WE)
  set(embedded ${CMAKE_CURRENT_BINARY_DIR}/embedded_${stem}.cpp)
  add_custom_command(
    OUTPUT ${embedded}
    COMMAND
      ${CMAKE_COMMAND} -DINPUT=${file} -DOUTPUT=${embedded} -DHEADER=${header}
      -DFUNCTION=${function} -P ${PROJECT_SOURCE_DIR}/cmake/EmbedFile.cmake
    DEPENDS ${file} ${PROJECT_SOURCE_DIR}/cmake/EmbedFile.cmake
    VERBATIM)
  target_sources(${target} PRIVATE ${embedded})
endfunction()

# optiq_embed_folder(target folder header function): the same of all files of a
# folder, `std::span<const EmbeddedFile> function()`; the header has the struct.
function(optiq_embed_folder target folder header function)
  get_filename_component(stem ${folder} NAME)
  set(embedded ${CMAKE_CURRENT_BINARY_DIR}/embedded_${stem}.cpp)
  file(GLOB files CONFIGURE_DEPENDS ${folder}/*)
  add_custom_command(
    OUTPUT ${embedded}
    COMMAND
      ${CMAKE_COMMAND} -DINPUT=${folder} -DOUTPUT=${embedded} -DHEADER=${header}
      -DFUNCTION=${function} -P ${PROJECT_SOURCE_DIR}/cmake/EmbedFolder.cmake
    DEPENDS ${files} ${PROJECT_SOURCE_DIR}/cmake/EmbedFolder.cmake
    VERBATIM)
  target_sources(${target} PRIVATE ${embedded})
endfunction()
