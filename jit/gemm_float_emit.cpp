// SPDX-License-Identifier: Apache-2.0
// Register plan
//   avx2     ymm0-11 sums, row-major | ymm12-13 the two halves of a panel | ymm14-15 broadcast a
//   avx512   zmm0-23 sums, row-major | zmm24-27 one panel each            | a by {1to16}
//   rsi, rcx, r8, r9: rows 0, 3, 6, 9 of A | rdx its stride | r10 B | r11, rax, rbx: its k, panel and 3-panel strides |
//   r12 k r13 the distance to prefetch
// Inner loop, avx2 f16 2x16:
//   vcvtph2ps ymm12,[r10]; vcvtph2ps ymm13,[r10+16]; add r10,r11
//   vbroadcastss ymm14,[rsi]; vfmadd231ps ymm0,ymm12,ymm14; vfmadd231ps ymm1,ymm13,ymm14
//   vbroadcastss ymm15,[rsi+rdx]; vfmadd231ps ymm2,ymm12,ymm15; vfmadd231ps ymm3,ymm13,ymm15
// avx2 i8 1x16, 64 products in 8 instructions:
//   vpmovsxbw ymm12,[r10]; vpmovsxbw ymm13,[r10+16]; add r10,r11
//   vpbroadcastd ymm14,[rsi]; vpmaddwd ymm15,ymm12,ymm14; vpaddd ymm0,ymm0,ymm15; vpmaddwd ymm14,ymm13,ymm14; vpaddd
//   ymm1,ymm1,ymm14
#include "jit/gemm_float.h"
#include "jit/generator.h"

namespace nibble::jit {

namespace {

class GemmFloatEmitter : public Generator {
 public:
  explicit GemmFloatEmitter(const GemmFloatKey& key) : Generator(key.isa), key_(key), vectors_(evex() ? 1 : 2) {}

  Code emit() {
    prologue();
    Xbyak::Label tile;
    L(tile);
    load_or_clear_sums();
    load_pointers();
    Xbyak::Label loop, tail, tail_loop, done;
    sub(r12, unroll);
    jl(tail, T_NEAR);
    align(32);
    L(loop);
    for (int u = 0; u < unroll; ++u) step(4 * u);
    advance_a(4 * unroll);
    sub(r12, unroll);
    jge(loop, T_NEAR);
    L(tail);
    add(r12, unroll);
    jz(done, T_NEAR);
    L(tail_loop);
    step(0);
    advance_a(4);
    dec(r12);
    jnz(tail_loop, T_NEAR);
    L(done);
    store_sums();
    next_tile(tile);
    epilogue();
    return finish(name(key_));
  }

 private:
  static constexpr int unroll = 4;

  bool codes() const { return key_.b == DType::i8 || key_.b == DType::i32; }

  Xbyak::Xmm sum(int row, int panel, int v) const { return vec((row * key_.panels + panel) * vectors_ + v); }

