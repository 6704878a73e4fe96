# cmake -DBUILD=... -DPREFIX=... -P install_files.cmake
# Installs BUILD into PREFIX and fails when something is there that a user of
# the library has no use for.
file(REMOVE_RECURSE ${PREFIX})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${PREFIX}
  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
file(GLOB_RECURSE files RELATIVE ${PREFIX} ${PREFIX}/*)
set(unwanted ${files})
list(FILTER unwanted INCLUDE REGEX "_test|gtest|_impl\\.h$|-inl\\.h$|\\.a$|/cli/|\\.cpp$|/hwy/")
if(unwanted)
  message(FATAL_ERROR "installed, and should not be: ${unwanted}")
endif()
foreach(wanted "include/optiq/optiq\\.h" "include/optiq/base/error\\.h" "lib/.*liboptiq\\." "OptiqConfig\\.cmake")
  set(found ${files})
  list(FILTER found INCLUDE REGEX "${wanted}")
  if(NOT found)
    message(FATAL_ERROR "not installed: ${wanted}")
  endif()
endforeach()
