// SPDX-License-Identifier: Apache-2.0
#include "tests/support/panels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "tensor/check.h"
#include "tensor/panel.h"
#include "tests/support/random.h"

namespace nibble::test {

namespace {

// Books of sample_layouts.
int book_value(int book, int u) {
  constexpr int nf4[16] = {-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127};
  if (book == books::nf4) return nf4[u];
  if (book == books::odd) return (2 * (u % 8) + 1) * (u < 8 ? 1 : -1);
  if (book == books::t2) return u - 1;
  constexpr int iq2[4] = {8, 25, 43, 43};
  return iq2[u % 4] * (u < 4 ? 1 : -1);
}

size_t format_bytes(const QuantFormat& format, int64_t n, int64_t k) {
  return panel_geometry(format.layout, n, k).bytes();
}

void format_dequantize(const QuantFormat& format, const std::byte* data, int64_t n, int64_t k, int64_t row,
                       int64_t rows, float* out) {
  const PanelGeometry g = panel_geometry(format.layout, n, k);
  for (int64_t i = row; i < row + rows; i++) {
    const std::byte* panel = data + i / 16 * static_cast<int64_t>(g.panel_bytes);
    for (int64_t j = 0; j < k; j++) {
      const int c = static_cast<int>(i % 16);
      *out++ =
          format.layout.bits ? panel_weight(format.layout, g, panel, j, c) : panel_float(format.layout, panel, j, c);
    }
  }
}

/// Appends to the bytes of a panel in the order in which the picture lists them.
struct Writer {
  uint8_t* at;
  void byte(int value) { *at++ = static_cast<uint8_t>(value); }
  void scale(DType type, float value) {
    if (type == DType::f32) {
      std::memcpy(at, &value, 4);
      at += 4;
      return;
    }
    const uint16_t bits = type == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value);
    std::memcpy(at, &bits, 2);
    at += 2;
  }
};

float rounded(DType type, float value) {
  if (type == DType::f32) return value;
  return type == DType::f16 ? f16_to_f32(f32_to_f16(value)) : bf16_to_f32(f32_to_bf16(value));
}

/// u[k][c] of one block of 32 k, as lines.
void write_block(Writer& w, int bits, const int (*u)[16]) {
  if (bits == 8) {
    for (int l = 0; l < 8; l++)
      for (int c = 0; c < 16; c++)
        for (int j = 0; j < 4; j++) w.byte(u[4 * l + j][c]);
    return;
  }
  int low = 0;
  if (bits & 4) {
    for (int l = 0; l < 4; l++)
      for (int c = 0; c < 16; c++)
        for (int j = 0; j < 4; j++) w.byte((u[8 * l + j][c] & 15) | (u[8 * l + 4 + j][c] & 15) << 4);
    low = 4;
  }
  if (bits & 2) {
    for (int l = 0; l < 2; l++)
      for (int c = 0; c < 16; c++)
        for (int j = 0; j < 4; j++) {
          int value = 0;
          for (int s = 0; s < 4; s++) value |= (u[16 * l + 4 * s + j][c] >> low & 3) << 2 * s;
          w.byte(value);
        }
    low += 2;
  }
  if (bits & 1) {
    for (int c = 0; c < 16; c++)
      for (int j = 0; j < 4; j++) {
        int value = 0;
        for (int s = 0; s < 8; s++) value |= (u[4 * s + j][c] >> low & 1) << s;
        w.byte(value);
      }
  }
}

/// Everything of one panel: codes (k padded with random codes), then scales per (group, column).
struct Panel {
  std::vector<std::array<int, 16>> codes;
  std::vector<std::array<double, 16>> scale, minimum;  // per stored group, as the arithmetic uses them
};

Panel write_panel(uint8_t* at, const QuantLayout& l, const PanelGeometry& g, int64_t columns, Random& random) {
  Panel p;
  Writer w{at};
  for (int64_t b = 0; b < g.k_blocks; b++) {
    int u[32][16];
    for (auto& line : u) {
      std::array<int, 16> codes;
      for (int c = 0; c < 16; c++) codes[c] = line[c] = static_cast<int>(random.integer(0, (1 << l.bits) - 1));
      p.codes.push_back(codes);
    }
    write_block(w, l.bits, u);
  }
  const bool minimum = l.zero_point == ZeroPoint::minimum;
  p.scale.resize(g.groups);
  p.minimum.resize(g.groups);
  const int64_t per_record = std::max<int>(l.sub_groups, 1);
  for (int64_t first = 0; first < g.groups; first += per_record) {
    float d[16], m[16];
    for (int c = 0; c < 16; c++) d[c] = c < columns ? rounded(l.scale, random.uniform(-0.02f, 0.02f)) : 0.0f;
    for (int c = 0; c < 16; c++) m[c] = c < columns ? rounded(l.scale, random.uniform(-0.2f, 0.2f)) : 0.0f;
    for (float x : d) w.scale(l.scale, x);
    if (minimum)
      for (float x : m) w.scale(l.scale, x);
    for (int64_t s = first; s < first + per_record; s++) {
      for (int c = 0; c < 16; c++) {
        p.scale[s][c] = d[c];
        p.minimum[s][c] = minimum ? m[c] : 0;
      }
      for (int which = 0; which < (minimum ? 2 : 1) && l.sub_groups; which++) {
        for (int c = 0; c < 16; c++) {
          const int multiplier = static_cast<int>(random.integer(-128, 127));
          w.byte(multiplier);
          (which ? p.minimum : p.scale)[s][c] *= multiplier;
        }
      }
      for (int c = 0; c < 16 && l.zero_point == ZeroPoint::integer; c++) {
        const int z = static_cast<int>(random.integer(0, 255));
        w.byte(z);
        p.minimum[s][c] = -p.scale[s][c] * z;
      }
    }
  }
  return p;
}

void write_float_panel(uint8_t* at, const QuantLayout& l, int64_t k, int64_t columns, int64_t first, Random& random,
                       Doubles& values) {
  Writer w{at};
  for (int64_t j = 0; j < k; j++) {
    for (int64_t c = 0; c < 16; c++) {
      const float value = c < columns ? rounded(l.scale, random.uniform()) : 0.0f;
      w.scale(l.scale, value);
      if (c < columns) values[(first + c) * k + j] = value;
    }
  }
}

}  // namespace

