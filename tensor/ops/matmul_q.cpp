// SPDX-License-Identifier: Apache-2.0
// matmul_q: matmul of quantised activations (act_* of quant/activation.h) and packed weights. The sums follow the
// arithmetic of quant/format.h operation by operation in f32, so that every kernel can be compared bit for bit.
#include <algorithm>
#include <cmath>

#include "tensor/ops/matmul.h"
#include "tensor/panel.h"

namespace nibble::ops {

namespace {

constexpr int64_t row_block = 32;  // rows whose totals are kept while a column is decoded once

TensorDesc infer(std::span<const TensorDesc> in, const Attrs& attrs) {
  const TensorDesc out = infer_matmul(in, attrs);
  check_dtype(in[0], DType::packed, "x");
  NIBBLE_CHECK(is_act_format(*in[0].format), "x: expected quantised activations, found ", to_string(in[0]));
  for (int64_t w = 1; w <= attrs.i("weights", 1); ++w) {
    check_dtype(in[w], DType::packed, "weight");
    const QuantLayout& layout = in[w].format->layout;
    NIBBLE_CHECK(!is_act_format(*in[w].format) && !float_weights(layout), "weight: expected quantised weights, found ",
                 to_string(in[w]));
    const QuantFormat& needs = act_format(panel_act_needs(layout));
    NIBBLE_CHECK(in[0].format == &needs, "x ", to_string(in[0]), ": weight ", to_string(in[w]), " needs ", needs.name);
  }
  return out;
}

/// Activations of the call, row by row.
struct Rows {
  const std::byte* values;
  const float* scales;
  ActNeeds needs;
  ActRegions regions;
  int64_t k, scale_k;

  explicit Rows(const Tensor& x)
      : values(x.data),
        needs(act_needs_of(*x.desc.format)),
        regions(act_regions(needs, x.dim(0), x.dim(1))),
        k(x.dim(1)),
        scale_k(act_group(needs.group)) {
    scales = reinterpret_cast<const float*>(x.data + regions.scales_offset);
  }
  int value(int64_t row, int64_t j) const {
    const int64_t at = row * regions.k_padded + j;
    return needs.bits == 16 ? reinterpret_cast<const int16_t*>(values)[at]
                            : reinterpret_cast<const int8_t*>(values)[at];
  }
};

/// totals[r] = the product of row `row + r` with one weight column.
void column_dots(const Rows& x, const Tensor& weight, const PanelGeometry& geometry, int64_t column, int64_t row,
                 int64_t rows, float* totals) {
  const QuantLayout& layout = weight.desc.format->layout;
  const std::byte* panel = weight.data + column / panel_columns * static_cast<int64_t>(geometry.panel_bytes);
  const int c = static_cast<int>(column % panel_columns);
  const bool symmetric = layout.zero_point == ZeroPoint::symmetric;
  std::fill(totals, totals + rows, 0.0f);
  for (int64_t a = 0; a < x.regions.scales_per_row; ++a) {
    const int64_t begin = a * x.scale_k, end = std::min(begin + x.scale_k, x.k);
    int numbers[max_group];
    PanelScale scales[2];
    for (int64_t j = begin; j < end; ++j) {
      const unsigned code = panel_code(layout, panel, j, c);
      numbers[j - begin] = symmetric ? panel_number(layout, code) : static_cast<int>(code);
      if (j % geometry.group == 0) scales[(j - begin) / geometry.group] = panel_scale(layout, geometry, panel, j, c);
    }
    for (int64_t r = 0; r < rows; ++r) {
      float t = 0;
      for (int64_t g = 0; g * geometry.group < end - begin; ++g) {
        int32_t dot = 0, sum = 0;
        for (int64_t j = g * geometry.group; j < std::min((g + 1) * geometry.group, end - begin); ++j) {
          const int q = x.value(row + r, begin + j);
          dot += numbers[j] * q;
          sum += q;
        }
        t = std::fma(static_cast<float>(dot), scales[g].scale, t);
        if (!symmetric) t = std::fma(static_cast<float>(sum), scales[g].minimum, t);
      }
      totals[r] = std::fma(t, x.scales[(row + r) * x.regions.scales_per_row + a], totals[r]);
    }
  }
}

void reference(const KernelArgs& args) {
  const MatmulCall call = matmul_call(args.in.size(), *args.attrs);
  const bool gate = call.gate != Activation::none;
  const Rows x(args.in[0]);
  const int64_t m = args.out.dim(0);
  int64_t begin = 0;
  for (int w = 1; w <= (gate ? 1 : call.weights); ++w) {
    const Tensor &weight = args.in[w], &second = args.in[gate ? 2 : w];
    const int64_t n = weight.dim(0);
    const PanelGeometry geometry = panel_geometry(weight.desc.format->layout, n, x.k);
    const PanelGeometry second_geometry = panel_geometry(second.desc.format->layout, n, x.k);
    for (int64_t column = 0; column < n; ++column) {
      for (int64_t i = 0; i < m; i += row_block) {
        const int64_t rows = std::min(row_block, m - i);
        float sums[row_block], gated[row_block] = {};
        column_dots(x, weight, geometry, column, i, rows, sums);
        if (gate) column_dots(x, second, second_geometry, column, i, rows, gated);
        for (int64_t r = 0; r < rows; ++r) finish_matmul(call, args, i + r, begin + column, sums[r], gated[r]);
      }
    }
    begin += n;
  }
}

}  // namespace

float dot_row_q(const Tensor& x, int64_t row, const Tensor& weight, int64_t column) {
  float total = 0;
  const PanelGeometry geometry = panel_geometry(weight.desc.format->layout, weight.dim(0), weight.dim(1));
  column_dots(Rows(x), weight, geometry, column, row, 1, &total);
  return total;
}

extern const OpDef matmul_q_op = {"matmul_q", infer, reference};

}  // namespace nibble::ops
