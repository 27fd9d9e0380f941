// SPDX-License-Identifier: Apache-2.0
// AMX-INT8: tdpbssd (symmetric codes less their zero point) and tdpbsud (codes with a minimum) on expanded weights.
// Few rows and int16 activations stay with the kernels of avx512vnni, on the same packed copy.
//
// Every group's sum must become float before the next one may be added, so that the float work bounds a group of 32 and
// not the tile unit. Budget of 16 columns and one group, for R rows, on Sapphire Rapids (one tile row a cycle for tdp,
// half a cycle for a loaded line, one for a stored line; two 512-bit ports for floats):
//   group                       16    32    64   128
//   tdp, R cycles each           1     1     1     2   x R     the time of a tile of k < 64 is that of k = 64
//   floats (convert, d, scale) 2.5     3     3     3   x R / 2    + 1 with a minimum
//   loaded lines: sums, scales, half of A's rows (P = 2): 1 + 0.5 + 0.5 (g128: + 1) x R / 2; B: 4, 8, 16, 32 / 2
//   stored lines                 1     1     1     1   x R
//   R = 12, cycles             15    18    20    31    which is 410, 683, 1229, 1585 operations a cycle (VNNI: 256)
// 12 rows, because 24 totals then stay in registers; with 16 rows they would be loaded and stored for each group, which
// costs more than the better use of B gains: stores alone 32 cycles a group of 32. Two tdp of a group of 128 wait for
// each other, 104 cycles; the four sums of two steps keep the unit busy for 96.
//
// zmm0-23 totals | zmm24-27 d and minima as far as they fit, the last one the second sum with groups of 16 |
// zmm28 scale | zmm29 sum of activations | zmm30-31 t of both panels
// tmm0-3 sums, two sets of two panels, or two groups of 16 of two panels | tmm4-5 A | tmm6-7 B
// A step is one activation scale. Steps overlap: while the tile unit multiplies step i (52 cycles until a result), the
// sums of step i - 1 are stored to L1 and added to the totals:
//   tilestored [sums], c'_p; tilezero c_p; tileloadd a, [act]; tileloadd b, [codes]; tdpbssd c_p, a, b
//   per row: vbroadcastss s, [scale]; vcvtdq2ps t_p, [sums]; vmulps t_p, t_p, d_p; vfmadd231ps total_p, t_p, s
#include <algorithm>
#include <vector>

#include "jit/amx_tiles.h"
#include "jit/code_cache.h"
#include "jit/gemm_vnni.h"
#include "quant/format.h"
#include "tensor/check.h"

namespace nibble::jit {

namespace {

constexpr int max_tile_k = 64;

class AmxEmitter : public Generator {
 public:
  explicit AmxEmitter(const GemmKey& key)
      : Generator(key.isa),
        key_(key),
        shape_(key),
        rows_(key.rows),
        panels_(key.panels),
        groups_(shape_.groups_per_scale),
        steps_(shape_.scales_per_record),
        tile_k_(std::min(shape_.group, max_tile_k)) {}

  Code emit() {
    prologue(std::max(groups_ * panels_ * rows_ * 64, finish_frame_bytes(key_.epilogue, totals())));
    mov(act_, arg(rdi, &GemmArgs::act));
    mov(codes_, arg(rdi, &GemmArgs::codes));
    mov(out_, arg(rdi, &GemmArgs::out));
    mov(units_, arg(rdi, &GemmArgs::units));
    mov(tail_, arg(rdi, &GemmArgs::tail));
    mov(line_, 64);
    mov(two_lines_, 128);
    configure();
    start_totals();
    whole_records();
    tail();
    end_totals();
    epilogue();
    return finish(name(key_));
  }

 private:
  Totals totals() const { return {rows_, panels_, 0, out_}; }

  // The first instruction that needs AMX comes before anything is in zmm registers: whoever emulates tiles only can
  // take over there.
  void configure() {
    const int id = rows_ << 8 | tile_k_;
    Xbyak::Label ready;
    mov(r11, arg(rdi, &GemmArgs::tiles));
    cmp(qword[r11], id);
    je(ready);
    ldtilecfg(constant(tile_config(rows_, tile_k_)));
    mov(qword[r11], id);
    L(ready);
    tilezero(Xbyak::Tmm(0));
  }

  void start_totals() {
    Xbyak::Label load, ready;
    cmp(arg_qword(&GemmArgs::first), 0);
    je(load, T_NEAR);
    for (int i = 0; i < rows_ * panels_; ++i) zero(vec(i));
    jmp(ready, T_NEAR);
    L(load);
    for (int i = 0; i < rows_ * panels_; ++i) vmovups(vec(i), ptr[out_ + static_cast<size_t>(i * 64)]);
    L(ready);
  }

