// SPDX-License-Identifier: Apache-2.0
#include "jit/float_panels.h"

#include <algorithm>

namespace nibble::jit {

namespace {

constexpr int64_t expanded_depth = 256;  // 16 KB of floats per panel stay in L1 while the tiles of rows read them

}  // namespace

FloatPanels::FloatPanels(Isa isa, const QuantLayout& layout, int64_t n, int64_t k)
    : isa_(isa),
      layout_(layout),
      geometry_(panel_geometry(layout, n, k)),
      gemm_(isa, layout.bits == 0 ? layout.scale : DType::f32),
      gemm_coded_(layout.bits == 0 ? GemmCoded() : GemmCoded(isa, layout)) {}

size_t FloatPanels::scratch_bytes() const {
  return coded() ? static_cast<size_t>(gemm_.panels_per_tile(gemm_.rows_per_tile()) * expanded_depth * panel_columns) *
                       sizeof(float)
                 : 0;
}

void FloatPanels::multiply(const std::byte* weight, const Block& block, std::byte* scratch) const {
  const auto panel_bytes = static_cast<int64_t>(geometry_.panel_bytes);
  if (coded() && block.rows > gemm_coded_.rows()) return expanded(weight, block, reinterpret_cast<float*>(scratch));
  const std::byte* b = weight + block.panel * panel_bytes;
  if (coded()) {
    return gemm_coded_.run(
        {.panel = b, .geometry = geometry_, .panels = block.panels, .k = block.k, .depth = block.depth}, block.a,
        block.a_stride, static_cast<int>(block.rows), block.c, block.c_stride);
  }
  const auto k_bytes = static_cast<int64_t>(panel_columns * element_bytes(layout_.scale));
  const int64_t step = gemm_.panels_per_tile(static_cast<int>(std::min<int64_t>(block.rows, gemm_.rows_per_tile())));
  for (int64_t p = 0; p < block.panels; p += step) {
    gemm_.run({.a = block.a,
               .a_stride = block.a_stride,
               .b = b + block.k * k_bytes + p * panel_bytes,
               .b_stride = k_bytes,
               .b_panel = panel_bytes,
               .b_ahead = 0,
               .c = block.c + p * panel_columns,
               .c_stride = block.c_stride,
               .k = block.depth,
               .accumulate = block.k > 0},
              block.rows, std::min(step, block.panels - p));
  }
}

void FloatPanels::expanded(const std::byte* weight, const Block& block, float* scratch) const {
  const int64_t step = gemm_.panels_per_tile(gemm_.rows_per_tile());
  for (int64_t p = 0; p < block.panels; p += step) {
    const int64_t panels = std::min(step, block.panels - p);
    for (int64_t k = 0; k < block.depth; k += expanded_depth) {
      const int64_t depth = std::min(expanded_depth, block.depth - k);
      for (int64_t i = 0; i < panels; ++i) {
        const std::byte* panel = weight + (block.panel + p + i) * static_cast<int64_t>(geometry_.panel_bytes);
        gemm_coded_.expand({.panel = panel, .geometry = geometry_, .panels = 1, .k = block.k + k, .depth = depth},
                           scratch + i * depth * panel_columns);
      }
      gemm_.run({.a = block.a + k,
                 .a_stride = block.a_stride,
                 .b = scratch,
                 .b_stride = panel_columns * sizeof(float),
                 .b_panel = depth * panel_columns * static_cast<int64_t>(sizeof(float)),
                 .b_ahead = 0,
                 .c = block.c + p * panel_columns,
                 .c_stride = block.c_stride,
                 .k = depth,
                 .accumulate = block.k + k > 0},
                block.rows, panels);
    }
  }
}

std::string FloatPanels::detail(int64_t rows) const {
  const int tile = static_cast<int>(std::clamp<int64_t>(rows, 1, gemm_.rows_per_tile()));
  if (coded() && rows <= gemm_coded_.rows()) {
    return name(GemmCodedKey{isa_, layout_.codebook, layout_.product, static_cast<uint8_t>(tile),
                             static_cast<uint8_t>(gemm_coded_.panels_per_tile(tile))});
  }
  const DType type = coded() ? DType::f32 : layout_.scale;
  const std::string kernel =
      name(GemmFloatKey{isa_, type, static_cast<uint8_t>(tile), static_cast<uint8_t>(gemm_.panels_per_tile(tile))});
  return coded() ? name(GemmCodedKey{isa_, layout_.codebook, layout_.product, 0, 1}) + " " + kernel : kernel;
}

}  // namespace nibble::jit
