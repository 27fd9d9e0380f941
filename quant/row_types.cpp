// SPDX-License-Identifier: Apache-2.0
#include "quant/row_types.h"

#include <algorithm>
#include <string>
#include <vector>

namespace nibble::quant {

namespace {

struct RowType {
  std::string name;
  BlockType type;
  std::vector<const BlockType*> blocks;  ///< from large to small
};

/// One for the types of our own that differ in the group alone.
std::vector<RowType> make_types() {
  constexpr std::string_view widest = "_g128";
  std::vector<RowType> out;
  for (const BlockType* type : native_block_types()) {
    if (type->block_elements != max_group) continue;
    // some types are named shorter than their format; others share the format of another
    const bool shares = type->round_scale != nullptr || float_weights(type->format->layout);
    const std::string name(shares ? type->name : type->format->name);
    const auto with = [&](std::string_view group) {
      return std::string(name).replace(name.find(widest), widest.size(), group);
    };
    RowType row{with("_row"), *type, {}};
    for (const std::string_view group : {"_g128", "_g64", "_g32", "_g16"})
      if (const BlockType* blocks = find_native_type(with(group))) row.blocks.push_back(blocks);
    out.push_back(std::move(row));
  }
  for (RowType& row : out) row.type.name = row.name;
  return out;
}

const std::vector<RowType>& row_types() {
  static const std::vector<RowType> types = make_types();
  return types;
}

}  // namespace

const BlockType* find_row_type(std::string_view name) {
  for (const RowType& row : row_types())
    if (row.name == name) return &row.type;
  return nullptr;
}

bool is_row_type(const BlockType& type) {
  return std::any_of(row_types().begin(), row_types().end(), [&](const RowType& row) { return &row.type == &type; });
}

const BlockType* row_blocks(const BlockType& row_type, int64_t k) {
  for (const RowType& row : row_types()) {
    if (&row.type != &row_type) continue;
    for (const BlockType* blocks : row.blocks)
      if (k % blocks->block_elements == 0) return blocks;
  }
  return nullptr;
}

}  // namespace nibble::quant
