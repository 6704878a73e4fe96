# Tests labelled lint: they read sources and run nothing of ours. clang-tidy is
# not among them: it takes as long as the build (preset `tidy`).
optiq_add_room_lint()

# The include lint is known to be on: a room that looks to its right must fail,
# from a folder inside it too.
set(bad ${CMAKE_CURRENT_SOURCE_DIR}/lint/bad)
add_test(NAME lint/bad_room_is_caught
  COMMAND ${CMAKE_COMMAND} -DROOM=io -DALLOWED=base,artifacts -DROOT=${bad} -P ${PROJECT_SOURCE_DIR}/cmake/CheckRoom.cmake)

find_program(OPTIQ_CLANG_FORMAT clang-format-14 REQUIRED)
set(sources "")
foreach(folder optiq tests benchmarks examples)
  file(GLOB_RECURSE found CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.h ${PROJECT_SOURCE_DIR}/${folder}/*.cpp)
  list(APPEND sources ${found})
endforeach()
list(FILTER sources EXCLUDE REGEX "/tests/lint/bad/")
add_test(NAME lint/format COMMAND ${OPTIQ_CLANG_FORMAT} --dry-run -Werror ${sources})
add_test(NAME lint/bad_format_is_caught
  COMMAND ${OPTIQ_CLANG_FORMAT} --dry-run -Werror ${bad}/format.cpp)

add_test(NAME lint/rules
  COMMAND ${OPTIQ_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/lint/check_rules.py ${PROJECT_SOURCE_DIR})

set(shown_examples ${OPTIQ_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/lint/shown_examples.py)
add_test(NAME lint/shown_examples COMMAND ${shown_examples} ${PROJECT_SOURCE_DIR})
add_test(NAME lint/bad_example_is_caught COMMAND ${shown_examples} ${bad})

set(roads ${OPTIQ_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/lint/roads.py)
add_test(NAME lint/roads COMMAND ${roads} ${PROJECT_SOURCE_DIR})
add_test(NAME lint/bad_road_is_caught COMMAND ${roads} ${bad})

find_program(OPTIQ_SHELLCHECK shellcheck REQUIRED)
add_test(NAME lint/shell
  COMMAND ${OPTIQ_SHELLCHECK} -x scripts/common.sh scripts/setup scripts/demo scripts/test .ci/run tools/prove_in_minbase
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
add_test(NAME lint/bad_shell_is_caught COMMAND ${OPTIQ_SHELLCHECK} ${bad}/shell.sh)

set_tests_properties(lint/bad_room_is_caught PROPERTIES PASS_REGULAR_EXPRESSION
  "room 'io' may include only.*io/bad\\.cpp.*io/folder/bad\\.cpp")
set_tests_properties(lint/bad_format_is_caught PROPERTIES PASS_REGULAR_EXPRESSION "clang-format-violations")
set_tests_properties(lint/bad_example_is_caught PROPERTIES PASS_REGULAR_EXPRESSION "2 blocks, 1 findings")
set_tests_properties(lint/bad_road_is_caught PROPERTIES PASS_REGULAR_EXPRESSION
  "no convert road.*8 files, at most 7.*no file optiq/io/five.*registry <- io/folder/bad: no such include.*no lines")
set_tests_properties(lint/bad_shell_is_caught PROPERTIES PASS_REGULAR_EXPRESSION "SC2086")
set_tests_properties(lint/bad_room_is_caught lint/format lint/bad_format_is_caught lint/rules lint/shell
  lint/bad_shell_is_caught lint/shown_examples lint/bad_example_is_caught
  lint/roads lint/bad_road_is_caught
  PROPERTIES LABELS lint)

# A test that skips one case and fails another is a failure, one that skips and
# fails nothing is shown as skipped: a ctest of its own runs the planted program.
add_executable(planted_lie ${CMAKE_CURRENT_SOURCE_DIR}/lint/lie/lie.cpp)
target_link_libraries(planted_lie PRIVATE optiq_test_main)
foreach(lie fail skip)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/lie_${lie})
  list(JOIN OPTIQ_TEST_PROPERTIES " " properties)
  file(GENERATE OUTPUT ${folder}/CTestTestfile.cmake CONTENT
    "add_test(lie [==[$<TARGET_FILE:planted_lie>]==])\nset_tests_properties(lie PROPERTIES ENVIRONMENT OPTIQ_LIE=${lie} ${properties})\n")
  add_test(NAME lint/lie_that_must_${lie} COMMAND ${CMAKE_CTEST_COMMAND} --test-dir ${folder})
  set_tests_properties(lint/lie_that_must_${lie} PROPERTIES LABELS lint)
endforeach()
set_tests_properties(lint/lie_that_must_fail PROPERTIES PASS_REGULAR_EXPRESSION "lie \\(Failed\\)")
set_tests_properties(lint/lie_that_must_skip PROPERTIES PASS_REGULAR_EXPRESSION "lie \\(Skipped\\)")
