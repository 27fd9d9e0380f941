// SPDX-License-Identifier: Apache-2.0
// HQQ as transformers saves it. w = scale * (code - zero), zero a float. The weights, row after row, are a matrix of
// codes with a scale for each of its rows (axis 1) or columns (axis 0):
//
//   axis 1   (n * k / group, group)     axis 0   (group, n * k / group)
//   W_q      u8: 8 / nbits rows in one, those that are a step apart, the first in the highest bits
//            i32 with nbits 3: ten rows, likewise, from bit 27 on
//   scale, zero   floats, one for each row or column       shape (2): n, k       nbits, axis   one number
#include "models/io/schemes/module.h"
#include "models/io/schemes/scale_grid.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

void check(const Metadata&) {}

std::string_view module(const StoredTensor& tensor) {
  const std::string_view name = tensor.name;
  return name.ends_with(".W_q") ? name.substr(0, name.size() - 4) : "";
}

int64_t number(const Module& m, std::string_view suffix, int64_t low, int64_t high) {
  const ModulePart part = m.need(suffix, {"i32", "i64", "u8"});
  NIBBLE_CHECK(part.tensor->shape.elements() == 1, part.where, ": expected one number, found shape ",
               to_string(part.tensor->shape));
  float value = 0;
  part.floats(0, 1, &value);
  NIBBLE_CHECK(value >= static_cast<float>(low) && value <= static_cast<float>(high), part.where, ": expected ", low,
               " to ", high, ", found ", value);
  return static_cast<int64_t>(value);
}

/// Codes of the matrix (rows, columns) that the weights were reshaped to.
struct Codes {
  const std::byte* data;
  int64_t columns;
  int64_t step;
  int bits;
  int64_t k;

  unsigned at(int64_t element) const {
    const int64_t row = element / columns, place = row % step * columns + element % columns, slot = row / step;
    if (bits == 3) return load_at<uint32_t>(data, place) >> (27 - 3 * slot) & 7;
    return static_cast<unsigned>(load_at<uint8_t>(data, place)) >> (8 - bits * (slot + 1)) & ((1u << bits) - 1);
  }
  void read(int64_t row, int64_t rows, uint8_t* out) const {
    for (int64_t e = row * k; e < (row + rows) * k; ++e) *out++ = static_cast<uint8_t>(at(e));
  }
};

CodedMatrix make(const Module& m) {
  CodedMatrix matrix;
  const ModulePart shape = m.need(".shape", {"i64", "i32"});
  shape.expect({2});
  float sizes[2];
  shape.floats(0, 2, sizes);
  NIBBLE_CHECK(sizes[0] >= 1 && sizes[1] >= 1 && sizes[0] < 0x1p24f && sizes[1] < 0x1p24f, shape.where,
               ": expected two sizes, found (", sizes[0], ", ", sizes[1], ")");
  matrix.n = static_cast<int64_t>(sizes[0]);
  matrix.k = static_cast<int64_t>(sizes[1]);
  const auto bits = static_cast<int>(number(m, ".nbits", 1, 8));
  NIBBLE_CHECK(bits == 2 || bits == 3 || bits == 4 || bits == 8, m.folder.path(), ": tensor ", printable(m.name),
               ".nbits: expected 2, 3, 4 or 8, found ", bits);
  const int64_t axis = number(m, ".axis", 0, 1), elements = matrix.n * matrix.k;
  const ModulePart codes = m.need(".W_q", {bits == 3 ? "i32" : "u8"}), scales = m.need(".scale", float_names),
                   zeros = m.need(".zero", float_names);
  codes.expect({-1, -1});
  const int64_t count = scales.tensor->shape.elements();
  NIBBLE_CHECK(count > 0 && elements % count == 0, scales.where, ": expected scales for ", elements,
               " weights, found shape ", to_string(scales.tensor->shape));
  zeros.expect(scales.tensor->shape);
  const int64_t group = elements / count, rows = axis == 1 ? count : group, slots = bits == 3 ? 10 : 8 / bits;
  const Codes reader{codes.data, axis == 1 ? group : count, (rows + slots - 1) / slots, bits, matrix.k};
  codes.expect({reader.step, reader.columns});
  matrix.type = message("hqq", bits);
  if (axis == 1 && matrix.k % group == 0) {
    // the product of two 16-bit floats is exact in f32
    matrix.bits = bits;
    matrix.zero_point = ZeroPoint::minimum;
    matrix.group = group;
    matrix.codes = [reader](int64_t row, int64_t n, uint8_t* out) { reader.read(row, n, out); };
    matrix.scales = [scales, zeros, per_row = matrix.k / group](int64_t row, int64_t n, float* out, float* offsets) {
      scales.floats(row * per_row, n * per_row, out);
      zeros.floats(row * per_row, n * per_row, offsets);
      for (int64_t i = 0; i < n * per_row; ++i) offsets[i] *= -out[i];
    };
    return matrix;
  }
  matrix.scale = DType::f32;
  matrix.floats = [reader, scales, zeros, axis, count, group](int64_t row, int64_t n, float* out) {
    for (int64_t e = row * reader.k; e < (row + n) * reader.k; ++e) {
      float scale = 0, zero = 0;
      const int64_t at = axis == 1 ? e / group : e % count;
      scales.floats(at, 1, &scale);
      zeros.floats(at, 1, &zero);
      *out++ = scale * (static_cast<float>(reader.at(e)) - zero);
    }
  };
  return matrix;
}

}  // namespace

extern const Scheme hqq_scheme = {"hqq", check, module, make};

}  // namespace nibble::models
