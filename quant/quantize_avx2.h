// SPDX-License-Identifier: Apache-2.0
// Whole panels quantised by AVX2. Private to quant/.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"
#include "tensor/buffer.h"

namespace nibble::quant {

struct Ends;
struct GroupLanes;

/// Quantises 16 rows of k elements of a float type as one panel: the bytes that quantize_rows' rule gives weight by
/// weight.
class FastQuantizer {
 public:
  /// `elements` is f32, f16 or bf16.
  FastQuantizer(const QuantLayout& layout, DType elements, int64_t n, int64_t k);

  /// Whether it can, on this CPU: layouts of codes without codebook and sub-groups, k a multiple of 32.
  static bool supports(const QuantLayout& layout, int64_t k);

  /// Rows stand one after the other. False, with the panel half written, when a weight is not finite or a scale is
  /// beyond its type.
  bool panel(const std::byte* rows, std::byte* panel);

 private:
  float* floats() { return reinterpret_cast<float*>(floats_.data()); }
  bool read_unit(const std::byte* rows, int64_t k, std::byte* panel, GroupLanes* scales);
  void write_scales(const GroupLanes& scales, int64_t k, std::byte* panel) const;

  QuantLayout layout_;
  PanelGeometry geometry_;
  int64_t k_, group_, unit_;  // a unit: whole groups and whole blocks of 32
  size_t element_bytes_;
  Buffer floats_;  // (16, unit)
  bool (*read_)(const std::byte*, size_t, int64_t, float*, int64_t, Ends&);
  void (*encode_)(const float*, int64_t, const GroupLanes&, const GroupLanes&, int, std::byte*);
  void (*write_)(const std::byte*, std::byte*);
};

}  // namespace nibble::quant
