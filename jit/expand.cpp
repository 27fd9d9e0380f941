// SPDX-License-Identifier: Apache-2.0
// The expander: one packed panel to lanes of 8 or 16 bits and f32 scales (gemm_key.h), done once per block of rows so
// that the kernel for prompts knows no format. The destination may hold several panels side by side; `out` points at
// this one's lines.
#include <algorithm>
#include <numeric>
#include <vector>

#include "jit/gemm_emitter.h"
#include "quant/format.h"

namespace nibble::jit {

namespace {

class ExpandEmitter : public Generator {
 public:
  explicit ExpandEmitter(const GemmKey& key)
      : Generator(key.isa), key_(key), shape_(key), unpack_(*this, key.w, shape_.signed_codes) {}

  Code emit() {
    prologue();
    mov(codes_, arg(rdi, &GemmArgs::codes));
    mov(scales_, arg(rdi, &GemmArgs::scales));
    mov(out_, arg(rdi, &GemmArgs::out));
    mov(units_, arg(rdi, &GemmArgs::units));
    mov(tail_, arg(rdi, &GemmArgs::tail));
    std::vector<int> spare(static_cast<size_t>(vector_count() - 4));
    std::iota(spare.begin(), spare.end(), 4);
    unpack_.load_constants(spare);
    Xbyak::Label loop, no_units, done;
    test(units_, units_);
    jz(no_units, T_NEAR);
    L(loop);
    unit(nullptr);
    add(codes_, shape_.unit_k / quant::block_k * shape_.code_block_bytes);
    add(scales_, shape_.unit_scale_bytes);
    add(out_, shape_.unit_k / quant::max_group * shape_.panel_bytes);
    dec(units_);
    jnz(loop, T_NEAR);
    L(no_units);
    test(tail_, tail_);
    jz(done, T_NEAR);
    unit(&done);
    L(done);
    epilogue();
    return finish(name(key_));
  }

 private:
  // `done`: where to go when the tail's count runs out; nullptr for a whole unit.
  void unit(Xbyak::Label* done) {
    for (int first = 0; first < shape_.unit_k; first += shape_.group) {
      scales(first / shape_.group);
      for (int k = first; k < first + shape_.group; k += shape_.tail_k) {
        for (int step = k / 4; step < (k + shape_.tail_k) / 4; ++step) codes(step);
        if (!done) continue;
        dec(tail_);
        jz(*done, T_NEAR);
      }
    }
  }

  void codes(int step) {
    const int steps_per_record = quant::max_group / 4;
    const int block = step / 8 * shape_.code_block_bytes;
    const int out = step / steps_per_record * shape_.panel_bytes + step % steps_per_record * key_.panels * 64;
    if (shape_.words) return words(step, block, 2 * out - step / steps_per_record * shape_.panel_bytes);
    for (int at = 0; at < 64; at += vector_bytes()) {
      unpack_.codes(vec(at / 32), vec(2), codes_ + static_cast<size_t>(block + at), step % 8);
      vmovups(ptr[out_ + static_cast<size_t>(out + at)], vec(at / 32));
    }
  }

  void words(int step, int block, int out) {
    for (int at = 0; at < 64; at += vector_bytes()) {
      unpack_.words(vec(0), vec(1), vec(2), codes_ + static_cast<size_t>(block + at), step % 8);
      vmovups(ptr[out_ + static_cast<size_t>(out + at)], vec(0));
      vmovups(ptr[out_ + static_cast<size_t>(out + key_.panels * 64 + at)], vec(1));
    }
  }

  void scales(int group) {
    const int per_record = key_.w.sub_groups ? key_.w.sub_groups : 1;
    const int a = group / shape_.groups_per_record, g = group % shape_.groups_per_record;
    const Xbyak::RegExp record = scales_ + static_cast<size_t>(group / per_record * shape_.scale_bytes);
    for (int column = 0; column < 16; column += vector_floats()) {
      const int out = a * shape_.panel_bytes + g * key_.panels * 64 + column * 4;
      unpack_.scale(vec(0), vec(2), record, group % per_record, column);
      vmovups(ptr[out_ + static_cast<size_t>(out + shape_.panel_d)], vec(0));
      if (shape_.biased_sums) {
        vmulps(vec(1), vec(0), constant(integer_bias));
        vmovups(ptr[out_ + static_cast<size_t>(out + shape_.panel_bias)], vec(1));
      }
      if (!shape_.minimum) continue;
      unpack_.minimum(vec(1), vec(2), vec(0), record, group % per_record, column);
      vmovups(ptr[out_ + static_cast<size_t>(out + shape_.panel_m)], vec(1));
    }
  }

  const GemmKey key_;
  const GemmShape shape_;
  Unpack unpack_;
  const Xbyak::Reg64 codes_ = rdx, scales_ = rcx, out_ = r8, units_ = r9, tail_ = r10;
};

}  // namespace

Code emit_expander(const GemmKey& key) { return ExpandEmitter(key).emit(); }

}  // namespace nibble::jit
