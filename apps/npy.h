// SPDX-License-Identifier: Apache-2.0
// NumPy's file format, version 1.0 (numpy.lib.format). Internal to apps/.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace nibble::cli {

/// Writes (rows, columns) float32, row-major. Throws Error naming the file.
void write_npy(const std::string& path, std::span<const float> values, size_t rows, size_t columns);

}  // namespace nibble::cli
