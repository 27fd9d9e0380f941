# SPDX-License-Identifier: Apache-2.0
# Debian packages only; scripts/setup.sh installs them. Wrapped so that a dependency's headers count as system headers.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)

# Debian's oneDNN runs on OpenMP, whose thread count tensor/onednn sets around its calls.
find_package(dnnl REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
add_library(nibble_onednn_dep INTERFACE)
target_link_libraries(nibble_onednn_dep INTERFACE DNNL::dnnl OpenMP::OpenMP_CXX)

find_path(NIBBLE_XBYAK_INCLUDE xbyak/xbyak.h REQUIRED)
add_library(nibble_xbyak_dep INTERFACE)
target_include_directories(nibble_xbyak_dep SYSTEM INTERFACE ${NIBBLE_XBYAK_INCLUDE})