RandomPanels random_panels(const QuantLayout& layout, int64_t n, int64_t k, uint64_t seed) {
  Random random(seed);
  auto format = std::make_unique<QuantFormat>();
  *format = {.name = "test", .layout = layout, .bytes = format_bytes, .dequantize = format_dequantize};
  RandomPanels result{std::move(format), TestTensor(TensorDesc{}), Doubles(n * k), Doubles(n * k)};
  result.tensor = TestTensor({{n, k}, DType::packed, result.format.get()});
  const PanelGeometry g = panel_geometry(layout, n, k);
  auto* data = reinterpret_cast<uint8_t*>(result.tensor.tensor().data);
  for (int64_t first = 0; first < n; first += 16) {
    uint8_t* at = data + first / 16 * static_cast<int64_t>(g.panel_bytes);
    const int64_t columns = std::min<int64_t>(16, n - first);
    if (layout.bits == 0) {
      write_float_panel(at, layout, k, columns, first, random, result.values);
      continue;
    }
    const Panel p = write_panel(at, layout, g, columns, random);
    for (int64_t c = 0; c < columns; c++) {
      for (int64_t j = 0; j < k; j++) {
        const int u = p.codes[j][c];
        const int offset = layout.codebook ? 0 : 1 << (layout.bits - 1);
        const bool symmetric = layout.zero_point == ZeroPoint::symmetric;
        const int number = layout.codebook ? book_value(layout.codebook, u) : symmetric ? u - offset : u;
        const double d = p.scale[j / g.group][c], m = p.minimum[j / g.group][c];
        result.values[(first + c) * k + j] = d * number + m;
        result.magnitudes[(first + c) * k + j] =
            std::fabs(d * number) + std::fabs(m) + (symmetric ? std::fabs(d * offset) : 0);
      }
    }
  }
  if (layout.bits == 0) {
    for (size_t i = 0; i < result.values.size(); i++) result.magnitudes[i] = std::fabs(result.values[i]);
  }
  return result;
}

std::vector<QuantLayout> sample_layouts() {
  using enum ZeroPoint;
  return {
      {.group = 32, .bits = 4, .zero_point = symmetric, .scale = DType::f16},
      {.group = 32, .bits = 4, .zero_point = minimum, .scale = DType::f16},
      {.group = 32, .bits = 5, .zero_point = symmetric, .scale = DType::f16},
      {.group = 32, .bits = 5, .zero_point = minimum, .scale = DType::f16},
      {.group = 32, .bits = 8, .zero_point = symmetric, .scale = DType::f16},
      {.group = 32, .bits = 4, .zero_point = minimum, .scale = DType::f16, .sub_groups = 8},
      {.group = 32, .bits = 5, .zero_point = minimum, .scale = DType::f16, .sub_groups = 8},
      {.group = 16, .bits = 6, .zero_point = symmetric, .scale = DType::f16, .sub_groups = 16},
      {.group = 16, .bits = 2, .zero_point = minimum, .scale = DType::f16, .sub_groups = 16},
      {.group = 16, .bits = 3, .zero_point = symmetric, .scale = DType::bf16, .sub_groups = 16},
      {.group = 128, .bits = 4, .zero_point = integer, .scale = DType::f16},
      {.group = 64, .bits = 7, .zero_point = integer, .scale = DType::f32},
      {.group = 64, .bits = 1, .zero_point = symmetric, .scale = DType::bf16},
      {.group = 64, .bits = 4, .zero_point = symmetric, .scale = DType::f32, .codebook = books::nf4},
      {.group = 16, .bits = 3, .zero_point = symmetric, .scale = DType::f32, .sub_groups = 16, .codebook = books::iq2},
      {.group = 32, .bits = 4, .zero_point = symmetric, .scale = DType::f16, .sub_groups = 8, .codebook = books::odd},
      {.group = 128, .bits = 2, .zero_point = symmetric, .scale = DType::f16, .codebook = books::t2},
      {.group = 0, .bits = 8, .zero_point = symmetric, .scale = DType::f32},
      {.group = 0, .bits = 8, .zero_point = minimum, .scale = DType::f32},
      {.bits = 0, .scale = DType::f32},
      {.bits = 0, .scale = DType::f16},
      {.bits = 0, .scale = DType::bf16},
  };
}

std::string to_string(const QuantLayout& l) {
  constexpr const char* zero_points[] = {"symmetric", "minimum", "integer"};
  return message(int{l.bits}, " bits, group ", l.group, ", ", zero_points[static_cast<int>(l.zero_point)], ", ",
                 name(l.scale), ", sub_groups ", int{l.sub_groups}, ", codebook ", int{l.codebook});
}

}  // namespace nibble::test
