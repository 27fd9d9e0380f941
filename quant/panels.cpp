// SPDX-License-Identifier: Apache-2.0
#include "quant/panels.h"

#include <immintrin.h>

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

// SSE2 is part of x86-64, so this needs no dispatch; packing is bound by memory long before wider vectors help.
void transpose(const uint8_t* codes, size_t stride, Quads& quads) {
  const auto row = [&](int column, int half) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + static_cast<size_t>(column) * stride + 16 * half));
  };
  for (int column = 0; column < panel_columns; column += 4) {
    for (int half = 0; half < 2; ++half) {
      const __m128i a = row(column, half), b = row(column + 1, half), c = row(column + 2, half),
                    d = row(column + 3, half);
      const __m128i ab0 = _mm_unpacklo_epi32(a, b), ab1 = _mm_unpackhi_epi32(a, b);
      const __m128i cd0 = _mm_unpacklo_epi32(c, d), cd1 = _mm_unpackhi_epi32(c, d);
      const auto put = [&](int quad, __m128i value) {
        _mm_store_si128(reinterpret_cast<__m128i*>(&quads.lane[4 * half + quad][column]), value);
      };
      put(0, _mm_unpacklo_epi64(ab0, cd0));
      put(1, _mm_unpackhi_epi64(ab0, cd0));
      put(2, _mm_unpacklo_epi64(ab1, cd1));
      put(3, _mm_unpackhi_epi64(ab1, cd1));
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
void interleave(const std::byte* rows, size_t row_bytes, int columns, int64_t k, std::byte* out) {
  for (int64_t j = 0; j < k; ++j) {
    T line[panel_columns] = {};
    for (int c = 0; c < columns; ++c) {
      std::memcpy(&line[c], rows + static_cast<size_t>(c) * row_bytes + static_cast<size_t>(j) * sizeof(T), sizeof(T));
    }
    std::memcpy(out + static_cast<size_t>(j) * sizeof line, line, sizeof line);
  }
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

void write_floats(DType type, const std::byte* rows, size_t row_bytes, int columns, int64_t k, std::byte* out) {
  if (type == DType::f32) return interleave<uint32_t>(rows, row_bytes, columns, k, out);
  interleave<uint16_t>(rows, row_bytes, columns, k, out);
}

void check_rows(std::string_view what, int64_t n, int64_t k, int64_t row, int64_t rows) {
  NIBBLE_CHECK(row >= 0 && rows >= 0 && row <= n && rows <= n - row && row % panel_columns == 0 &&
                   (rows % panel_columns == 0 || row + rows == n),
               what, " (", n, ", ", k, "): rows ", row, " to ", row + rows,
               ": expected whole panels of 16 rows inside the tensor");
}

}  // namespace nibble::quant