  void store_totals() {
    for (int i = 0; i < rows_ * panels_; ++i) vmovups(ptr[out_ + static_cast<size_t>(i * 64)], vec(i));
  }

  void end_totals() {
    Xbyak::Label keep, done;
    const size_t finish_at = offset_of(&GemmArgs::finish);
    cmp(qword[rdi + (finish_at + offset_of(&FinishArgs::result))], 0);
    je(keep, T_NEAR);
    Totals where = totals();
    if (vector_count() - rows_ * panels_ < finish_registers) {
      store_totals();
      where.first_register = -1;
    }
    emit_finish(*this, key_.epilogue, where, rdi + finish_at);
    jmp(done, T_NEAR);
    L(keep);
    store_totals();
    L(done);
  }

  // The loop is entered behind the first step, whose predecessor does not exist. With one step to a record it holds two
  // records, so that the sets of sums take turns.
  void whole_records() {
    const int copies = steps_ == 1 ? 2 : 1;
    Xbyak::Label loop, entry, early, drain, none;
    test(units_, units_);
    jz(none, T_NEAR);
    multiply(0, set(0, 0), groups_);
    jmp(entry, T_NEAR);
    align(32);
    L(loop);
    for (int copy = 0; copy < copies; ++copy) {
      for (int i = 0; i < steps_; ++i) {
        const int before = i > 0 ? i - 1 : steps_ - 1;
        store_sums(set(before, i > 0 ? copy : copy + 1), groups_);
        multiply(i, set(i, copy), groups_);
        add_sums(before, i > 0 ? 0 : -1, groups_);
        if (copy == 0 && i == 0) L(entry);
      }
      add(act_, shape_.act_bytes);
      add(codes_, shape_.panel_bytes);
      dec(units_);
      if (copy + 1 < copies) {
        jz(early, T_NEAR);
      } else {
        jnz(loop, T_NEAR);
      }
    }
    store_sums(set(steps_ - 1, copies - 1), groups_);
    if (copies > 1) {
      jmp(drain, T_NEAR);
      L(early);
      store_sums(set(steps_ - 1, 0), groups_);
      L(drain);
    }
    add_sums(steps_ - 1, -1, groups_);
    L(none);
  }

  // Steps of the last record when it is not whole: rare, so they do not overlap. Of whole rows all 128 k are
  // multiplied: activations behind the end are zero, whatever the codes there are.
  void tail() {
    if (shape_.group == quant::max_group && !shape_.whole_rows) return;
    Xbyak::Label done;
    test(tail_, tail_);
    jz(done, T_NEAR);
    for (int i = 0; i < (shape_.whole_rows ? 1 : steps_); ++i) {
      if (groups_ == 2) {
        Xbyak::Label both;
        cmp(tail_, 1);
        jne(both, T_NEAR);
        whole_step(i, 1);
        jmp(done, T_NEAR);
        L(both);
      }
      whole_step(i, groups_);
      sub(tail_, groups_);
      if (i + 1 < steps_) jz(done, T_NEAR);
    }
    L(done);
  }

  void whole_step(int i, int groups) {
    multiply(i, 0, groups);
    store_sums(0, groups);
    add_sums(i, 0, groups);
  }

  int set(int step, int copy) const {
    if (groups_ > 1) return 0;
    return (steps_ == 1 ? copy : step) % 2;
  }
  Xbyak::Tmm sums(int set, int g, int p) const { return Xbyak::Tmm((set + g) * panels_ + p); }
  size_t sums_at(int g, int p) const { return static_cast<size_t>((g * panels_ + p) * rows_ * 64); }

  void multiply(int step, int set, int groups) {
    int a = 0, b = 0;
    for (int g = 0; g < groups; ++g) {
      for (int p = 0; p < panels_; ++p) tilezero(sums(set, g, p));
      const int begin = (step * groups_ + g) * shape_.group;
      for (int k = begin; k < begin + shape_.group; k += tile_k_) {
        const Xbyak::Tmm act(first_act_tile + a++ % 2);
        tileloadd(act, ptr[act_ + two_lines_ + static_cast<size_t>(k)]);
        for (int p = 0; p < panels_; ++p) {
          const Xbyak::Tmm weights(first_weight_tile + b++ % 2);
          const Xbyak::Reg64& stride = panels_ == 1 ? line_ : two_lines_;
          tileloadd(weights, ptr[codes_ + stride + static_cast<size_t>((k / 4 * panels_ + p) * 64)]);
          if (shape_.minimum) {
            tdpbsud(sums(set, g, p), act, weights);
          } else {
            tdpbssd(sums(set, g, p), act, weights);
          }
        }
      }
    }
  }

