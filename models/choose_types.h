// SPDX-License-Identifier: Apache-2.0
// A type for each tensor, by measurement: the least expected divergence of the model's predictions under a limit of
// size.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>

#include "models/model_source.h"
#include "models/quantize_file.h"

namespace nibble::models {

struct ChosenTypes {
  std::map<std::string, const quant::BlockType*, std::less<>> types;  ///< by the tensor's name
  double divergence = 0;  ///< expected, nats per token
};

/// What each tensor costs in each candidate is sensitivity (models/sensitivity.h) times error, of a sample of its rows;
/// the choice among them models/allocate.h. `plan` is what holds without: tensors that a rule changes, and all that is
/// no matrix, keep its types and count towards the size. `model` is the source's, of floats (LoadOptions::floats).
ChosenTypes choose_types(const ModelSource& source, const QuantizeReport& plan, const QuantizeOptions& options,
                         std::shared_ptr<const Model> model, std::span<const int32_t> tokens,
                         const Calibration& calibration, const QuantizeStep& step);

/// What is known of the inputs of a tensor's matrix: nothing of those of experts, which get inputs of their own. An
/// embedding gets no feedback: its rows are inputs themselves, and feedback moves them farther.
std::shared_ptr<const quant::InputStatistics> statistics_of(const SourceTensor& tensor, const Calibration& calibration);
uint64_t bytes_of_tensor(const quant::BlockType& type, const Shape& shape);

}  // namespace nibble::models
