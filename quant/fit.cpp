// SPDX-License-Identifier: Apache-2.0
#include "quant/fit.h"

#include <algorithm>
#include <cmath>

#include "quant/feedback.h"
#include "quant/fit_group.h"
#include "tensor/check.h"
#include "tensor/dtype.h"

namespace nibble::quant {

namespace {

struct RowFitter {
  const BlockType& type;
  int64_t k;
  const InputStatistics& inputs;
  bool search;
  GroupFitter group{type.format->layout};
  std::vector<float> importance = importance_of(inputs, k);
  std::vector<float> row = std::vector<float>(static_cast<size_t>(k));

  double fit(const float* in, int64_t index, std::byte* blocks) {
    if (!inputs.order.empty()) return fit_in_order(in, index, blocks);
    BlockCodes block{};
    double cost = 0;
    std::copy(in, in + k, row.begin());
    for (int64_t begin = 0; begin < k; begin += type.block_elements, blocks += type.block_bytes) {
      const float* x = row.data() + begin;
      fit_scales(type, group, x, importance.data() + begin, search, block);
      for (int j = 0; j < type.block_elements; ++j) {
        const GroupFit s = scale_of(block, j, index, begin);
        block.codes[j] = group.code(x[j], s.scale, s.minimum);
        const float error = x[j] - group.value(block.codes[j], s.scale, s.minimum);
        if (inputs.feedback.empty())
          cost += double{error} * double{error} * (inputs.squares.empty() ? 1 : double{inputs.squares[begin + j]});
        else
          cost += feed_back(inputs, begin + j, error, row);
      }
      type.write(block, blocks);
    }
    return cost;
  }

  GroupFit scale_of(const BlockCodes& block, int j, int64_t index, int64_t begin) const {
    const QuantLayout& layout = type.format->layout;
    const GroupFit s = group_scale(layout, block, j / layout.group);
    NIBBLE_CHECK(std::isfinite(s.scale) && std::isfinite(s.minimum), "quantising to ", type.name, ": weights (", index,
                 ", ", begin, " to ", begin + type.block_elements, ") need a scale beyond ", name(layout.scale));
    return s;
  }

  double fit_in_order(const float* in, int64_t index, std::byte* blocks) {
    std::vector<BlockCodes> all(static_cast<size_t>(k / type.block_elements));
    for (size_t b = 0; b < all.size(); ++b)
      fit_scales(type, group, in + b * static_cast<size_t>(type.block_elements),
                 importance.data() + b * static_cast<size_t>(type.block_elements), search, all[b]);
    const double cost = round_in_order(inputs, in, k, row, [&](int64_t at, float x) {
      BlockCodes& block = all[static_cast<size_t>(at / type.block_elements)];
      const auto j = static_cast<int>(at % type.block_elements);
      const GroupFit s = scale_of(block, j, index, at - j);
      block.codes[j] = group.code(x, s.scale, s.minimum);
      return x - group.value(block.codes[j], s.scale, s.minimum);
    });
    for (const BlockCodes& block : all) {
      type.write(block, blocks);
      blocks += type.block_bytes;
    }
    return cost;
  }
};

double convert(const BlockType& type, const float* in, int64_t count, int64_t k, const InputStatistics& inputs,
               std::byte* out) {
  double cost = 0;
  for (int64_t j = 0; j < count; ++j) {
    type.encode(in + j, out + static_cast<size_t>(j) * type.block_bytes);
    float back;
    dequantize_blocks(type, out + static_cast<size_t>(j) * type.block_bytes, 1, &back);
    NIBBLE_CHECK(std::isfinite(back), "converting to ", type.name, ": weight ", j, " is ", in[j]);
    const double error = double{in[j]} - double{back};
    cost += error * error * (inputs.squares.empty() ? 1 : double{inputs.squares[static_cast<size_t>(j % k)]});
  }
  return cost;
}

}  // namespace

bool can_fit(const BlockType& type) {
  if (type.block_elements == 1) return type.encode != nullptr;
  return type.write != nullptr && float_book(type.format->layout.codebook) == nullptr;
}

double fit_rows(const BlockType& type, const float* in, int64_t rows, int64_t k, const InputStatistics& inputs,
              std::byte* blocks, bool search) {
  NIBBLE_CHECK(can_fit(type), "fitting rows: type ", type.name, " cannot be made");
  NIBBLE_CHECK(k % type.block_elements == 0, "rows of ", k, " weights of type ", type.name, ": expected a multiple of ",
               type.block_elements);
  const auto size = static_cast<size_t>(k);
  check_inputs(inputs, k);
  if (type.write == nullptr) return convert(type, in, rows * k, k, inputs, blocks);
  RowFitter fitter{.type = type, .k = k, .inputs = inputs, .search = search};
  const size_t row_bytes = size / static_cast<size_t>(type.block_elements) * type.block_bytes;
  double cost = 0;
  for (int64_t r = 0; r < rows; ++r, in += k, blocks += row_bytes) {
    for (int64_t j = 0; j < k; ++j)
      NIBBLE_CHECK(std::isfinite(in[j]), "quantising to ", type.name, ": weight (", r, ", ", j, ") is ", in[j]);
    cost += fitter.fit(in, r, blocks);
  }
  return cost;
}

}  // namespace nibble::quant
