# tests/ mirrors the rooms and their folders. A file's name says its label:
#   <name>_test.cpp         unit    no weights, under a second
#   <name>_model_test.cpp   model   runs models/tiny-qwen3.5
#   <name>_shared_test.cpp  shared  needs ../shared (skipped, saying so, without)
#   <name>_slow_test.cpp    slow
#   <name>_gpu_test.cpp     gpu     needs an NVIDIA card (skipped, saying so, without)
#   oracle/<name>_driver.cpp        a program that an oracle script talks to
#   oracle/<name>.py        oracle  a PyPI package judges; <name>_slow.py: slow
#   e2e/<name>.py           e2e     the executable as a user runs it
set(OPTIQ_TEST_MODEL ${PROJECT_SOURCE_DIR}/models/tiny-qwen3.5)
set(OPTIQ_SHARED_DIR ${PROJECT_SOURCE_DIR}/../shared CACHE PATH "Data that is not in the repository")
file(GLOB optiq_pythons ${OPTIQ_CACHE_DIR}/venv/bin/python)
if(NOT optiq_pythons)
  message(FATAL_ERROR "No venv under ${OPTIQ_CACHE_DIR}: run ./scripts/setup")
endif()
set(OPTIQ_PYTHON ${OPTIQ_CACHE_DIR}/venv/bin/python)
set(OPTIQ_TEST_ENVIRONMENT
  "OPTIQ_BIN=${PROJECT_BINARY_DIR}/optiq/cli/optiq"
  "OPTIQ_TEST_MODEL=${OPTIQ_TEST_MODEL}"
  "OPTIQ_SOURCE_DIR=${PROJECT_SOURCE_DIR}"
  "OPTIQ_SHARED_DIR=${OPTIQ_SHARED_DIR}"
  "OPTIQ_GGUF_DIR=${OPTIQ_CACHE_DIR}/models"
  "OPTIQ_DRIVER_DIR=${PROJECT_BINARY_DIR}/tests"
  "OPTIQ_SCRATCH_DIR=${PROJECT_BINARY_DIR}/scratch"
  "PYTHONDONTWRITEBYTECODE=1"
  "PYTHONUNBUFFERED=1")
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/scratch)

# What a test may use beside the library: third-party headers that only the
# sources of a room include.
add_library(optiq_for_tests INTERFACE)
target_link_libraries(optiq_for_tests INTERFACE
  optiq hwy::hwy PkgConfig::utf8proc OpenSSL::Crypto)
if(TARGET optiq_kernels)
  target_compile_definitions(optiq_for_tests INTERFACE
    $<TARGET_PROPERTY:optiq_kernels,INTERFACE_COMPILE_DEFINITIONS>)
endif()

# Only a program's own word makes it skipped: what it prints does not.
set(OPTIQ_TEST_PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1800)

# GoogleTest's main, which returns 77 when something was skipped and nothing failed.
add_library(optiq_test_main STATIC ${PROJECT_SOURCE_DIR}/tests/support/test_main.cpp)
target_link_libraries(optiq_test_main PUBLIC GTest::gtest)

function(optiq_finish_test name label)
  set_tests_properties(${name} PROPERTIES LABELS "${label}" ENVIRONMENT "${OPTIQ_TEST_ENVIRONMENT}"
    ${OPTIQ_TEST_PROPERTIES})
  if(label MATCHES "^(slow|peer)$")
    set_tests_properties(${name} PROPERTIES TIMEOUT 5400)
  endif()
endfunction()

# Test room/[folder/]<name>_test is the file of that name, its target the same with '_' for '/'.
function(optiq_add_room_tests room)
  file(GLOB_RECURSE sources RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} CONFIGURE_DEPENDS
    ${CMAKE_CURRENT_SOURCE_DIR}/${room}/*_test.cpp)
  foreach(source IN LISTS sources)
    string(REGEX REPLACE "\\.cpp$" "" name ${source})
    set(label unit)
    if(name MATCHES "_(model|shared|slow|gpu)_test$")
      set(label ${CMAKE_MATCH_1})
    endif()
    string(REPLACE "/" "_" target ${name})
    add_executable(${target} ${source})
    target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
    target_link_libraries(${target} PRIVATE optiq_for_tests optiq_test_main)
    if(room STREQUAL "cli")
      target_link_libraries(${target} PRIVATE optiq_cli_library)
    endif()
    add_test(NAME ${name} COMMAND ${target})
    optiq_finish_test(${name} ${label})
  endforeach()
endfunction()

# Tests of the MLX device that an NVIDIA card passes too: gpu/<room>/<name>.
function(optiq_add_card_tests)
  foreach(name IN LISTS ARGN)
    string(REPLACE "/" "_" target ${name})
    add_test(NAME gpu/${name} COMMAND ${target})
    optiq_finish_test(gpu/${name} gpu)
    set_property(TEST gpu/${name} APPEND PROPERTY ENVIRONMENT OPTIQ_TEST_DEVICE=cuda)
  endforeach()
endfunction()

function(optiq_add_scripts folder label)
  file(GLOB drivers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*_driver.cpp)
  foreach(source IN LISTS drivers)
    get_filename_component(stem ${source} NAME_WE)
    add_executable(${stem} ${source})
    target_include_directories(${stem} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
    target_link_libraries(${stem} PRIVATE optiq_for_tests)
  endforeach()
  file(GLOB scripts CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.py)
  foreach(script IN LISTS scripts)
    get_filename_component(stem ${script} NAME_WE)
    if(stem MATCHES "^_")
      continue() # shared helpers
    endif()
    set(labels ${label})
    if(stem MATCHES "_(slow|peer|shared)$")
      set(labels ${CMAKE_MATCH_1})
    endif()
    add_test(NAME ${folder}/${stem} COMMAND ${OPTIQ_PYTHON} ${script})
    optiq_finish_test(${folder}/${stem} ${labels})
  endforeach()
endfunction()
