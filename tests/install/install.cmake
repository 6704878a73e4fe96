# Tests labelled install: what `cmake --install` writes is enough to run the
# executable and to build, link and run another project.
set(prefix ${PROJECT_BINARY_DIR}/scratch/prefix)
set(consumer ${PROJECT_BINARY_DIR}/scratch/consumer)

add_test(NAME install/files
  COMMAND ${CMAKE_COMMAND} -DBUILD=${PROJECT_BINARY_DIR} -DPREFIX=${prefix} -P ${CMAKE_CURRENT_SOURCE_DIR}/install/install_files.cmake)
add_test(NAME install/consumer
  COMMAND ${CMAKE_CTEST_COMMAND} --build-and-test ${CMAKE_CURRENT_SOURCE_DIR}/install ${consumer}
  --build-generator Ninja --build-project consumer --build-noclean
  --build-options -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS=${OPTIQ_SANITIZE_FLAG}"
  --test-command consumer)
# The consumer's project builds the library's examples too.
add_test(NAME install/quick_start COMMAND ${consumer}/quick_start WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
add_test(NAME install/turboquant_cache COMMAND ${consumer}/turboquant_cache)
set(adapters ${PROJECT_BINARY_DIR}/scratch/adapters)
add_test(NAME install/adapters COMMAND ${OPTIQ_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/install/write_adapters.py
  ${PROJECT_SOURCE_DIR}/models/tiny-qwen3.5 ${adapters})
add_test(NAME install/mounted_adapters
  COMMAND ${consumer}/mounted_adapters models/tiny-qwen3.5 zero=${adapters}/zero noise=${adapters}/noise
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
add_test(NAME install/executable COMMAND ${prefix}/${CMAKE_INSTALL_BINDIR}/optiq doctor --json)
add_test(NAME install/files_removed COMMAND ${CMAKE_COMMAND} -E rm -rf ${prefix} ${consumer} ${adapters})

set_tests_properties(install/files PROPERTIES FIXTURES_SETUP optiq_prefix)
set_tests_properties(install/consumer install/executable PROPERTIES FIXTURES_REQUIRED optiq_prefix)
set_tests_properties(install/consumer PROPERTIES FIXTURES_SETUP optiq_consumer)
set_tests_properties(install/adapters PROPERTIES FIXTURES_SETUP optiq_adapters)
set_tests_properties(install/quick_start install/turboquant_cache PROPERTIES
  FIXTURES_REQUIRED "optiq_prefix;optiq_consumer")
set_tests_properties(install/quick_start PROPERTIES PASS_REGULAR_EXPRESSION "= 42.*perplexity 1\\.3")
# The base answers as in quick_start, an adapter that adds nothing as the base does, the other one neither.
set_tests_properties(install/mounted_adapters PROPERTIES
  FIXTURES_REQUIRED "optiq_prefix;optiq_consumer;optiq_adapters"
  PASS_REGULAR_EXPRESSION "\\[base\\] [^[]*= 42.*\\[noise\\] .*\\[zero\\] [^[]*= 42"
  FAIL_REGULAR_EXPRESSION "\\[noise\\] [^[]*= 42")
set_tests_properties(install/files_removed PROPERTIES FIXTURES_CLEANUP "optiq_prefix;optiq_adapters")
set_tests_properties(install/executable PROPERTIES PASS_REGULAR_EXPRESSION "\"blas\": \"[^\"]*openblas")
set_tests_properties(install/files install/consumer install/quick_start install/turboquant_cache install/executable
  install/adapters install/mounted_adapters install/files_removed PROPERTIES LABELS install)
