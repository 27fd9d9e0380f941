// SPDX-License-Identifier: Apache-2.0
#include "tests/support/npy.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <type_traits>

namespace nibble::test {

template <class T>
Npy<T> read_npy(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream all;
  all << in.rdbuf();
  const std::string bytes = all.str();
  if (bytes.size() < 10 || bytes.compare(0, 6, "\x93NUMPY") != 0 || bytes[6] != 1)
    throw std::runtime_error(path + ": not a version 1 .npy file");
  const size_t header_bytes = static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  const std::string header = bytes.substr(10, header_bytes);
  const char* type = std::is_same_v<T, float> ? "'<f4'" : "'<i4'";
  if (header.find(type) == std::string::npos || header.find("'fortran_order': False") == std::string::npos)
    throw std::runtime_error(path + ": expected " + type + " in C order, found " + header);
  Npy<T> result;
  size_t count = 1;
  const char* at = header.c_str() + header.find('(', header.find("'shape'")) + 1;
  while (*at != ')') {
    char* end = nullptr;
    result.shape.push_back(std::strtoll(at, &end, 10));
    count *= static_cast<size_t>(result.shape.back());
    at = end + std::strspn(end, ", ");
  }
  if (bytes.size() != 10 + header_bytes + count * sizeof(T)) throw std::runtime_error(path + ": wrong size");
  result.data.resize(count);
  std::memcpy(result.data.data(), bytes.data() + 10 + header_bytes, count * sizeof(T));
  return result;
}

template Npy<float> read_npy(const std::string&);
template Npy<int32_t> read_npy(const std::string&);

}  // namespace nibble::test
