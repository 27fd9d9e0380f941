// SPDX-License-Identifier: Apache-2.0
// Importance matrices: how large the inputs of each matrix are on a text, as a file. Read in both forms of llama.cpp's
// llama-imatrix, the old one (binary, ".dat") and GGUF; written as GGUF.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "models/calibrate.h"
#include "models/model_source.h"

namespace nibble::models {

struct Imatrix {
  /// By the tensor's name in GGUF: the mean square of each input; of several experts one after the other.
  std::map<std::string, std::vector<float>, std::less<>> squares;
  uint32_t chunks = 0, chunk_tokens = 0;  ///< of the text; 0 where the file does not say

  /// Throws Error naming the file and what is wrong with it.
  static Imatrix read(const std::string& path);
  /// The file appears under its name only when it is whole.
  void write(const std::string& path) const;
};

/// Throws Error unless a matrix has as many inputs as the file says.
void check_imatrix_inputs(const std::string& tensor, size_t found, int64_t expected);
/// Of the model's own run on a text.
Imatrix make_imatrix(const Calibration& calibration, const ModelSource& model, const CalibrateOptions& options,
                     int chunks);
/// Throws Error when it is another model's: no tensor of this one is in it, or one has other sizes.
Calibration use_imatrix(const Imatrix& imatrix, const ModelSource& model);

}  // namespace nibble::models
