# `cmake --install`: the executable, liboptiq.so, its public headers, and a
# package for find_package(Optiq). MLX stays where scripts/setup put it, as a Python
# package that others may share; the RUNPATH and the package file say where.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Optiq)

set_target_properties(optiq PROPERTIES INSTALL_RPATH "${OPTIQ_MLX_LIBRARY_DIR}")
install(TARGETS optiq EXPORT OptiqTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET optiq_cli)
  file(RELATIVE_PATH to_lib /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
  set_target_properties(optiq_cli PROPERTIES
    INSTALL_RPATH "$ORIGIN/${to_lib};${OPTIQ_MLX_LIBRARY_DIR}")
  install(TARGETS optiq_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/optiq DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h"
  PATTERN "*_impl.h" EXCLUDE PATTERN "*-inl.h" EXCLUDE
  PATTERN cli EXCLUDE)
install(EXPORT OptiqTargets NAMESPACE optiq:: DESTINATION ${package_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/OptiqConfig.cmake.in
  ${PROJECT_BINARY_DIR}/OptiqConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/OptiqConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/OptiqConfig.cmake ${PROJECT_BINARY_DIR}/OptiqConfigVersion.cmake
  DESTINATION ${package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
