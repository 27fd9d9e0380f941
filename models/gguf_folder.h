// SPDX-License-Identifier: Apache-2.0
// A GGUF file as the folder that transformers saves of the same model: names from the architectures' own lists, what
// converters to GGUF do to tensors undone, config.json from the keys. Internal to models/.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/arch.h"
#include "models/io/checkpoint.h"
#include "models/weight_part.h"
#include "tensor/parallel.h"

namespace nibble::models {

/// One tensor of the folder, in floats.
struct UnpackedTensor {
  std::string name;
  Shape shape;
  DType type = DType::f32;  ///< f32, f16 or bf16: what it is written as
  WeightPart part;          ///< of the file
  bool transposed = false;  ///< its lines are columns of the part

  uint64_t bytes() const;
  /// Reads, and rounds to `type`; memory for the tensor as it is written. Throws Error for a number that f16 does not
  /// reach.
  std::vector<std::byte> read(const Checkpoint& file, ThreadPool& pool) const;
};

struct UnpackedModel {
  std::vector<UnpackedTensor> tensors;
  std::vector<std::pair<std::string, std::string>> files;  ///< config.json and the tokenizer's: name, text
};

/// `matrices`: f32, f16 or bf16; nullopt: as the file has them, quantised ones as f32, which holds their values.
/// Vectors are f32 but where the file has them in 16 bits. Throws Error for architectures, keys, tensors and tokenizers
/// that it cannot be done for; nothing but the file's keys is read. The checkpoint must live on.
UnpackedModel unpack_gguf(const Checkpoint& file, std::optional<DType> matrices);

/// How transformers names an architecture, and what its configuration says beyond what all have.
struct FolderKind;
/// Throws Error naming the architectures there are.
const FolderKind& find_folder_kind(const Arch& arch, const Config& config, const std::string& path);
/// All of config.json; the configuration that is read from it is the file's, or else Error says what is not. `biased`:
/// names of weights that have a bias, of layer 0 where they are of layers. Also gives whether rows of q and k change
/// places.
nlohmann::ordered_json folder_config(const FolderKind& kind, const Checkpoint& file, const Config& config,
                                     const std::vector<std::string_view>& weights,
                                     const std::vector<std::string_view>& biased, bool& reordered);

}  // namespace nibble::models
