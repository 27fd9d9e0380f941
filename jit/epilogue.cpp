// SPDX-License-Identifier: Apache-2.0
#include "jit/epilogue.h"

#include <algorithm>
#include <cstring>

#include "tensor/check.h"

#include "jit/vector_math.h"

namespace nibble::jit {

Function parse_function(std::string_view name) {
  if (name.empty()) return Function::none;
  if (name == "silu") return Function::silu;
  if (name == "gelu") return Function::gelu;
  if (name == "gelu_tanh") return Function::gelu_tanh;
  if (name == "relu") return Function::relu;
  fail("activation \"", name, "\": expected silu, gelu, gelu_tanh or relu");
}

namespace {

NIBBLE_AVX2_BEGIN

__m256 load(const float* p, int64_t count) {
  return count >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, vec::first_lanes(count));
}

__m256 load_residual(const FinishTile& tile, int64_t at, int64_t count) {
  if (tile.residual_type == DType::f32) return load(static_cast<const float*>(tile.residual) + at, count);
  uint16_t buffer[8] = {};
  const uint16_t* from = static_cast<const uint16_t*>(tile.residual) + at;
  if (count < 8) from = static_cast<const uint16_t*>(std::memcpy(buffer, from, static_cast<size_t>(count) * 2));
  return tile.residual_type == DType::f16 ? vec::from_f16(from) : vec::from_bf16(from);
}

__m256 apply(Function function, __m256 x) {
  switch (function) {
    case Function::silu: return vec::silu(x);
    case Function::gelu: return vec::gelu(x);
    case Function::gelu_tanh: return vec::gelu_tanh(x);
    case Function::relu: return vec::relu(x);
    default: return x;
  }
}

void finish_eight(const FinishTile& tile, int64_t row, int64_t column) {
  const int64_t count = std::min<int64_t>(8, tile.columns - column);
  const int64_t total = row * tile.totals_stride + column;
  __m256 x = _mm256_loadu_ps(tile.totals + total);
  if (tile.bias) x = _mm256_add_ps(x, load(tile.bias + column, count));
  x = apply(tile.function, x);
  if (tile.gated) {
    __m256 y = _mm256_loadu_ps(tile.gated + total);
    if (tile.gated_bias) y = _mm256_add_ps(y, load(tile.gated_bias + column, count));
    x = _mm256_mul_ps(x, y);
  }
  if (tile.residual) x = _mm256_add_ps(x, load_residual(tile, row * tile.residual_stride + column, count));
  float* out = tile.out + row * tile.out_stride + column;
  if (count == 8) {
    _mm256_storeu_ps(out, x);
  } else {
    _mm256_maskstore_ps(out, vec::first_lanes(count), x);
  }
}

void finish_all(const FinishTile& tile) {
  for (int64_t row = 0; row < tile.rows; ++row) {
    for (int64_t column = 0; column < tile.columns; column += 8) finish_eight(tile, row, column);
  }
}

NIBBLE_AVX2_END

}  // namespace

void finish_tile(const FinishTile& tile) { finish_all(tile); }

}  // namespace nibble::jit
