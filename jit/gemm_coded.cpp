// SPDX-License-Identifier: Apache-2.0
#include "jit/gemm_coded.h"

#include <algorithm>

#include "jit/code_cache.h"
#include "tensor/check.h"

namespace nibble::jit {

namespace {

/// The tiles of an instruction set: as many sums as its registers have room for beside a line's weights.
struct Tile {
  uint8_t rows, panels;
};
std::vector<Tile> tiles(Isa isa) {
  if (isa == Isa::avx512vnni)
    return {{1, 1}, {1, 2}, {1, 4}, {2, 1}, {2, 2}, {2, 4}, {3, 1}, {3, 2}, {3, 4}, {4, 1}, {4, 2}, {4, 4}};
  return {{1, 1}, {1, 2}, {2, 1}, {3, 1}};
}

}  // namespace

std::string name(const GemmCodedKey& key) {
  const std::string to = key.product == DType::f32 ? "" : message("_to_", nibble::name(key.product));
  const std::string_view book = float_book(key.book)->name;
  if (key.rows == 0) return message("expand_", book, to, "_f32_", nibble::name(key.isa));
  return message("gemm_f32_", book, to, "_f32_", int{key.rows}, "x", 16 * key.panels, "x1_", nibble::name(key.isa));
}

const Code& gemm_coded(const GemmCodedKey& key) {
  return code_cache().get(key, [&key] { return emit_gemm_coded(key); });
}

std::vector<GemmCodedKey> gemm_coded_keys(Isa isa) {
  std::vector<GemmCodedKey> keys;
  if (isa != Isa::avx2 && isa != Isa::avx512vnni) return keys;
  for (uint8_t book = books::nf4_float; book <= books::e5m2; ++book) {
    for (const DType product : {DType::f32, DType::f16, DType::bf16}) {
      keys.push_back({isa, book, product, 0, 1});
      for (const Tile& tile : tiles(isa)) keys.push_back({isa, book, product, tile.rows, tile.panels});
    }
  }
  return keys;
}

GemmCoded::GemmCoded(Isa isa, const QuantLayout& layout) : line_k_(layout.bits == 4 ? 8 : 4) {
  for (const GemmCodedKey& key : gemm_coded_keys(isa)) {
    if (key.book != layout.codebook || key.product != layout.product) continue;
    code_[key.rows][key.panels] = &gemm_coded(key);
    rows_ = std::max<int>(rows_, key.rows);
  }
}

int GemmCoded::panels_per_tile(int rows) const {
  int panels = max_panels;
  while (!code_[rows][panels]) --panels;
  return panels;
}

/// Whole groups in one call, what is left of the last one in another.
void GemmCoded::for_each_part(const Range& range, GemmCodedArgs args, const Code& code) const {
  const int64_t group = range.geometry.group, line = line_k_;
  const auto* codes = range.panel + range.k / line * 64;
  const auto* scales = range.panel + range.geometry.scales_offset +
                       static_cast<size_t>(range.k / group) * range.geometry.scale_group_bytes;
  const bool expands = args.a == nullptr;
  args.panel = static_cast<int64_t>(range.geometry.panel_bytes);
  const int64_t whole = range.depth / group, rest = range.depth % group;
  const auto part = [&](int64_t k, int64_t groups, int64_t lines) {
    args.codes = codes + k / line * 64;
    args.scales = scales + static_cast<size_t>(k / group) * range.geometry.scale_group_bytes;
    args.groups = groups;
    args.lines = lines;
    if (groups > 0 && lines > 0) code(args);
    args.accumulate = 1;
  };
  part(0, whole, group / line);
  if (rest == 0) return;
  if (expands) args.c += whole * group * panel_columns;
  else args.a += whole * group;
  args.accumulate = !expands && (range.k > 0 || whole > 0);
  part(whole * group, 1, rest / line);
}

void GemmCoded::run(const Range& range, const float* a, int64_t a_stride, int rows, float* c, int64_t c_stride) const {
  Range step = range;
  for (int64_t left = range.panels; left > 0; left -= step.panels) {
    step.panels = max_panels;
    while (step.panels > left || !code_[rows][step.panels]) step.panels /= 2;
    for_each_part(step,
                  {.a = a,
                   .a_stride = a_stride,
                   .codes = nullptr,
                   .scales = nullptr,
                   .panel = 0,
                   .c = c,
                   .c_stride = c_stride,
                   .groups = 0,
                   .lines = 0,
                   .accumulate = range.k > 0},
                  *code_[rows][step.panels]);
    step.panel += step.panels * static_cast<int64_t>(range.geometry.panel_bytes);
    c += panel_columns * step.panels;
  }
}

void GemmCoded::expand(const Range& range, float* out) const {
  for_each_part(range,
                {.a = nullptr,
                 .a_stride = 0,
                 .codes = nullptr,
                 .scales = nullptr,
                 .panel = 0,
                 .c = out,
                 .c_stride = 0,
                 .groups = 0,
                 .lines = 0,
                 .accumulate = 0},
                *code_[0][1]);
}

}  // namespace nibble::jit
