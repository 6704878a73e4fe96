# liboptiq.so: every room but cli, and the front door to them, optiq/optiq.h.
# Shared, so that one copy of the thread pool and of the kernels serves an
# executable, and a consumer links one library.
# Third-party libraries that no public header names stay inside it.
get_property(rooms GLOBAL PROPERTY OPTIQ_ROOMS)
set(library_rooms ${rooms})
list(REMOVE_ITEM library_rooms cli)
list(TRANSFORM library_rooms PREPEND optiq_)

add_library(optiq SHARED)
add_library(optiq::optiq ALIAS optiq)
set_target_properties(optiq PROPERTIES LINKER_LANGUAGE CXX VERSION ${PROJECT_VERSION} SOVERSION 0)
target_compile_features(optiq PUBLIC cxx_std_20)
target_compile_options(optiq PRIVATE ${OPTIQ_WARNINGS})
if(NOT OPTIQ_ROOMS_ONLY)
  target_sources(optiq PRIVATE ${PROJECT_SOURCE_DIR}/optiq/optiq.cpp)
endif()
target_include_directories(optiq PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(optiq
  PRIVATE ${library_rooms} ${OPTIQ_BLAS}
  PUBLIC fmt::fmt nlohmann_json::nlohmann_json Threads::Threads mlx)
