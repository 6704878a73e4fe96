# Tests labelled lint: they read sources and run nothing of ours. clang-tidy is
# not among them: it takes as long as the build (preset `tidy`).
optiq_add_room_lint()

# The include lint is known to be on: a room that looks to its right must fail.
set(bad ${CMAKE_CURRENT_SOURCE_DIR}/lint/bad)
add_test(NAME lint/bad_room_is_caught
  COMMAND ${CMAKE_COMMAND} -DROOM=io -DALLOWED=base,artifacts -DROOT=${bad} -P ${PROJECT_SOURCE_DIR}/cmake/CheckRoom.cmake)

find_program(OPTIQ_CLANG_FORMAT clang-format-14 REQUIRED)
set(sources "")
foreach(folder optiq tests benchmarks)
  file(GLOB_RECURSE found CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.h ${PROJECT_SOURCE_DIR}/${folder}/*.cpp)
  list(APPEND sources ${found})
endforeach()
list(FILTER sources EXCLUDE REGEX "/tests/lint/bad/")
add_test(NAME lint/format COMMAND ${OPTIQ_CLANG_FORMAT} --dry-run -Werror ${sources})
add_test(NAME lint/bad_format_is_caught
  COMMAND ${OPTIQ_CLANG_FORMAT} --dry-run -Werror ${bad}/format.cpp)

add_test(NAME lint/rules
  COMMAND ${OPTIQ_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/lint/check_rules.py ${PROJECT_SOURCE_DIR})

find_program(OPTIQ_SHELLCHECK shellcheck REQUIRED)
add_test(NAME lint/shell
  COMMAND ${OPTIQ_SHELLCHECK} -x scripts/common.sh scripts/setup scripts/demo scripts/test .ci/run tools/prove_in_minbase
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})

set_tests_properties(lint/bad_room_is_caught PROPERTIES PASS_REGULAR_EXPRESSION "room 'io' may include only")
set_tests_properties(lint/bad_format_is_caught PROPERTIES PASS_REGULAR_EXPRESSION "clang-format-violations")
set_tests_properties(lint/bad_room_is_caught lint/format lint/bad_format_is_caught lint/rules lint/shell
  PROPERTIES LABELS lint)
