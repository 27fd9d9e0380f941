// SPDX-License-Identifier: Apache-2.0
// Reads the .npy files of tests/data (version 1, little endian, C order;
// https://numpy.org/neps/nep-0001-npy-format.html).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nibble::test {

template <class T>
struct Npy {
  std::vector<int64_t> shape;
  std::vector<T> data;
};
/// T is float or int32_t; throws std::runtime_error when the file holds something else.
template <class T>
Npy<T> read_npy(const std::string& path);

}  // namespace nibble::test
