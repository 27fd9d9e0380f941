// SPDX-License-Identifier: Apache-2.0
// One GGUF file into another one whose matrices are quantised.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "models/calibrate.h"

namespace nibble::models {

struct QuantizeOptions {
  const quant::BlockType* matrices = nullptr;   ///< of the blocks; nullptr: as they are
  const quant::BlockType* embedding = nullptr;  ///< token embedding and output matrix; nullptr: as they are
  int threads = 0;                              ///< 0: default_threads()
  std::string calibration;                      ///< a text; "": every input matters alike, no error is fed back
  CalibrateOptions calibrate;
};

struct QuantizeReport {
  int quantised = 0, kept = 0;            ///< matrices; those whose rows don't divide into blocks are kept
  double squared_error = 0, squares = 0;  ///< sums over the weights of the quantised ones
  uint64_t bytes_in = 0, bytes_out = 0;   ///< of the files
};

/// One of ours, or a type of GGUF that can be written. Throws Error naming it and the known ones.
const quant::BlockType& find_quantize_type(std::string_view name);

/// Throws Error; `to` is then as it was. `step` gets what is done, "calibrating" or a tensor's name, and how far it is.
QuantizeReport quantize_file(const std::string& from, const std::string& to, const QuantizeOptions& options,
                             const std::function<void(std::string_view what, int done, int total)>& step = {});

}  // namespace nibble::models
