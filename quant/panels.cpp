// SPDX-License-Identifier: Apache-2.0
#include "quant/panels.h"

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::quant {

namespace {

// Eight rows of 16 dwords: dword c of row i holds codes 4i..4i+3 of column c, one byte each.
struct alignas(64) Quads {
  uint32_t lane[8][panel_columns];
};

// SSE2 is part of x86-64, so nothing here needs dispatch; packing is bound by memory long before wider vectors help.

// Four columns, four k of dwords; `put(i, line)` gets k = i of the four.
template <class Put>
void transpose_dwords(__m128i a, __m128i b, __m128i c, __m128i d, Put put) {
  const __m128i ab0 = _mm_unpacklo_epi32(a, b), ab1 = _mm_unpackhi_epi32(a, b);
  const __m128i cd0 = _mm_unpacklo_epi32(c, d), cd1 = _mm_unpackhi_epi32(c, d);
  put(0, _mm_unpacklo_epi64(ab0, cd0));
  put(1, _mm_unpackhi_epi64(ab0, cd0));
  put(2, _mm_unpacklo_epi64(ab1, cd1));
  put(3, _mm_unpackhi_epi64(ab1, cd1));
}

void transpose(const uint8_t* codes, size_t stride, Quads& quads) {
  const auto row = [&](int column, int half) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + static_cast<size_t>(column) * stride + 16 * half));
  };
  for (int c = 0; c < panel_columns; c += 4) {
    for (int half = 0; half < 2; ++half) {
      transpose_dwords(row(c, half), row(c + 1, half), row(c + 2, half), row(c + 3, half), [&](int quad, __m128i v) {
        _mm_store_si128(reinterpret_cast<__m128i*>(&quads.lane[4 * half + quad][c]), v);
      });
    }
  }
}

// Bits shift .. shift + width - 1 of every code, 8 / width quads to a line.
template <int width>
std::byte* write_plane(const Quads& quads, int shift, std::byte* out) {
  constexpr int per_line = 8 / width;
  constexpr uint32_t mask = 0x01010101u * ((1u << width) - 1);
  for (int line = 0; line < width; ++line, out += 64) {
    alignas(64) uint32_t sum[panel_columns] = {};
    for (int s = 0; s < per_line; ++s) {
      for (int c = 0; c < panel_columns; ++c) {
        sum[c] |= (quads.lane[per_line * line + s][c] >> shift & mask) << (width * s);
      }
    }
    std::memcpy(out, sum, 64);
  }
  return out;
}

__attribute__((target("avx,f16c"))) void write_f16_fast(const float* values, std::byte* out) {
  for (int i = 0; i < panel_columns; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i), half);
  }
}

template <class T>
void interleave_tail(const std::byte* const* columns, int64_t begin, int64_t k, std::byte* out) {
  for (int64_t j = begin; j < k; ++j) {
    T line[panel_columns];
    for (int c = 0; c < panel_columns; ++c) {
      line[c] = 0;
      if (columns[c] != nullptr) std::memcpy(&line[c], columns[c] + static_cast<size_t>(j) * sizeof(T), sizeof(T));
    }
    std::memcpy(out + static_cast<size_t>(j) * sizeof line, line, sizeof line);
  }
}

__m128i load_or_zero(const std::byte* column, int64_t offset) {
  return column == nullptr ? _mm_setzero_si128() : _mm_loadu_si128(reinterpret_cast<const __m128i*>(column + offset));
}

void interleave_floats(const std::byte* const* columns, int64_t k, std::byte* out) {
  const int64_t whole = k / 4 * 4;
  for (int64_t j = 0; j < whole; j += 4) {
    for (int c = 0; c < panel_columns; c += 4) {
      transpose_dwords(load_or_zero(columns[c], 4 * j), load_or_zero(columns[c + 1], 4 * j),
                       load_or_zero(columns[c + 2], 4 * j), load_or_zero(columns[c + 3], 4 * j), [&](int i, __m128i v) {
                         _mm_storeu_si128(reinterpret_cast<__m128i*>(out + (j + i) * 64 + 4 * c), v);
                       });
    }
  }
  interleave_tail<uint32_t>(columns, whole, k, out);
}

