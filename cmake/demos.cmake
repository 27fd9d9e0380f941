# SPDX-License-Identifier: Apache-2.0
# One demo binary nibble-<name> per line of models/arch_list.inc, all from apps/demo.cpp.
file(STRINGS ${CMAKE_SOURCE_DIR}/models/arch_list.inc NIBBLE_ARCH_LINES REGEX "^NIBBLE_ARCH\\(")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/models/arch_list.inc)
foreach(line IN LISTS NIBBLE_ARCH_LINES)
  string(REGEX REPLACE "^NIBBLE_ARCH\\(([a-z0-9_]+)\\).*" "\\1" arch "${line}")
  nibble_program(nibble-${arch} ${CMAKE_SOURCE_DIR}/apps/demo.cpp)
  target_compile_definitions(nibble-${arch} PRIVATE NIBBLE_DEMO_ARCH="${arch}")
endforeach()
