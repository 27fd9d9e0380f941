// SPDX-License-Identifier: Apache-2.0
#include "apps/npy.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tensor/check.h"

namespace nibble::cli {

void write_npy(const std::string& path, std::span<const float> values, size_t rows, size_t columns) {
  NIBBLE_CHECK(values.size() == rows * columns, path, ": expected ", rows, " x ", columns, " values, found ",
               values.size());
  std::string header = message("{'descr': '<f4', 'fortran_order': False, 'shape': (", rows, ", ", columns, "), }");
  constexpr size_t prefix = 10, alignment = 64;  // magic, version and length; the data begins at a multiple of 64
  header.resize((prefix + header.size() + 1 + alignment - 1) / alignment * alignment - prefix, ' ');
  header.back() = '\n';
  std::string begin("\x93NUMPY\x01\x00", 8);
  begin += static_cast<char>(header.size() & 0xff);
  begin += static_cast<char>(header.size() >> 8);
  begin += header;
  std::FILE* out = std::fopen(path.c_str(), "wb");
  NIBBLE_CHECK(out != nullptr, "cannot write ", path, ": ", std::strerror(errno));
  const bool written = std::fwrite(begin.data(), 1, begin.size(), out) == begin.size() &&
                       std::fwrite(values.data(), sizeof(float), values.size(), out) == values.size();
  const bool closed = std::fclose(out) == 0;
  NIBBLE_CHECK(written && closed, "cannot write ", path, ": ", std::strerror(errno));
}

}  // namespace nibble::cli