void interleave_halves(const std::byte* const* columns, int64_t k, std::byte* out) {
  const int64_t whole = k / 8 * 8;
  for (int64_t j = 0; j < whole; j += 8) {
    for (int c = 0; c < panel_columns; c += 8) {
      __m128i low[4], high[4];  // pair p: columns c + 2p and c + 2p + 1 side by side, k = j..j+3 and j+4..j+7
      for (int p = 0; p < 4; ++p) {
        const __m128i a = load_or_zero(columns[c + 2 * p], 2 * j), b = load_or_zero(columns[c + 2 * p + 1], 2 * j);
        low[p] = _mm_unpacklo_epi16(a, b);
        high[p] = _mm_unpackhi_epi16(a, b);
      }
      const auto put = [&](int64_t at, __m128i v) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + at * 32 + 2 * c), v);
      };
      transpose_dwords(low[0], low[1], low[2], low[3], [&](int i, __m128i v) { put(j + i, v); });
      transpose_dwords(high[0], high[1], high[2], high[3], [&](int i, __m128i v) { put(j + 4 + i, v); });
    }
  }
  interleave_tail<uint16_t>(columns, whole, k, out);
}

}  // namespace

void write_codes(int bits, const uint8_t* codes, size_t stride, std::byte* out) {
  Quads quads;
  transpose(codes, stride, quads);
  if (bits == 8) {
    std::memcpy(out, quads.lane, sizeof quads.lane);
    return;
  }
  int shift = 0;
  if (bits & 4) {
    out = write_plane<4>(quads, shift, out);
    shift += 4;
  }
  if (bits & 2) {
    out = write_plane<2>(quads, shift, out);
    shift += 2;
  }
  if (bits & 1) write_plane<1>(quads, shift, out);
}

void write_scales(DType type, const float* values, std::byte* out) {
  if (type == DType::f32) {
    std::memcpy(out, values, panel_columns * sizeof(float));
    return;
  }
  static const bool has_f16c = supported(Isa::avx2);
  if (type == DType::f16 && has_f16c) return write_f16_fast(values, out);
  uint16_t line[panel_columns];
  for (int c = 0; c < panel_columns; ++c) {
    line[c] = type == DType::f16 ? f32_to_f16(values[c]) : f32_to_bf16(values[c]);
  }
  std::memcpy(out, line, sizeof line);
}

void write_panel(const QuantLayout& layout, const PanelGeometry& geometry, const uint8_t* codes, size_t stride,
                 const GroupScale* scales, std::byte* panel) {
  for (int64_t b = 0; b < geometry.k_blocks; ++b) {
    write_codes(layout.bits, codes + b * block_k, stride, panel + static_cast<size_t>(b) * geometry.code_block_bytes);
  }
  const size_t line = panel_columns * element_bytes(layout.scale);
  const float unit = scale_unit(layout);
  std::byte* out = panel + geometry.scales_offset;
  for (int64_t g = 0; g < geometry.groups; ++g, out += geometry.scale_group_bytes) {
    const GroupScale* s = scales + g * panel_columns;
    float values[panel_columns], minima[panel_columns];
    for (int c = 0; c < panel_columns; ++c) {
      values[c] = s[c].scale * unit;
      minima[c] = s[c].minimum;
    }
    write_scales(layout.scale, values, out);
    if (layout.zero_point == ZeroPoint::minimum) write_scales(layout.scale, minima, out + line);
    for (int c = 0; layout.zero_point == ZeroPoint::integer && c < panel_columns; ++c) {
      out[line + static_cast<size_t>(c)] = static_cast<std::byte>(s[c].zero);
    }
  }
  std::fill(out, panel + geometry.panel_bytes, std::byte{0});
}

void write_floats(DType type, const std::byte* rows, size_t row_bytes, int columns, int64_t k, std::byte* out) {
  const std::byte* column[panel_columns] = {};
  for (int c = 0; c < columns; ++c) column[c] = rows + static_cast<size_t>(c) * row_bytes;
  if (type == DType::f32) {
    interleave_floats(column, k, out);
  } else {
    interleave_halves(column, k, out);
  }
}

void check_rows(std::string_view what, int64_t n, int64_t k, int64_t row, int64_t rows) {
  NIBBLE_CHECK(row >= 0 && rows >= 0 && row <= n && rows <= n - row && row % panel_columns == 0 &&
                   (rows % panel_columns == 0 || row + rows == n),
               what, " (", n, ", ", k, "): rows ", row, " to ", row + rows,
               ": expected whole panels of 16 rows inside the tensor");
}

}  // namespace nibble::quant
