// SPDX-License-Identifier: Apache-2.0
// How much a model's predictions suffer from errors in each of its weights, found by making some.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "models/calibrate.h"

namespace nibble::models {

struct SensitivityOptions {
  int threads = 0;       ///< 0: default_threads()
  int context = 256;     ///< tokens run at a time
  int chunks = 2;        ///< at most
  int layer_groups = 5;  ///< weights of one name in neighbouring layers are tried together: so many groups of layers
};

/// By the weight's short name in the graph: the divergence of the predictions (nats per token) per unit of what
/// quant::fit_rows says an error costs. Each group of weights is rounded to four bits in turn, in place; all are as
/// they were in the end, nobody else may use the model meanwhile. Throws Error when it does not consist of floats in
/// memory of its own (LoadOptions::floats, no packed copy) or the text is shorter than one context.
using Sensitivity = std::map<std::string, double, std::less<>>;
Sensitivity measure_sensitivity(std::shared_ptr<const Model> model, std::span<const int32_t> tokens,
                                const Calibration& calibration, const SensitivityOptions& options,
                                const std::function<void(int group, int groups)>& on_group = {});

}  // namespace nibble::models