  void store_sums(int set, int groups) {
    for (int g = 0; g < groups; ++g) {
      for (int p = 0; p < panels_; ++p) tilestored(ptr[rsp + line_ + sums_at(g, p)], sums(set, g, p));
    }
  }

  // The float operations of quant/format.h on stored sums. `record`: 0 or -1, relative to act_ and codes_. The first
  // group of a scale is a product alone: a fused addition to zero differs at most in the sign of a zero.
  void add_sums(int step, int record, int groups) {
    const int act = record * shape_.act_bytes, codes = record * shape_.panel_bytes;
    const int first = step * groups_;
    int next = first_scale_;
    const auto hold = [&](int at, int g, int p) {
      const Xbyak::Address where = ptr[codes_ + static_cast<size_t>(codes + at + ((first + g) * panels_ + p) * 64)];
      Held held{where, -1};
      if (next < first_scale_ + (groups_ > 1 ? 3 : 4)) {
        held.index = next++;
        vmovups(vec(held.index), where);
      }
      return held;
    };
    std::vector<Held> d, m;
    for (int i = 0; i < groups * panels_; ++i) d.push_back(hold(shape_.panel_d, i / panels_, i % panels_));
    for (int i = 0; shape_.minimum && i < groups * panels_; ++i)
      m.push_back(hold(shape_.panel_m, i / panels_, i % panels_));
    const Xbyak::Xmm scale = vec(28), act_sum = vec(29), other = vec(27);
    for (int r = 0; r < rows_; ++r) {
      vbroadcastss(scale, ptr[act_ + static_cast<size_t>(act + shape_.act_scales + (step * rows_ + r) * 4)]);
      for (int g = 0; g < groups; ++g) {
        if (shape_.minimum) {
          vbroadcastss(act_sum,
                       ptr[act_ + static_cast<size_t>(act + shape_.act_float_sums + ((first + g) * rows_ + r) * 4)]);
        }
        for (int p = 0; p < panels_; ++p) {
          const Xbyak::Xmm t = vec(30 + p), x = g == 0 ? t : other;
          const auto i = static_cast<size_t>(g * panels_ + p);
          vcvtdq2ps(x, ptr[rsp + (sums_at(g, p) + static_cast<size_t>(r * 64))]);
          if (g == 0) {
            with(d[i], [&](const Xbyak::Operand& by) { vmulps(t, t, by); });
          } else {
            with(d[i], [&](const Xbyak::Operand& by) { vfmadd231ps(t, x, by); });
          }
          if (shape_.minimum) with(m[i], [&](const Xbyak::Operand& by) { vfmadd231ps(t, act_sum, by); });
        }
      }
      for (int p = 0; p < panels_; ++p) vfmadd231ps(vec(r * panels_ + p), vec(30 + p), scale);
    }
  }

  struct Held {
    Xbyak::Address memory;
    int index;  ///< of the register, -1: none
  };
  template <class Use>
  void with(const Held& held, Use use) const {
    if (held.index >= 0) {
      use(vec(held.index));
    } else {
      use(held.memory);
    }
  }

  template <class Field>
  Xbyak::Address arg_qword(Field GemmArgs::*member) const { return qword[rdi + offset_of(member)]; }

  static constexpr int first_scale_ = 24;
  const GemmKey key_;
  const GemmShape shape_;
  const int rows_, panels_;
  const int groups_;  ///< of weights to an activation scale
  const int steps_;   ///< of a record
  const int tile_k_;
  const Xbyak::Reg64 act_ = rsi, codes_ = rdx, out_ = r8, units_ = r9, tail_ = r10, line_ = rax, two_lines_ = rbx;
};

struct ReleaseKey {
  uint64_t unused;
};

const Code& release() {
  return code_cache().get(ReleaseKey{0}, [] {
    Generator g(Isa::amxint8);
    g.tilerelease();
    g.ret();
    return g.finish("release_tiles_amxint8");
  });
}

const char* rejects(const QuantLayout& w) {
  if (const char* reason = rejects_layout(w)) return reason;
  if (panel_act_needs(w).bits == 16) return "int16 activations have no AMX form";
  return nullptr;
}

Code emit(const GemmKey& key) {
  if (key.isa != Isa::amxint8) return VnniEmitter(key).emit();
  return key.rows == 0 ? emit_expander(key) : AmxEmitter(key).emit();
}

}  // namespace

extern const MicroKernel kernel_amxint8;
const MicroKernel kernel_amxint8 = {
    .isa = Isa::amxint8,
    .packed_isa = Isa::avx512vnni,
    .packed_rows = 4,
    .packed_panels = 2,
    .panel_rows = 12,
    .panel_panels = 2,
    .packed_limit = [](const QuantLayout&) { return 7; },
    .rejects = rejects,
    .emit = emit,
    .release = release,
};

}  // namespace nibble::jit
