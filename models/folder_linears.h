// SPDX-License-Identifier: Apache-2.0
// The linear layers of a model that is written to a folder, and what each is to become. Internal to models/.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/calibrate.h"
#include "models/float_model.h"
#include "models/imatrix.h"
#include "models/quantize_folder.h"

namespace nibble::models {

/// A matrix that a module of the kind Linear has.
struct Linear {
  const FloatTensor* weight = nullptr;
  std::optional<QuantLayout> layout;  ///< nullopt: it is kept
  std::string graph;                  ///< its name in the graph, or that of its first piece: "blk.0.q.weight"
  std::string gguf;                   ///< its name in GGUF, if it has one there: "blk.0.attn_q.weight"
  bool expert = false;                ///< sees inputs of its own
  std::string name() const { return weight->name.substr(0, weight->name.rfind('.')); }
};

/// Weights that share a scale.
inline int64_t group_of(const QuantLayout& layout, int64_t k) { return layout.group ? layout.group : k; }

/// A path of Arch::names with a number in place of the first `mark`, "{}" or "{e}".
std::string put_number(std::string_view path, std::string_view mark, int number);

/// What the first rule that matches says of a tensor; nullptr: none matches.
const std::optional<QuantLayout>* find_rule(const FolderOptions& options, std::string_view tensor);

/// By name. Matrices of the embedding, of positions and of routers are none, nor are those whose rows are columns
/// elsewhere.
std::vector<Linear> find_linears(const FloatModel& model, const FolderOptions& options);

/// What is known of the inputs of each, by the weight's name. Of experts nothing: each sees inputs of its own.
Calibration inputs_of(const std::vector<Linear>& linears, const Calibration& calibration);
/// The same from a file. Throws Error when it is another model's: none of these is in it, or one has other sizes.
Calibration inputs_of(const std::vector<Linear>& linears, const Imatrix& imatrix);

}  // namespace nibble::models
