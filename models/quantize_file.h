// SPDX-License-Identifier: Apache-2.0
// A model, from a GGUF file or a Hugging Face folder, into a GGUF file whose matrices are quantised.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/calibrate.h"
#include "tensor/tensor.h"

namespace nibble::models {

/// Tensors whose name matches get this type.
struct TypeRule {
  std::string pattern;                    ///< `*` any text, `?` any character; ".weight" may be left out
  const quant::BlockType* type = nullptr; ///< nullptr: as they are
  bool matches(std::string_view tensor) const;
};

/// Types that are chosen for each matrix by what its errors do to the predictions (needs a text to calibrate with).
struct AutoTypes {
  double bits = 0;     ///< per weight at most, over all tensors; 0: `bytes` holds
  uint64_t bytes = 0;  ///< of all tensors at most
  std::vector<const quant::BlockType*> candidates;
};

struct QuantizeOptions {
  // What tensors become; nullptr: as they are.
  const quant::BlockType* matrices = nullptr;   ///< of the blocks
  const quant::BlockType* embedding = nullptr;  ///< the token embedding
  const quant::BlockType* output = nullptr;     ///< the output matrix
  std::vector<TypeRule> rules;                  ///< the first that matches goes before those above
  std::optional<AutoTypes> automatic;           ///< in place of those three
  bool search = true;                           ///< for the best scales; else from end to end
  int threads = 0;                              ///< 0: default_threads()
  uint64_t split_bytes = 0;                     ///< of tensors in a file at most, if they fit; 0: one file
  std::string calibration;                      ///< a text; "": every input matters alike, no error is fed back
  std::string importance;  ///< path of an importance matrix in place of the text (models/imatrix.h)
  CalibrateOptions calibrate;
};

struct PlannedTensor {
  std::string name;
  Shape shape;
  const quant::BlockType *from = nullptr, *to = nullptr;  ///< the same when it is kept
  bool matrix = false;
  bool whole_rows = false;  ///< its blocks of a row have one scale
  uint64_t bytes_in = 0, bytes_out = 0;
};

struct QuantizeReport {
  std::vector<PlannedTensor> tensors;
  int quantised = 0;                      ///< matrices
  std::map<std::string, int> kept;        ///< the others, also where rows don't divide into blocks, by type
  double squared_error = 0, squares = 0;  ///< sums over the weights of the quantised ones
  double divergence = 0;                  ///< `automatic`: what is expected of the predictions, nats per token
  uint64_t bytes_in = 0, bytes_out = 0;   ///< of the files; planned: of the tensors
};

/// One of ours, by name or as in int4:g128:sym:f16 (quant/spec.h), also of a whole row (quant/row_types.h), or a type
/// of GGUF that can be written. Throws Error naming it and the known ones.
const quant::BlockType& find_quantize_type(std::string_view name);
/// The same; "keep" is nullptr.
const quant::BlockType* find_type_or_keep(std::string_view name);
/// What goes with matrices of a type for the embedding and the output matrix: at least six bits, of the same kind.
const quant::BlockType& usual_embedding(const quant::BlockType& matrices);
/// Those that `automatic` chooses among if nobody says otherwise: of GGUF, or with our own as well.
std::vector<const quant::BlockType*> usual_candidates(bool native);
/// "blk.*.ffn_down=q6_k". Throws Error.
TypeRule parse_type_rule(std::string_view text);

/// Gets what is done, "calibrating" or a tensor's name, and how far it is.
using QuantizeStep = std::function<void(std::string_view what, int done, int total)>;

/// The inputs of a model's weights on a text.
struct TextCalibration {
  std::shared_ptr<const Model> model;
  std::vector<int32_t> tokens;
  Calibration calibration;
};
/// Loads the model; `floats`: LoadOptions::floats. Throws Error.
TextCalibration calibrate_on_text(const std::string& from, const std::string& text, const CalibrateOptions& options,
                                  const QuantizeStep& step, bool floats = false);

/// What quantize_file would write.
QuantizeReport plan_quantize(const std::string& from, const QuantizeOptions& options, const QuantizeStep& step = {});

/// Throws Error; `to` is then as it was. Where rows do not divide into a type's blocks a near type with smaller ones is
/// taken. Holds the largest tensor, as written, and a few rows of floats.
QuantizeReport quantize_file(const std::string& from, const std::string& to, const QuantizeOptions& options,
                             const QuantizeStep& step = {});

}  // namespace nibble::models
