// SPDX-License-Identifier: Apache-2.0
#include "jit/gemm_float.h"

#include <algorithm>

#include "jit/code_cache.h"
#include "tensor/check.h"

namespace nibble::jit {

namespace {

struct Limits {
  int rows, sums, columns;  ///< rows at most, vectors of sums, columns per vector
};
Limits limits(Isa isa) { return isa == Isa::avx512vnni ? Limits{12, 24, 16} : Limits{6, 12, 8}; }

bool fits(Isa isa, int rows, int panels) {
  const Limits l = limits(isa);
  return rows <= l.rows && rows * panels * (16 / l.columns) <= l.sums;
}

}  // namespace

std::string name(const GemmFloatKey& key) {
  const bool codes = key.b == DType::i8 || key.b == DType::i32;
  return message("gemm_", codes ? "i16" : "f32", "_", key.b == DType::i32 ? "i16" : nibble::name(key.b), "_f32_",
                 int{key.rows}, "x", 16 * key.panels, "x1_", nibble::name(key.isa));
}

const Code& gemm_float(const GemmFloatKey& key) {
  NIBBLE_CHECK(
      key.rows >= 1 && key.panels >= 1 && key.panels <= GemmFloat::max_panels && fits(key.isa, key.rows, key.panels),
      name(key), ": the sums don't fit the registers");
  return code_cache().get(key, [&key] { return emit_gemm_float(key); });
}

std::vector<GemmFloatKey> gemm_float_keys(Isa isa) {
  std::vector<GemmFloatKey> keys;
  if (isa != Isa::avx2 && isa != Isa::avx512vnni) return keys;
  for (const DType b : {DType::f16, DType::bf16, DType::f32, DType::i8, DType::i32}) {
    for (int rows = 1; rows <= limits(isa).rows; ++rows) {
      for (int panels : {1, 2, 4}) {
        if (fits(isa, rows, panels)) keys.push_back({isa, b, static_cast<uint8_t>(rows), static_cast<uint8_t>(panels)});
      }
    }
  }
  return keys;
}

GemmFloat::GemmFloat(Isa isa, DType b) : rows_(limits(isa).rows) {
  for (const GemmFloatKey& key : gemm_float_keys(isa)) {
    if (key.b == b) code_[key.rows][key.panels] = &gemm_float(key);
  }
}

int GemmFloat::panels_per_tile(int rows) const {
  int panels = max_panels;
  while (!code_[std::min(rows, rows_)][panels]) --panels;
  return panels;
}

void GemmFloat::run_tiles(GemmFloatArgs& args, int rows, int64_t tiles, int64_t panels) const {
  const void *a = args.a, *b = args.b;
  const float *row_scales = args.row_scales, *column_scales = args.column_scales;
  float* c = args.c;
  for (int64_t p = 0; p < panels;) {
    int step = max_panels;
    while (step > panels - p || !code_[rows][step]) step /= 2;
    args.a = a;
    args.b = static_cast<const std::byte*>(b) + p * args.b_panel;
    args.c = c + 16 * p;
    args.row_scales = row_scales;
    if (column_scales != nullptr) args.column_scales = column_scales + 16 * p;
    args.tiles = tiles;
    (*code_[rows][step])(args);
    p += step;
  }
  const int64_t done = tiles * rows;
  args.a = static_cast<const std::byte*>(a) + done * args.a_stride;
  args.b = b;
  args.c = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(c) + done * args.c_stride);
  if (row_scales != nullptr) args.row_scales = row_scales + done;
  args.column_scales = column_scales;
}

void GemmFloat::run(GemmFloatArgs args, int64_t rows, int64_t panels) const {
  if (rows == 0) return;
  // Tiles of equal height: 7 rows are faster as 3 + 4 than as 6 + 1. The lower come first: they read more panels at
  // once.
  const int64_t tiles = (rows + rows_ - 1) / rows_, height = rows / tiles, higher = rows % tiles;
  run_tiles(args, static_cast<int>(height), tiles - higher, panels);
  if (higher > 0) run_tiles(args, static_cast<int>(height + 1), higher, panels);
}

}  // namespace nibble::jit
