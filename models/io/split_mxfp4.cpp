// SPDX-License-Identifier: Apache-2.0
#include "models/io/split_mxfp4.h"

#include <algorithm>
#include <map>

#include "models/io/metadata.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr std::string_view blocks_ending = "_blocks", scales_ending = "_scales";
constexpr int64_t half = 16;  // bytes of a block's weights

const quant::BlockType* mxfp4() {
  for (const quant::BlockType* type : quant::all_block_types())
    if (type->name == "mxfp4") return type;
  fail("there is no type mxfp4");
}

bool bytes_ending(const StoredTensor& tensor, std::string_view ending) {
  return tensor.element == find_element_type("u8") && tensor.name.ends_with(ending);
}

}  // namespace

void join_split_mxfp4(std::vector<StoredTensor>& tensors, const std::string& where) {
  std::map<std::string, StoredTensor> scales;
  for (const StoredTensor& tensor : tensors)
    if (bytes_ending(tensor, scales_ending)) scales.emplace(tensor.name, tensor);
  for (StoredTensor& tensor : tensors) {
    if (!bytes_ending(tensor, blocks_ending)) continue;
    const Shape shape = tensor.shape;
    const std::string at = where + ": tensor " + printable(tensor.name);
    NIBBLE_CHECK(shape.rank() == 4 && shape[3] == half, at, ": expected (experts, n, k / 32, 16), found ",
                 to_string(shape));
    const std::string name =
        tensor.name.substr(0, tensor.name.size() - blocks_ending.size()) + std::string(scales_ending);
    const auto found = scales.find(name);
    NIBBLE_CHECK(found != scales.end(), at, ": its scales are missing: no tensor ", printable(name), " of type u8");
    NIBBLE_CHECK(found->second.shape == Shape({shape[0], shape[1], shape[2]}), where, ": tensor ", printable(name),
                 ": expected ", to_string(Shape{shape[0], shape[1], shape[2]}), ", found ",
                 to_string(found->second.shape));
    tensor.shape = {shape[0], shape[1], shape[2] * 2 * half};
    tensor.type = mxfp4();
    tensor.element = nullptr;
    tensor.scales = std::make_shared<const StoredTensor>(found->second);
  }
  for (const StoredTensor& tensor : std::vector<StoredTensor>(tensors))
    if (tensor.scales != nullptr)
      std::erase_if(tensors, [&](const StoredTensor& other) { return other.name == tensor.scales->name; });
}

void join_mxfp4_blocks(const std::byte* blocks, const std::byte* scales, int64_t count, std::byte* out) {
  for (int64_t i = 0; i < count; ++i, blocks += half) {
    *out++ = scales[i];
    // weight j and weight j + 16 share a byte there, weights 2j and 2j + 1 here
    const auto weight = [&](int64_t j) { return j % 2 == 0 ? blocks[j / 2] & std::byte{15} : blocks[j / 2] >> 4; };
    for (int64_t j = 0; j < half; ++j) *out++ = weight(j) | weight(j + half) << 4;
  }
}

}  // namespace nibble::models
