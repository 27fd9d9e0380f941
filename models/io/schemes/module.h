// SPDX-License-Identifier: Apache-2.0
// What the readers of quantised checkpoints share: one linear module's tensors by their last name, checked.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/io/coded_matrix.h"
#include "models/io/hf_folder.h"
#include "models/io/metadata.h"
#include "models/io/stored_tensor.h"

namespace nibble::models {

/// A tensor of the module and its bytes, which live as long as the folder.
struct ModulePart {
  std::shared_ptr<const StoredTensor> tensor;  ///< a copy: the folder's list is about to be joined
  const std::byte* data = nullptr;
  std::string where;  ///< "model.safetensors: tensor a.qweight"

  explicit operator bool() const { return tensor != nullptr; }
  int64_t dim(int i) const { return tensor->shape[i]; }
  /// Throws Error unless it has this shape; with -1 for any size but 0.
  void expect(const Shape& shape) const;
  /// `count` elements from `first` on.
  void floats(int64_t first, int64_t count, float* out) const;
};

template <class T>
T load_at(const std::byte* data, int64_t index) {
  T value;
  std::memcpy(&value, data + static_cast<size_t>(index) * sizeof value, sizeof value);
  return value;
}

/// Column `column` of a little-endian stream of codes of `bits` bits, in a row of 32-bit words.
inline unsigned code_at(const std::byte* words, int bits, int64_t column) {
  const int64_t bit = column * bits, word = bit / 32;
  const int shift = static_cast<int>(bit % 32);
  uint64_t two = load_at<uint32_t>(words, word);
  if (shift + bits > 32) two |= uint64_t{load_at<uint32_t>(words, word + 1)} << 32;
  return static_cast<unsigned>(two >> shift) & ((1u << bits) - 1);
}

/// Eight codes of four bits as eight bytes.
inline uint64_t spread_nibbles(uint32_t word) {
  uint64_t x = word;
  x = (x | x << 16) & 0x0000ffff0000ffffu;
  x = (x | x << 8) & 0x00ff00ff00ff00ffu;
  return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
}

/// The size of a group that the configuration has under one of `keys`: 128 when there is none, -1 when all columns are
/// one group. Throws Error for 0.
int64_t group_size(const Metadata& config, std::string_view keys);

using TypeNames = std::vector<std::string_view>;

struct Module {
  const HfFolder& folder;
  const Metadata& config;  ///< config.json; what matters is under "quantization_config."
  std::string name;        ///< "model.layers.0.mlp.up_proj"

  /// The tensor name + suffix (".qweight"), of one of these types; a part without tensor when there is none.
  ModulePart find(std::string_view suffix, const TypeNames& types) const;
  ModulePart need(std::string_view suffix, const TypeNames& types) const;
};

/// f16, bf16 or f32: the type of a part of floats.
DType float_type(const ModulePart& part);
inline const TypeNames float_names = {"f16", "bf16", "f32"};

/// The reader of one quant_method.
struct Scheme {
  std::string_view method;  ///< "gptq"
  /// Throws Error naming the key of the configuration that is not supported.
  void (*check)(const Metadata& config);
  /// The module that `tensor` is the codes of; "" when it is something else.
  std::string_view (*module)(const StoredTensor& tensor);
  CodedMatrix (*make)(const Module& module);
};

extern const Scheme gptq_scheme, awq_scheme, compressed_tensors_scheme, fp8_scheme, fbgemm_fp8_scheme,
    bitsandbytes_scheme, auto_round_scheme, intel_auto_round_scheme, hqq_scheme;

}  // namespace nibble::models