  template <class Body>
  void for_each_sum(Body body) {
    mov(rsi, arg(rdi, &GemmFloatArgs::c));
    mov(rdx, arg(rdi, &GemmFloatArgs::c_stride));
    for (int row = 0; row < key_.rows; ++row) {
      for (int panel = 0; panel < key_.panels; ++panel) {
        for (int v = 0; v < vectors_; ++v) body(sum(row, panel, v), ptr[rsi + 64 * panel + vector_bytes() * v]);
      }
      if (row + 1 < key_.rows) add(rsi, rdx);
    }
  }
  void load_or_clear_sums() {
    Xbyak::Label clear, done;
    if (codes()) return clear_sums();
    mov(rax, arg(rdi, &GemmFloatArgs::accumulate));
    test(rax, rax);
    jz(clear, T_NEAR);
    for_each_sum([this](const Xbyak::Xmm& x, const Xbyak::Address& c) { vmovups(x, c); });
    jmp(done, T_NEAR);
    L(clear);
    clear_sums();
    L(done);
  }
  void clear_sums() {
    for (int i = 0; i < key_.rows * key_.panels * vectors_; ++i) zero(vec(i));
  }
  void store_sums() {
    if (codes()) return store_scaled_sums();
    for_each_sum([this](const Xbyak::Xmm& x, const Xbyak::Address& c) { vmovups(c, x); });
  }
  void store_scaled_sums() {
    Xbyak::Label accumulate, done;
    const Xbyak::Xmm scale = vec(evex() ? 24 : 12);
    mov(rsi, arg(rdi, &GemmFloatArgs::c));
    mov(rdx, arg(rdi, &GemmFloatArgs::c_stride));
    mov(rcx, arg(rdi, &GemmFloatArgs::row_scales));
    mov(r8, arg(rdi, &GemmFloatArgs::column_scales));
    mov(rax, arg(rdi, &GemmFloatArgs::accumulate));
    test(rax, rax);
    jnz(accumulate, T_NEAR);
    store_rows(scale, [this](const Xbyak::Xmm& x, const Xbyak::Xmm& row, const Xbyak::Address&, int offset) {
      vmulps(x, x, row);
      vmulps(x, x, ptr[r8 + offset]);
    });
    jmp(done, T_NEAR);
    L(accumulate);
    store_rows(scale, [this](const Xbyak::Xmm& x, const Xbyak::Xmm& row, const Xbyak::Address& c, int) {
      vfmadd213ps(x, row, c);
    });
    L(done);
  }
  /// C of every row from its sums, whose worth `finish` computes.
  template <class Finish>
  void store_rows(const Xbyak::Xmm& scale, Finish finish) {
    for (int row = 0; row < key_.rows; ++row) {
      vbroadcastss(scale, dword[rcx + 4 * row]);
      for (int panel = 0; panel < key_.panels; ++panel) {
        for (int v = 0; v < vectors_; ++v) {
          const Xbyak::Xmm x = sum(row, panel, v);
          const int offset = 64 * panel + vector_bytes() * v;
          vcvtdq2ps(x, x);
          finish(x, scale, ptr[rsi + offset], offset);
          vmovups(ptr[rsi + offset], x);
        }
      }
      if (row + 1 < key_.rows) add(rsi, rdx);
    }
  }

  void load_pointers() {
    mov(rsi, arg(rdi, &GemmFloatArgs::a));
    mov(rdx, arg(rdi, &GemmFloatArgs::a_stride));
    const Xbyak::Reg64 rows[] = {rsi, rcx, r8, r9};
    lea(rax, ptr[rdx + rdx * 2]);
    for (int i = 1; i * 3 < key_.rows; ++i) lea(rows[i], ptr[rows[i - 1] + rax]);
    mov(r10, arg(rdi, &GemmFloatArgs::b));
    mov(r11, arg(rdi, &GemmFloatArgs::b_stride));
    mov(rax, arg(rdi, &GemmFloatArgs::b_panel));
    if (key_.panels > 3) lea(rbx, ptr[rax + rax * 2]);
    mov(r12, arg(rdi, &GemmFloatArgs::k));
    mov(r13, arg(rdi, &GemmFloatArgs::b_ahead));
  }
  void next_tile(Xbyak::Label& tile) {
    Xbyak::Label last;
    mov(rax, arg(rdi, &GemmFloatArgs::tiles));
    dec(rax);
    jz(last, T_NEAR);
    mov(arg(rdi, &GemmFloatArgs::tiles), rax);
    imul(rax, arg(rdi, &GemmFloatArgs::a_stride), key_.rows);
    add(arg(rdi, &GemmFloatArgs::a), rax);
    imul(rax, arg(rdi, &GemmFloatArgs::c_stride), key_.rows);
    add(arg(rdi, &GemmFloatArgs::c), rax);
    if (codes()) {
      mov(rax, 4 * key_.rows);
      add(arg(rdi, &GemmFloatArgs::row_scales), rax);
    }
    jmp(tile, T_NEAR);
    L(last);
  }
  void advance_a(int bytes) {
    const Xbyak::Reg64 rows[] = {rsi, rcx, r8, r9};
    for (int i = 0; i * 3 < key_.rows; ++i) add(rows[i], bytes);
  }

