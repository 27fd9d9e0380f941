// SPDX-License-Identifier: Apache-2.0
// How the inputs of each weight behave on a text, for quantising it well.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "models/decoder.h"
#include "quant/fit.h"

namespace nibble::models {

struct CalibrateOptions {
  int threads = 0;    ///< 0: default_threads()
  int context = 256;  ///< tokens run at a time
  /// Runs of `context` tokens at most, evenly spread over the text; 0: 32, or 128 where there is feedback, which has
  /// (k, k) numbers to learn of each input in place of k.
  int chunks = 0;
  /// Inputs up to this size get `feedback` as well, with products of different inputs counted 0.7 times; (k, k) floats
  /// are kept for each. 0: none.
  int64_t feedback_inputs = 0;
};

/// By the weight's short name in the graph, "blk.3.q.weight"; weights that read the same share their statistics.
using Calibration = std::map<std::string, std::shared_ptr<const quant::InputStatistics>, std::less<>>;

/// Runs the text through the model in chunks that begin with first_token(), the same for any number of threads. Throws
/// Error when it is shorter than one context.
Calibration calibrate(std::shared_ptr<const Model> model, std::span<const int32_t> tokens,
                      const CalibrateOptions& options, const std::function<void(int chunk, int chunks)>& on_chunk = {});

}  // namespace nibble::models
