// SPDX-License-Identifier: Apache-2.0
// Emits "packed panel -> byte lanes and f32 scales" for every QuantLayout: the only emitter that knows the bit planes.
#pragma once

#include <array>
#include <map>
#include <span>

#include "jit/generator.h"
#include "tensor/packed.h"

namespace nibble::jit {

class Unpack {
 public:
  /// With `signed_codes` lanes hold the values of a codebook, without its zero point, else u - 2^(bits-1); of symmetric
  /// layouts only.
  Unpack(Generator& g, const QuantLayout& w, bool signed_codes) : g_(g), w_(w), signed_(signed_codes) {}

  /// Keeps masks and tables in the registers `spare` as far as they go; the rest is read from memory at every use.
  void load_constants(std::span<const int> spare);

  /// dst = bytes (column, k % 4) of step `step` (0..7, four k each) of the block of 32 k at `block`; the address is of
  /// the block's first line plus the byte offset of the vector's first column. `tmp` is clobbered.
  void codes(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, const Xbyak::RegExp& block, int step);

  /// The same as 16-bit lanes: even = k 0 and 2 of the step, odd = k 1 and 3. Only with unsigned codes.
  void words(const Xbyak::Xmm& even, const Xbyak::Xmm& odd, const Xbyak::Xmm& tmp, const Xbyak::RegExp& block,
             int step);

  /// dst = d of the columns from `column` on, for group `index` counted within the scale record at `record` (0 without
  /// sub_groups).
  void scale(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, const Xbyak::RegExp& record, int index, int column);
  /// dst = m of the same group; `d` holds what scale() gave.
  void minimum(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, const Xbyak::Xmm& d, const Xbyak::RegExp& record,
               int index, int column);

 private:
  using Bytes = std::array<uint8_t, 16>;
  void plane(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, const Xbyak::RegExp& line, int width, int place, int shift);
  void scale_row(const Xbyak::Xmm& dst, const Xbyak::RegExp& at);
  void multiply_sub(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, const Xbyak::RegExp& at);
  bool has_table() const;
  Bytes table() const;
  /// The register that holds `value`, or the constant in memory.
  const Xbyak::Operand& held(const Bytes& value);

  Generator& g_;
  const QuantLayout w_;
  const bool signed_;
  std::map<Bytes, Xbyak::Xmm> registers_;
  Xbyak::Address memory_{0};
};

}  // namespace nibble::jit
