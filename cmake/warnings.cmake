# SPDX-License-Identifier: Apache-2.0
# Flags of every target of ours. No -march=native and no -ffast-math: one binary runs everywhere.
add_library(nibble_flags INTERFACE)
target_compile_options(nibble_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  -Wnon-virtual-dtor -Wundef -fno-math-errno -ffp-contract=off)
if(NIBBLE_WERROR)
  target_compile_options(nibble_flags INTERFACE -Werror)
endif()
if(NIBBLE_SANITIZE)
  add_compile_options(-fsanitize=${NIBBLE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -D_GLIBCXX_ASSERTIONS)
  add_link_options(-fsanitize=${NIBBLE_SANITIZE})
endif()
find_program(NIBBLE_CCACHE ccache)
if(NIBBLE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${NIBBLE_CCACHE})
endif()
