# SPDX-License-Identifier: Apache-2.0
# find_package(nibble) works after install; the header sets keep the source layout below include/nibble.
include(CMakePackageConfigHelpers)
install(TARGETS nibble_tensor nibble_quant nibble_jit nibble_models nibble_flags nibble_onednn_dep nibble_xbyak_dep
  EXPORT nibble-targets FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/nibble)
install(EXPORT nibble-targets NAMESPACE nibble:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/nibble-config.cmake.in
  ${CMAKE_BINARY_DIR}/nibble-config.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/nibble-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/nibble-config.cmake ${CMAKE_BINARY_DIR}/nibble-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
