// SPDX-License-Identifier: Apache-2.0
// Writes GGUF v3 files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/io/gguf.h"

namespace nibble::models {

/// Key naming the native block types (quant/format.h) in a file; docs/formats.md has the layout.
inline constexpr std::string_view native_types_key = "nibble.block_types";

/// A tensor to be written: `type` names a block type of GGUF or one of ours.
struct GgufOutput {
  std::string name;
  Shape shape;  ///< outermost first
  const quant::BlockType* type = nullptr;
  /// Writes the tensor's bytes into `out`, which has their size; called once, in the order of the file.
  std::function<void(std::span<std::byte> out)> fill;
};

/// Writes keys and tensors, at the alignment that the key general.alignment asks for; returns the bytes written. The
/// file appears under its name only when it is whole and on disk. With `split_bytes`, and more bytes of tensors than
/// that, there are several: "a.gguf" becomes a-00001-of-0000N.gguf and so on, the keys in the first, and none appears
/// before all are whole. Throws Error naming the file.
uint64_t write_gguf(const std::string& path, std::span<const std::pair<std::string, GgufValue>> values,
                    std::span<const GgufOutput> tensors, uint64_t split_bytes = 0);

}  // namespace nibble::models
