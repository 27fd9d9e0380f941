// SPDX-License-Identifier: Apache-2.0
#include "jit/gemm_emitter.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "quant/format.h"
#include "tensor/check.h"
#include "tensor/panel.h"

namespace nibble::jit {

namespace {
constexpr int steps_per_block = quant::block_k / 4;
constexpr int steps_per_record = quant::max_group / 4;
// Mean GB/s of one Zen 3 core, one row, cold weights: 512: 18.7, 1024: 18.7, 2048: 20.2, 4096: 18.4, 8192: 16.8.
constexpr int prefetch_bytes = 2048;
constexpr int scale_prefetch_bytes = 512;
}  // namespace

GemmEmitter::GemmEmitter(const GemmKey& key)
    : Generator(key.isa),
      key_(key),
      shape_(key),
      rows_(key.rows),
      vectors_(key.panels * 16 / vector_floats()),
      unpack_(*this, key.w, shape_.signed_codes) {}

bool GemmEmitter::take_registers(Place& place) {
  const int wanted = rows_ * vectors_;
  if (used_ + wanted > vector_count()) return false;
  place.first_register = used_;
  used_ += wanted;
  return true;
}

void GemmEmitter::plan_registers() {
  const Needs n = needs();
  const bool minima_in_registers = shape_.minimum && key_.source == Source::packed;
  weights_ = rows_ * vectors_;
  broadcasts_ = weights_ + n.weight_sets * vectors_;
  temps_ = broadcasts_ + n.broadcasts;
  used_ = temps_ + n.temps;
  if (minima_in_registers) {
    // A second set of weight registers is idle at the end of a group.
    minima_ = n.weight_sets > 1 ? weights_ + vectors_ : used_;
    if (n.weight_sets == 1) used_ += vectors_;
  }
  NIBBLE_CHECK(used_ <= vector_count(), name(key_), ": needs ", used_, " vector registers, there are ", vector_count());
  if (n.constant && used_ < vector_count()) constant_ = used_++;
  const int bytes = rows_ * vectors_ * vector_bytes();
  if (shape_.groups_per_scale > 1 && !take_registers(t_)) {
    t_.memory = rsp + static_cast<size_t>(frame_);
    frame_ += bytes;
  }
  if (!take_registers(totals_)) totals_.memory = Xbyak::RegExp(out_);
  if (n.partial_sums && !take_registers(partial_)) {
    partial_.memory = rsp + static_cast<size_t>(frame_);
    frame_ += bytes;
  }
  frame_ = std::max(frame_, finish_frame_bytes(key_.epilogue, finish_totals()));
}

Xbyak::Address GemmEmitter::memory(const Place& place, int r, int v) const {
  return ptr[place.memory + static_cast<size_t>((r * vectors_ + v) * vector_bytes())];
}

Code GemmEmitter::emit() {
  plan_registers();
  prologue(frame_);
  mov(act_, arg(rdi, &GemmArgs::act));
  mov(codes_, arg(rdi, &GemmArgs::codes));
  mov(out_, arg(rdi, &GemmArgs::out));
  mov(units_, arg(rdi, &GemmArgs::units));
  mov(tail_, arg(rdi, &GemmArgs::tail));
  if (key_.source == Source::packed) {
    mov(scales_, arg(rdi, &GemmArgs::scales));
    mov(stride_, arg(rdi, &GemmArgs::panel_stride));
    lea(stride3_, ptr[stride_ + stride_ * 2]);
    std::vector<int> spare(static_cast<size_t>(vector_count() - used_));
    std::iota(spare.begin(), spare.end(), used_);
    unpack_.load_constants(spare);
  }
  if (constant_ >= 0) load_constant();
  start_totals();
  main_loop();
  Xbyak::Label done;
  test(tail_, tail_);
  jz(done, T_NEAR);
  unit(true);
  L(done);
  end_totals();
  epilogue();
  return finish(name(key_));
}

void GemmEmitter::end_totals() {
  Xbyak::Label keep, done;
  const size_t finish_at = offset_of(&GemmArgs::finish);
  cmp(qword[rdi + (finish_at + offset_of(&FinishArgs::result))], 0);
  je(keep, T_NEAR);
  Totals totals = finish_totals();
  if (vector_count() - rows_ * vectors_ < finish_registers) {
    store_totals();
    totals.first_register = -1;
  }
  emit_finish(*this, key_.epilogue, totals, rdi + finish_at);
  jmp(done, T_NEAR);
  L(keep);
  store_totals();
  L(done);
}

void GemmEmitter::start_totals() {
  Xbyak::Label load, ready;
  mov(r12, arg(rdi, &GemmArgs::first));
  test(r12, r12);
  jz(load, T_NEAR);
  if (!totals_.in_registers()) zero(temp());
  for (int r = 0; r < rows_; ++r) {
    for (int v = 0; v < vectors_; ++v) {
      if (totals_.in_registers()) {
        zero(at(totals_, r, v));
      } else {
        vmovups(memory(totals_, r, v), temp());
      }
    }
  }
  jmp(ready, T_NEAR);
  L(load);
  if (totals_.in_registers()) {
    for (int i = 0; i < rows_ * vectors_; ++i) {
      vmovups(vec(totals_.first_register + i), ptr[out_ + static_cast<size_t>(i * vector_bytes())]);
    }
  }
  L(ready);
}

void GemmEmitter::store_totals() {
  if (!totals_.in_registers()) return;
  for (int i = 0; i < rows_ * vectors_; ++i) {
    vmovups(ptr[out_ + static_cast<size_t>(i * vector_bytes())], vec(totals_.first_register + i));
  }
}

// Packed weights are prefetched `ahead` units ahead; near the end of a panel's codes the stream goes on with the
// codes of the panels that come next, since a panel's scales lie between them.
void GemmEmitter::main_loop() {
  const int acts = shape_.unit_k / quant::max_group;
  const int unit_codes = key_.source == Source::packed ? shape_.unit_k / quant::block_k * shape_.code_block_bytes
                                                       : acts * shape_.panel_bytes;
  const int units_ahead = (prefetch_bytes + unit_codes - 1) / unit_codes;
  Xbyak::Label loop, done, near_end;
  if (key_.source == Source::packed) {
    mov(prefetch_, arg(rdi, &GemmArgs::next));
    mov(ahead_, units_);
    sub(ahead_, units_ahead);
    jle(near_end, T_NEAR);
    lea(prefetch_, ptr[codes_ + static_cast<size_t>(units_ahead * unit_codes)]);
    L(near_end);
  }
  test(units_, units_);
  jz(done, T_NEAR);
  align(32);
  L(loop);
  unit(false);
  add(act_, acts * shape_.act_bytes);
  add(codes_, unit_codes);
  if (key_.source == Source::packed) {
    add(scales_, shape_.unit_scale_bytes);
    add(prefetch_, unit_codes);
    dec(ahead_);
    cmove(prefetch_, arg(rdi, &GemmArgs::next));
  }
  dec(units_);
  jnz(loop, T_NEAR);
  L(done);
}

void GemmEmitter::unit(bool tail) {
  Xbyak::Label done;
  if (key_.source == Source::packed && !tail) prefetch_scales();
  for (int a = 0; a < shape_.unit_k / quant::max_group; ++a) {
    for (int s = 0; s < shape_.scales_per_record; ++s) {
      Xbyak::Label scale_done;
      for (int g = 0; g < shape_.groups_per_scale; ++g) group(a, s * shape_.groups_per_scale + g, tail, scale_done);
      L(scale_done);
      end_scale(a, s);
      if (tail) {
        test(tail_, tail_);
        jz(done, T_NEAR);
      }
    }
  }
  L(done);
}

void GemmEmitter::group(int a, int g, bool tail, Xbyak::Label& scale_done) {
  const int steps = shape_.group / 4, first = a * steps_per_record + g * steps;
  Xbyak::Label group_done;
  begin_group(a, g);
  for (int s = 0; s < steps; s += steps_per_block) {
    const int count = std::min(steps, steps_per_block);
    if (key_.source == Source::packed && (first + s) % steps_per_block == 0)
      prefetch_block((first + s) / steps_per_block);
    add_steps(first + s, count, s == 0, s + count == steps);
    if (tail && shape_.whole_rows) {
      dec(tail_);
      jz(group_done, T_NEAR);
    }
  }
  L(group_done);
  end_group(a, g);
  if (tail && !shape_.whole_rows) {
    dec(tail_);
    if ((g + 1) % shape_.groups_per_scale != 0) jz(scale_done, T_NEAR);
  }
}

void GemmEmitter::prefetch_block(int block) {
  for (int p = 0; p < key_.panels; ++p) {
    const Xbyak::RegExp base = panel_base(prefetch_, p * (evex() ? 1 : 2));
    for (int line = 0; line < shape_.code_block_bytes / 64; ++line) {
      prefetcht0(ptr[base + static_cast<size_t>(block * shape_.code_block_bytes + line * 64)]);
    }
  }
}

// A panel's scales are a stream of their own, too short for the hardware to find it in time.
void GemmEmitter::prefetch_scales() {
  for (int p = 0; p < key_.panels; ++p) {
    const Xbyak::RegExp base = panel_base(scales_, p * (evex() ? 1 : 2));
    for (int at = 0; at < shape_.unit_scale_bytes; at += 64) {
      prefetcht0(ptr[base + static_cast<size_t>(scale_prefetch_bytes + at)]);
    }
  }
}

Xbyak::RegExp GemmEmitter::panel_base(const Xbyak::Reg64& base, int v) const {
  switch (panel(v)) {
    case 0: return Xbyak::RegExp(base);
    case 1: return base + stride_;
    case 2: return base + stride_ * 2;
    default: return base + stride3_;
  }
}

void GemmEmitter::load_weights(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, int v, int step) {
  if (key_.source == Source::packed) {
    const int block = step / steps_per_block * shape_.code_block_bytes + column(v) * 4;
    unpack_.codes(dst, tmp, panel_base(codes_, v) + static_cast<size_t>(block), step % steps_per_block);
    return;
  }
  const int at = step / steps_per_record * shape_.panel_bytes +
                 (step % steps_per_record * key_.panels + panel(v)) * 64 + column(v) * 4;
  vmovups(dst, ptr[codes_ + static_cast<size_t>(at)]);
}

void GemmEmitter::load_words(int step, int half) {
  for (int v = 0; v < vectors_; ++v) {
    if (key_.source == Source::packed) {
      const int block = step / steps_per_block * shape_.code_block_bytes + column(v) * 4;
      if (half == 0) {
        unpack_.words(weights(v, 0), weights(v, 1), temp(), panel_base(codes_, v) + static_cast<size_t>(block),
                      step % steps_per_block);
      }
      continue;
    }
    const int at = step / steps_per_record * shape_.panel_bytes +
                   ((step % steps_per_record * 2 + half) * key_.panels + panel(v)) * 64 + column(v) * 4;
    vmovups(weights(v), ptr[codes_ + static_cast<size_t>(at)]);
  }
}

Xbyak::Address GemmEmitter::act_values(int r, int step, int half) const {
  const int in_record = step % steps_per_record * (shape_.words ? 2 : 1) + half;
  const int at = step / steps_per_record * shape_.act_bytes + (in_record * rows_ + r) * 4;
  return ptr[act_ + static_cast<size_t>(at)];
}

Xbyak::Address GemmEmitter::act_int_sum(int r, int a, int g) const {
  const int sums = biased_sums(g) ? shape_.act_biased_sums : shape_.act_int_sums;
  return ptr[act_ + static_cast<size_t>(a * shape_.act_bytes + sums + (g * rows_ + r) * 4)];
}

Xbyak::Address GemmEmitter::act_start(int r, int step) const {
  const int start = step % steps_per_record * 4 / shape_.start_k;
  const int at = step / steps_per_record * shape_.act_bytes + shape_.act_starts + (start * rows_ + r) * 4;
  return ptr[act_ + static_cast<size_t>(at)];
}

void GemmEmitter::load_partial(const Xbyak::Xmm& s, int r, int v) {
  if (partial_.in_registers()) {
    vpaddd(s, s, at(partial_, r, v));
  } else {
    vpaddd(s, s, memory(partial_, r, v));
  }
}

void GemmEmitter::store_partial(const Xbyak::Xmm& s, int r, int v) {
  if (partial_.in_registers()) {
    vmovaps(at(partial_, r, v), s);
  } else {
    vmovups(memory(partial_, r, v), s);
  }
}

void GemmEmitter::load_scales(int a, int g) {
  const int groups = a * shape_.groups_per_record + g;
  for (int v = 0; v < vectors_; ++v) {
    if (key_.source == Source::panel) {
      vmovups(weights(v), panel_floats(shape_.panel_d, v, a, g));
      continue;
    }
    const int per_record = key_.w.sub_groups ? key_.w.sub_groups : 1;
    const Xbyak::RegExp record =
        panel_base(scales_, v) + static_cast<size_t>(groups / per_record * shape_.scale_bytes);
    unpack_.scale(weights(v), temp(), record, groups % per_record, column(v));
    if (shape_.minimum) {
      unpack_.minimum(vec(minima_ + v), temp(), weights(v), record, groups % per_record, column(v));
    }
  }
}

Xbyak::Address GemmEmitter::panel_floats(int region, int v, int a, int g) const {
  const int at = a * shape_.panel_bytes + region + (g * key_.panels + panel(v)) * 64 + column(v) * 4;
  return ptr[codes_ + static_cast<size_t>(at)];
}

void GemmEmitter::add_minimum(const Xbyak::Xmm& t, int v, int a, int g) {
  if (key_.source == Source::packed) {
    vfmadd231ps(t, broadcast(), vec(minima_ + v));
    return;
  }
  vfmadd231ps(t, broadcast(), panel_floats(shape_.panel_m, v, a, g));
}

// t = fma(float(sum), d, t), the first group of a scale with t = 0: a product alone, which differs at most in the
// sign of a zero and that never reaches the total. t stays in sum() when it has no registers.
void GemmEmitter::end_group(int a, int g) {
  load_scales(a, g);
  const bool many = shape_.groups_per_scale > 1;
  const int in_scale = g % shape_.groups_per_scale;
  for (int r = 0; r < rows_; ++r) {
    const bool add_int = shape_.int_sums && !sums_include_int_sums();
    const bool biased = biased_sums(g);
    if (add_int) vpbroadcastd(broadcast(), act_int_sum(r, a, g));
    for (int v = 0; v < vectors_; ++v) {
      if (add_int) vpaddd(sum(r, v), sum(r, v), broadcast());
      if (!biased) vcvtdq2ps(sum(r, v), sum(r, v));
    }
    if (shape_.float_sums) {
      const int at = a * shape_.act_bytes + shape_.act_float_sums + (g * rows_ + r) * 4;
      vbroadcastss(broadcast(), ptr[act_ + static_cast<size_t>(at)]);
    }
    for (int v = 0; v < vectors_; ++v) {
      const bool in_register = many && t_.in_registers();
      const Xbyak::Xmm t = in_register ? at(t_, r, v) : sum(r, v);
      if (biased) {
        if (in_register) vmovaps(t, sum(r, v));
        vfmsub213ps(t, weights(v), panel_floats(shape_.panel_bias, v, a, g));
      } else if (in_scale == 0) {
        vmulps(t, sum(r, v), weights(v));
      } else if (in_register) {
        vfmadd231ps(t, sum(r, v), weights(v));
      } else {
        vfmadd213ps(t, weights(v), memory(t_, r, v));
      }
      if (shape_.minimum) add_minimum(t, v, a, g);
      if (!in_register && in_scale + 1 < shape_.groups_per_scale) vmovups(memory(t_, r, v), t);
    }
  }
}

void GemmEmitter::end_scale(int a, int s) {
  for (int r = 0; r < rows_; ++r) {
    const int scale = a * shape_.act_bytes + shape_.act_scales + (s * rows_ + r) * 4;
    vbroadcastss(broadcast(), ptr[act_ + static_cast<size_t>(scale)]);
    for (int v = 0; v < vectors_; ++v) {
      const bool in_register = shape_.groups_per_scale > 1 && t_.in_registers();
      const Xbyak::Xmm t = in_register ? at(t_, r, v) : sum(r, v);
      if (totals_.in_registers()) {
        vfmadd231ps(at(totals_, r, v), t, broadcast());
      } else {
        vfmadd213ps(t, broadcast(), memory(totals_, r, v));
        vmovups(memory(totals_, r, v), t);
      }
    }
  }
}

const char* rejects_layout(const QuantLayout& w) {
  if (w.bits < 1 || w.bits > 8) return "only quantised weights of 1 to 8 bits";
  if (w.group != 0 && w.group != 16 && w.group != 32 && w.group != 64 && w.group != 128) {
    return "group must be 16, 32, 64, 128 or the whole row";
  }
  if (w.sub_groups) {
    const int super = w.group * w.sub_groups;
    if (w.group == 0 || w.zero_point == ZeroPoint::integer)
      return "super-blocks need a group and no integer zero points";
    if (super % quant::max_group != 0 && quant::max_group % super != 0) return "super-blocks must fit groups of 128";
    if (super > 1024) return "super-blocks of at most 1024";
  }
  if (w.codebook && (w.bits != panel_codebook(w.codebook).bits || w.zero_point != ZeroPoint::symmetric)) {
    return "codes of the codebook's width and symmetric";
  }
  return nullptr;
}

}  // namespace nibble::jit