  Xbyak::RegExp a_row(int row) const {
    const Xbyak::Reg64 bases[] = {rsi, rcx, r8, r9};
    const Xbyak::Reg64& base = bases[row / 3];
    if (row % 3 == 0) return Xbyak::RegExp(base);
    return base + rdx * (row % 3);
  }
  Xbyak::RegExp b_panel(int panel) const {
    if (panel == 0) return Xbyak::RegExp(r10);
    if (panel == 3) return r10 + rbx;
    return r10 + rax * panel;
  }
  void load_b(const Xbyak::Xmm& x, int panel, int v) {
    const int element = key_.b == DType::i8 ? 2 : static_cast<int>(element_bytes(key_.b));
    const Xbyak::RegExp at = b_panel(panel) + v * vector_floats() * element;
    if (element == 4) {
      vmovups(x, ptr[at]);
    } else if (key_.b == DType::f16) {
      if (evex()) vcvtph2ps(Xbyak::Zmm(x.getIdx()), yword[at]);
      else vcvtph2ps(Xbyak::Ymm(x.getIdx()), xword[at]);
    } else if (codes()) {
      if (evex()) vpmovsxbw(Xbyak::Zmm(x.getIdx()), yword[at]);
      else vpmovsxbw(Xbyak::Ymm(x.getIdx()), xword[at]);
    } else {
      if (evex()) vpmovzxwd(Xbyak::Zmm(x.getIdx()), yword[at]);
      else vpmovzxwd(Xbyak::Ymm(x.getIdx()), xword[at]);
      vpslld(x, x, 16);
    }
  }

  /// One k, `offset` bytes into the rows of A.
  void step(int offset) {
    if (evex()) step_avx512(offset);
    else step_avx2(offset);
    prefetcht1(ptr[r10 + r13]);
    // Panels side by side are two lines.
    if (key_.panels == 4) prefetcht1(ptr[r10 + r13 + 64]);
    add(r10, r11);
  }
  void step_avx512(int offset) {
    for (int panel = 0; panel < key_.panels; ++panel) load_b(Xbyak::Zmm(24 + panel), panel, 0);
    for (int row = 0; row < key_.rows; ++row) {
      for (int panel = 0; panel < key_.panels; ++panel) {
        if (codes()) vpdpwssd(sum(row, panel, 0), Xbyak::Zmm(24 + panel), ptr_b[a_row(row) + offset]);
        else vfmadd231ps(sum(row, panel, 0), Xbyak::Zmm(24 + panel), ptr_b[a_row(row) + offset]);
      }
    }
  }
  void step_avx2(int offset) {
    for (int panel = 0; panel < key_.panels; ++panel) {
      load_b(Xbyak::Ymm(12), panel, 0);
      load_b(Xbyak::Ymm(13), panel, 1);
      for (int row = 0; row < key_.rows; ++row) {
        if (codes()) {
          add_pairs(row, panel, offset);
          continue;
        }
        const Xbyak::Ymm x(14 + row % 2);
        // Two rows or fewer keep their broadcasts for all panels.
        if (panel == 0 || key_.rows > 2) vbroadcastss(x, dword[a_row(row) + offset]);
        vfmadd231ps(sum(row, panel, 0), Xbyak::Ymm(12), x);
        vfmadd231ps(sum(row, panel, 1), Xbyak::Ymm(13), x);
      }
    }
  }

  void add_pairs(int row, int panel, int offset) {
    const Xbyak::Ymm a(14), product(15);
    vpbroadcastd(a, dword[a_row(row) + offset]);
    vpmaddwd(product, Xbyak::Ymm(12), a);
    vpaddd(sum(row, panel, 0), sum(row, panel, 0), product);
    vpmaddwd(a, Xbyak::Ymm(13), a);
    vpaddd(sum(row, panel, 1), sum(row, panel, 1), a);
  }

  const GemmFloatKey key_;
  const int vectors_;  // per panel
};

}  // namespace

Code emit_gemm_float(const GemmFloatKey& key) { return GemmFloatEmitter(key).emit(); }

}  // namespace nibble::jit
