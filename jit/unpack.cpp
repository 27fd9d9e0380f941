// SPDX-License-Identifier: Apache-2.0
#include "jit/unpack.h"

#include <vector>

#include "quant/format.h"
#include "tensor/panel.h"

namespace nibble::jit {

namespace {

constexpr int plane_widths[] = {4, 2, 1};

std::array<uint8_t, 16> all_bytes(int value) {
  std::array<uint8_t, 16> bytes;
  bytes.fill(static_cast<uint8_t>(value));
  return bytes;
}

std::array<uint8_t, 16> low_bytes() {
  std::array<uint8_t, 16> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = i % 2 ? 0 : 0xff;
  return bytes;
}

std::array<uint8_t, 16> plane_mask(int width, int place) { return all_bytes(((1 << width) - 1) << place); }

}  // namespace

void Unpack::load_constants(std::span<const int> spare) {
  std::vector<Bytes> wanted;
  if (has_table()) wanted.push_back(table());
  if (signed_ && !w_.codebook) wanted.push_back(all_bytes(1 << (w_.bits - 1)));
  if (panel_act_needs(w_).bits == 16) wanted.push_back(low_bytes());
  int place = 0;
  for (int width : plane_widths) {
    if (w_.bits == 8 || !(w_.bits & width)) continue;
    wanted.push_back(plane_mask(width, place));
    place += width;
  }
  for (size_t i = 0; i < wanted.size() && i < spare.size(); ++i) {
    const Xbyak::Xmm reg = g_.vec(spare[i]);
    g_.vmovups(reg, g_.constant(wanted[i]));
    registers_.emplace(wanted[i], reg);
  }
}

const Xbyak::Operand& Unpack::held(const Bytes& value) {
  if (const auto found = registers_.find(value); found != registers_.end()) return found->second;
  memory_ = g_.constant(value);
  return memory_;
}

// A book may number its values by themselves: u stands for u - zero.
bool Unpack::has_table() const {
  if (!w_.codebook) return false;
  const Bytes bytes = table();
  for (size_t i = 0; i < panel_codebook(w_.codebook).codes().size(); ++i) {
    if (bytes[i] != i) return true;
  }
  return false;
}

Unpack::Bytes Unpack::table() const {
  Bytes bytes;
  const Codebook& book = panel_codebook(w_.codebook);
  for (size_t i = 0; i < 16; ++i) bytes[i] = static_cast<uint8_t>(book.values[i] + (signed_ ? 0 : book.zero));
  return bytes;
}

// dst |= (line >> shift) & mask, or dst = that for the first plane (place 0). Shifts are of 16-bit lanes: bits that
// cross a byte land outside the mask.
void Unpack::plane(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, const Xbyak::RegExp& line, int width, int place,
                   int shift) {
  const Xbyak::Xmm& x = place == 0 ? dst : tmp;
  const Xbyak::Operand& mask = held(plane_mask(width, place));
  if (shift == 0 && mask.isXMM() + mask.isYMM() + mask.isZMM() > 0 && place == 0) {
    g_.and_vec(x, static_cast<const Xbyak::Xmm&>(mask), g_.ptr[line]);
    return;
  }
  g_.vmovups(x, g_.ptr[line]);
  if (shift > 0) g_.vpsrlw(x, x, static_cast<uint8_t>(shift));
  if (shift < 0) g_.vpsllw(x, x, static_cast<uint8_t>(-shift));
  if (place > 0 && g_.evex()) {
    g_.vpternlogd(dst, x, mask, 0xf8);  // dst | (x & mask)
    return;
  }
  g_.and_vec(x, x, mask);
  if (place > 0) g_.or_vec(dst, dst, x);
}

void Unpack::codes(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, const Xbyak::RegExp& block, int step) {
  if (w_.bits == 8) {
    g_.vmovups(dst, g_.ptr[block + static_cast<size_t>(step * 64)]);
    return;
  }
  int place = 0, offset = 0;
  for (int width : plane_widths) {
    if (!(w_.bits & width)) continue;
    const int steps_per_line = 8 / width;
    const int line = step / steps_per_line, bit = step % steps_per_line * width;
    plane(dst, tmp, block + static_cast<size_t>(offset + line * 64), width, place, bit - place);
    place += width;
    offset += width * 64;
  }
  if (!w_.codebook && signed_) g_.vpsubb(dst, dst, held(all_bytes(1 << (w_.bits - 1))));
  if (!has_table()) return;
  const Xbyak::Operand& values = held(table());
  if (values.isMEM()) {
    g_.vmovups(tmp, values);
    g_.vpshufb(dst, tmp, dst);
  } else {
    g_.vpshufb(dst, static_cast<const Xbyak::Xmm&>(values), dst);
  }
}

void Unpack::words(const Xbyak::Xmm& even, const Xbyak::Xmm& odd, const Xbyak::Xmm& tmp, const Xbyak::RegExp& block,
                   int step) {
  codes(even, tmp, block, step);
  g_.vpsrlw(odd, even, 8);
  g_.and_vec(even, even, held(low_bytes()));
}

void Unpack::scale_row(const Xbyak::Xmm& dst, const Xbyak::RegExp& at) {
  if (w_.scale == DType::f16) {
    g_.vcvtph2ps(dst, g_.ptr[at]);
  } else if (w_.scale == DType::bf16) {
    g_.vpmovzxwd(dst, g_.ptr[at]);
    g_.vpslld(dst, dst, 16);
  } else {
    g_.vmovups(dst, g_.ptr[at]);
  }
}

void Unpack::multiply_sub(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, const Xbyak::RegExp& at) {
  g_.vpmovsxbd(tmp, g_.ptr[at]);
  g_.vcvtdq2ps(tmp, tmp);
  g_.vmulps(dst, dst, tmp);
}

void Unpack::scale(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, const Xbyak::RegExp& record, int index, int column) {
  const size_t element = element_bytes(w_.scale), at = static_cast<size_t>(column);
  scale_row(dst, record + at * element);
  if (!w_.sub_groups) return;
  const bool minima = w_.zero_point == ZeroPoint::minimum;
  const size_t subs = 16 * element * (minima ? 2 : 1) + static_cast<size_t>(index) * (minima ? 32 : 16);
  multiply_sub(dst, tmp, record + (subs + at));
}

void Unpack::minimum(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, const Xbyak::Xmm& d, const Xbyak::RegExp& record,
                     int index, int column) {
  const size_t element = element_bytes(w_.scale), at = static_cast<size_t>(column);
  if (w_.zero_point == ZeroPoint::integer) {
    g_.vpmovzxbd(dst, g_.ptr[record + (16 * element + at)]);
    g_.vcvtdq2ps(dst, dst);
    g_.vmulps(dst, dst, d);
    g_.xor_vec(dst, dst, g_.constant(0x80000000u));
    return;
  }
  scale_row(dst, record + (16 * element + at * element));
  if (w_.sub_groups) multiply_sub(dst, tmp, record + (32 * element + static_cast<size_t>(index) * 32 + 16 + at));
}

}  // namespace nibble::jit
