// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder, or a GGUF file as one, into a folder whose linear layers are quantised, as compressed-tensors
// or bitsandbytes has them; and a GGUF file into a folder of floats.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/quantize_file.h"
#include "tensor/packed.h"

namespace nibble::models {

struct FolderOptions {
  /// Of the linear layers of the blocks, as folder_layout has it.
  QuantLayout matrices;
  /// Modules whose name matches (`*` any text, `?` any character) get this, or are kept; the first that matches. The
  /// output matrix is kept unless one matches. Floats (bits 0) also of matrices that are no linear layers.
  std::vector<std::pair<std::string, std::optional<QuantLayout>>> rules;
  /// What matrices that are kept are written as: f32, f16 or bf16; nullopt: as they are, those that a GGUF file has
  /// quantised as f32, which holds their values. config.json then says that the model computes in it. In a folder for
  /// bitsandbytes vectors too, and where floats have several types they become f32.
  std::optional<DType> kept{};
  bool search = true;            ///< for the best scales; else from end to end
  int threads = 0;               ///< 0: default_threads()
  uint64_t split_bytes = 0;      ///< of tensors in a file at most, if they fit; 0: one file
  std::string calibration{};     ///< as in QuantizeOptions
  std::string importance{};      ///< likewise
  CalibrateOptions calibrate{};  ///< likewise
};

struct FolderTensor {
  std::string name;
  Shape shape;
  std::string from, to;  ///< types
  uint64_t bytes_in = 0, bytes_out = 0;
};

struct FolderReport {
  std::vector<FolderTensor> tensors;
  int quantised = 0;                      ///< linear layers
  std::map<std::string, int> floats;      ///< the other matrices, by what they are written as
  double weights = 0;                     ///< of all tensors
  double squared_error = 0, squares = 0;  ///< sums over the weights of the quantised ones
  uint64_t bytes_in = 0, bytes_out = 0;   ///< of the files of weights; planned: bytes_out of the tensors
};

/// What a folder can have: "int4:g128:asym:bf16" (quant/spec.h), or a type of our own by name, as "q4_g128"; a minimum
/// then becomes an integer zero point. Integers and E4M3, or NF4 and FP4 with scales of f32; f32, f16 and bf16, of bits
/// 0, for rules. Throws Error.
QuantLayout folder_layout(std::string_view name);

/// Weights, config.json with its quantization_config, and the tokenizer's and other small files as they are. The folder
/// `to`, which must not exist or be empty, appears when it is whole. Layers whose rows do not divide into groups are
/// kept. Holds the largest tensor, as written. Throws Error.
FolderReport quantize_folder(const std::string& from, const std::string& to, const FolderOptions& options,
                             const QuantizeStep& step = {});
/// What quantize_folder would write.
FolderReport plan_folder(const std::string& from, const FolderOptions& options);

struct UnpackOptions {
  std::optional<DType> matrices;  ///< f32, f16, bf16; nullopt: as they are, quantised ones as f32
  int threads = 0;                ///< as in FolderOptions
  uint64_t split_bytes = 0;       ///< likewise
};

/// A GGUF file as the folder that transformers saves of the same model: weights as floats, config.json and the
/// tokenizer. Vectors stay in 32 bits if they are. Or a folder of floats as another one, whose vectors stay as they are.
/// Throws Error for architectures, keys and tokenizers that it cannot be done for. `to` as in quantize_folder; "": only
/// says what it would write.
FolderReport unpack_to_folder(const std::string& from, const std::string& to, const UnpackOptions& options,
                              const QuantizeStep& step = {});

}  // namespace nibble::models
