// SPDX-License-Identifier: Apache-2.0
// A line of codes (quant/format.h) has, for each column, four bytes of neighbouring k. With 4 bits AVX2 looks up each
// of the four bytes of a book's floats by vpshufb, for 8 columns and 4 k at once, and interleaves them; AVX-512 finds
// 16 columns of a k by vpermps. With 8 bits two shifts and a mask make a float of a code.
//
// Register plan
//   avx2, 4 bits     ymm0-5 sums, row-major | ymm6-10 lookups, then weights | ymm11 2^16 | ymm12-15 the book by bytes
//   avx2, 8 bits     ymm0-5 sums | ymm6 a half line, ymm7 a weight, ymm8 scratch | ymm11 2^16 | ymm12 the mask
//   avx512           zmm0-15 sums | zmm16-19 weights of a k, zmm20-23 scratch, zmm24-27 lines of each panel
//                    zmm29 the mask | zmm30 2^16 | zmm31 the book
//   rsi, rcx: rows 0 and 3 of A | rdx its stride | r10 codes, r11 scales, rax and rbx 1 and 3 panels further | r12
//   groups r13 lines of the group | r8 what is written by the expander
// Inner loop, avx2 nf4_float 1x16, one of the halves and nibbles:
//   vmovdqu ymm9,[r10]; vpand ymm9,mask; vpshufb ymm9,ymm9,[by k]
//   vpshufb ymm6,ymm12,ymm9 ... ymm9,ymm15,ymm9; vpunpck{l,h}bw twice; vpunpck{l,h}wd twice
//   vmulps ymm10,ymm10,[r11]; vbroadcastss ymm8,[rsi]; vfmadd231ps ymm0,ymm10,ymm8   for each of 4 k
#include <bit>
#include <cstring>

#include "jit/gemm_coded.h"
#include "jit/generator.h"

namespace nibble::jit {

namespace {

class GemmCodedEmitter : public Generator {
 public:
  explicit GemmCodedEmitter(const GemmCodedKey& key)
      : Generator(key.isa),
        key_(key),
        book_(*float_book(key.book)),
        vectors_(evex() ? 1 : 2),
        line_k_(book_.bits == 4 ? 8 : 4) {}

  Code emit() {
    prologue();
    load_or_clear_sums();
    load_pointers();
    load_book();
    Xbyak::Label groups, lines;
    L(groups);
    mov(r13, arg(rdi, &GemmCodedArgs::lines));
    align(32);
    L(lines);
    line();
    dec(r13);
    jnz(lines, T_NEAR);
    add(r11, 64);
    dec(r12);
    jnz(groups, T_NEAR);
    for_each_sum([this](const Xbyak::Xmm& x, const Xbyak::Address& c) { vmovups(c, x); });
    epilogue();
    return finish(name(key_));
  }

 private:
  bool expands() const { return key_.rows == 0; }
  Xbyak::Xmm sum(int row, int panel, int v) const { return vec((row * key_.panels + panel) * vectors_ + v); }

