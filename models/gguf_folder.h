// SPDX-License-Identifier: Apache-2.0
// A GGUF file as the folder that transformers saves of the same model: names from the architectures' own lists, what
// converters to GGUF do to tensors undone, config.json from the keys. Internal to models/.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/arch.h"
#include "models/float_model.h"
#include "models/io/checkpoint.h"

namespace nibble::models {

/// `matrices`: f32, f16 or bf16; nullopt: as the file has them, quantised ones as f32, which holds their values.
/// Vectors are f32 but where the file has them in 16 bits. Throws Error for architectures, keys, tensors and tokenizers
/// that it cannot be done for; nothing but the file's keys is read. Tensors are in the order of the architecture's
/// list.
FloatModel unpack_gguf(const Checkpoint& file, std::optional<DType> matrices);

/// How transformers names an architecture, and what its configuration says beyond what all have.
struct FolderKind;
/// Throws Error naming the architectures there are.
const FolderKind& find_folder_kind(const Arch& arch, const Config& config, const std::string& path);
/// config.json of the GGUF file at `path`, to be read.
Metadata config_metadata(const std::string& path, const nlohmann::ordered_json& json);
/// All of config.json; the configuration that is read from it is the file's, or else Error says what is not. `biased`:
/// names of weights that have a bias, of layer 0 where they are of layers. Also gives whether rows of q and k change
/// places.
nlohmann::ordered_json folder_config(const FolderKind& kind, const Checkpoint& file, const Config& config,
                                     const std::vector<std::string_view>& weights,
                                     const std::vector<std::string_view>& biased, bool& reordered);

}  // namespace nibble::models
