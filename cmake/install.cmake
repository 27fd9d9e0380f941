# SPDX-License-Identifier: Apache-2.0
# find_package(nibble) works after install; the header sets keep the source layout below include/nibble. Component
# `libraries` is what other projects build against, without the programs.
include(CMakePackageConfigHelpers)
set(NIBBLE_CONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
install(TARGETS nibble_tensor nibble_quant nibble_jit nibble_models nibble_plugin nibble_flags nibble_onednn_dep nibble_xbyak_dep
  EXPORT nibble-targets COMPONENT libraries
  FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/nibble COMPONENT libraries
  FILE_SET lists DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/nibble COMPONENT libraries)
install(EXPORT nibble-targets NAMESPACE nibble:: DESTINATION ${NIBBLE_CONFIG_DIR} COMPONENT libraries)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/nibble-config.cmake.in
  ${CMAKE_BINARY_DIR}/nibble-config.cmake INSTALL_DESTINATION ${NIBBLE_CONFIG_DIR})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/nibble-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/nibble-config.cmake ${CMAKE_BINARY_DIR}/nibble-config-version.cmake
  DESTINATION ${NIBBLE_CONFIG_DIR} COMPONENT libraries)