  template <class Body>
  void for_each_sum(Body body) {
    if (expands()) return;
    mov(rsi, arg(rdi, &GemmCodedArgs::c));
    mov(rdx, arg(rdi, &GemmCodedArgs::c_stride));
    for (int row = 0; row < key_.rows; ++row) {
      for (int panel = 0; panel < key_.panels; ++panel) {
        for (int v = 0; v < vectors_; ++v) body(sum(row, panel, v), ptr[rsi + 64 * panel + vector_bytes() * v]);
      }
      if (row + 1 < key_.rows) add(rsi, rdx);
    }
  }
  void load_or_clear_sums() {
    if (expands()) return;
    Xbyak::Label clear, done;
    mov(rax, arg(rdi, &GemmCodedArgs::accumulate));
    test(rax, rax);
    jz(clear, T_NEAR);
    for_each_sum([this](const Xbyak::Xmm& x, const Xbyak::Address& c) { vmovups(x, c); });
    jmp(done, T_NEAR);
    L(clear);
    for (int i = 0; i < key_.rows * key_.panels * vectors_; ++i) zero(vec(i));
    L(done);
  }
  void load_pointers() {
    mov(rsi, arg(rdi, &GemmCodedArgs::a));
    mov(rdx, arg(rdi, &GemmCodedArgs::a_stride));
    if (key_.rows > 3) {
      lea(rcx, ptr[rdx + rdx * 2]);
      add(rcx, rsi);
    }
    mov(r10, arg(rdi, &GemmCodedArgs::codes));
    mov(r11, arg(rdi, &GemmCodedArgs::scales));
    mov(rax, arg(rdi, &GemmCodedArgs::panel));
    if (key_.panels > 3) lea(rbx, ptr[rax + rax * 2]);
    mov(r12, arg(rdi, &GemmCodedArgs::groups));
    if (expands()) mov(r8, arg(rdi, &GemmCodedArgs::c));
  }
  void load_book() {
    if (key_.product == DType::bf16) vmovups(vec(factor_register()), constant(65536.0f));
    if (book_.bits == 8) {
      vmovups(vec(mask_register()), constant(book_.mask));
      return;
    }
    if (evex()) {
      std::array<uint8_t, 64> all;
      std::memcpy(all.data(), book_.values, sizeof all);
      vmovups(Xbyak::Zmm(31), constant(all));
      return;
    }
    for (int part = 0; part < 4; ++part) {
      std::array<uint8_t, 16> table;
      for (size_t u = 0; u < 16; ++u)
        table[u] = static_cast<uint8_t>(std::bit_cast<uint32_t>(book_.values[u]) >> (8 * part));
      vmovups(Xbyak::Ymm(12 + part), constant(table));
    }
  }

  Xbyak::RegExp at_panel(const Xbyak::Reg64& base, int panel) const {
    if (panel == 0) return Xbyak::RegExp(base);
    if (panel == 3) return base + rbx;
    return base + rax * panel;
  }
  Xbyak::RegExp a_row(int row) const {
    if (row == 3) return Xbyak::RegExp(rcx);
    return row == 0 ? Xbyak::RegExp(rsi) : rsi + rdx * row;
  }

  /// One line of every panel.
  void line() {
    if (evex()) line_avx512();
    else line_avx2();
    add(r10, 64);
    if (expands()) {
      add(r8, 64 * line_k_);
      return;
    }
    add(rsi, 4 * line_k_);
    if (key_.rows > 3) add(rcx, 4 * line_k_);
  }

  /// A code's float times its scale, in place; rounded as rounded_product does.
  void finish_weight(const Xbyak::Xmm& w, const Xbyak::Xmm& scratch, int panel, int v) {
    vmulps(w, w, ptr[at_panel(r11, panel) + vector_bytes() * v]);
    if (key_.product == DType::f16) {
      if (evex()) {
        vcvtps2ph(Xbyak::Ymm(scratch.getIdx()), Xbyak::Zmm(w.getIdx()), 0);
        vcvtph2ps(Xbyak::Zmm(w.getIdx()), Xbyak::Ymm(scratch.getIdx()));
      } else {
        vcvtps2ph(Xbyak::Xmm(scratch.getIdx()), Xbyak::Ymm(w.getIdx()), 0);
        vcvtph2ps(Xbyak::Ymm(w.getIdx()), Xbyak::Xmm(scratch.getIdx()));
      }
    } else if (key_.product == DType::bf16) {
      vmovaps(scratch, w);
      vfnmadd132ps(scratch, w, vec(factor_register()));
      vfmadd132ps(w, scratch, vec(factor_register()));
    }
  }
  int factor_register() const { return evex() ? 30 : 11; }
  /// The weights w of k-th k of the line meet the rows, or are written.
  void use_weight(const Xbyak::Xmm& w, const Xbyak::Xmm& scratch, int panel, int v, int k) {
    finish_weight(w, scratch, panel, v);
    if (expands()) vmovups(ptr[r8 + 64 * k + vector_bytes() * v], w);
    for (int row = 0; row < key_.rows; ++row) {
      if (evex()) {
        vfmadd231ps(sum(row, panel, v), w, ptr_b[a_row(row) + 4 * k]);
      } else {
        vbroadcastss(Xbyak::Ymm(scratch.getIdx()), dword[a_row(row) + 4 * k]);
        vfmadd231ps(sum(row, panel, v), w, scratch);
      }
    }
  }
  void prefetch(int panel) { prefetcht0(ptr[at_panel(r10, panel) + 768]); }

  void line_avx2() {
    for (int nibble = 0; nibble < (book_.bits == 4 ? 2 : 1); ++nibble) {
      for (int panel = 0; panel < key_.panels; ++panel) {
        if (nibble == 0) prefetch(panel);
        for (int half = 0; half < 2; ++half) {
          if (book_.bits == 4) nibbles_avx2(panel, half, nibble);
          else bytes_avx2(panel, half);
        }
      }
    }
  }
  void nibbles_avx2(int panel, int half, int nibble) {
    const Xbyak::Ymm t6(6), t7(7), t8(8), t9(9), t10(10);
    vmovdqu(t9, ptr[at_panel(r10, panel) + 32 * half]);
    if (nibble == 1) vpsrld(t9, t9, 4);
    vpand(t9, t9, constant(0x0f0f0f0fu));
    // four columns of four k to four k of four columns, in each 16 bytes
    vpshufb(t9, t9, constant(std::array<uint8_t, 16>{0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15}));
    vpshufb(t6, Xbyak::Ymm(12), t9);
    vpshufb(t7, Xbyak::Ymm(13), t9);
    vpshufb(t8, Xbyak::Ymm(14), t9);
    vpshufb(t9, Xbyak::Ymm(15), t9);
    vpunpcklbw(t10, t6, t7);
    vpunpckhbw(t6, t6, t7);
    vpunpcklbw(t7, t8, t9);
    vpunpckhbw(t8, t8, t9);
    vpunpcklwd(t9, t10, t7);
    vpunpckhwd(t10, t10, t7);
    vpunpcklwd(t7, t6, t8);
    vpunpckhwd(t6, t6, t8);
    const Xbyak::Ymm weights[] = {t9, t10, t7, t6};
    for (int k = 0; k < 4; ++k) use_weight(weights[k], t8, panel, half, 4 * nibble + k);
  }
  void bytes_avx2(int panel, int half) {
    vmovdqu(Xbyak::Ymm(6), ptr[at_panel(r10, panel) + 32 * half]);
    for (int k = 0; k < 4; ++k) {
      const Xbyak::Ymm w(7);
      byte_to_float(w, Xbyak::Ymm(6), k);
      use_weight(w, Xbyak::Ymm(8), panel, half, k);
    }
  }
  void byte_to_float(const Xbyak::Xmm& w, const Xbyak::Xmm& line, int k) {
    if (k < 3) vpslld(w, line, static_cast<uint8_t>(24 - 8 * k));
    vpsrad(w, k < 3 ? w : line, static_cast<uint8_t>(book_.shift));
    and_vec(w, w, vec(mask_register()));
  }
  int mask_register() const { return evex() ? 29 : 12; }

  void line_avx512() {
    for (int panel = 0; panel < key_.panels; ++panel) {
      prefetch(panel);
      vmovups(Xbyak::Zmm(24 + panel), ptr[at_panel(r10, panel)]);
    }
    for (int k = 0; k < line_k_; ++k) {
      for (int panel = 0; panel < key_.panels; ++panel) {
        const Xbyak::Zmm w(16 + panel), codes(24 + panel);
        if (book_.bits == 8) {
          byte_to_float(w, codes, k);
        } else if (const int shift = k % 4 * 8 + k / 4 * 4; shift == 0) {
          vpermps(w, codes, Xbyak::Zmm(31));
        } else {
          vpsrld(w, codes, static_cast<uint8_t>(shift));  // vpermps takes the low four bits
          vpermps(w, w, Xbyak::Zmm(31));
        }
        use_weight(w, Xbyak::Zmm(20 + panel), panel, 0, k);
      }
    }
  }

  const GemmCodedKey key_;
  const FloatBook& book_;
  const int vectors_, line_k_;  // vectors per panel
};

}  // namespace

Code emit_gemm_coded(const GemmCodedKey& key) { return GemmCodedEmitter(key).emit(); }

}  // namespace nibble::jit
