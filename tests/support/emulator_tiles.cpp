// SPDX-License-Identifier: Apache-2.0
// AMX instructions of the emulator on a software copy of the tile registers, one set a thread as on a CPU. What a CPU
// refuses (#UD or #GP: no configuration, shapes that do not fit, reserved bytes), and what it accepts but only a
// mistake leads to, stops the process with a message.
#include <algorithm>
#include <atomic>

#include "tests/support/emulator.h"
#include "tests/support/emulator_state.h"

namespace nibble::emulator {

namespace {

constexpr int tile_count = 8, max_rows = 16, max_row_bytes = 64;

struct Tile {
  int rows = 0, row_bytes = 0;
  uint8_t bytes[max_rows][max_row_bytes] = {};

  template <class T>
  T get(int row, int i) const {
    T v;
    std::memcpy(&v, &bytes[row][static_cast<size_t>(i) * sizeof(T)], sizeof(T));
    return v;
  }
};

std::atomic<int> configured_threads{0};

struct Tiles {
  bool configured = false;
  Tile tile[tile_count];

  ~Tiles() { release(); }
  void release() {
    if (configured) --configured_threads;
    configured = false;
    std::ranges::fill(tile, Tile());
  }
};
thread_local Tiles tiles;

class Instruction {
 public:
  Instruction(State& s, const Decoded& d) : s_(s), d_(d) {}

  bool execute() {
    switch (d_.in.mnemonic) {
      case ZYDIS_MNEMONIC_LDTILECFG: configure(); return true;
      case ZYDIS_MNEMONIC_STTILECFG: store_configuration(); return true;
      case ZYDIS_MNEMONIC_TILERELEASE: tiles.release(); return true;
      case ZYDIS_MNEMONIC_TILEZERO: clear(tile(0)); return true;
      case ZYDIS_MNEMONIC_TILELOADD: case ZYDIS_MNEMONIC_TILELOADDT1: load(); return true;
      case ZYDIS_MNEMONIC_TILESTORED: store(); return true;
      case ZYDIS_MNEMONIC_TDPBSSD: dot<int8_t, int8_t>(); return true;
      case ZYDIS_MNEMONIC_TDPBSUD: dot<int8_t, uint8_t>(); return true;
      case ZYDIS_MNEMONIC_TDPBUSD: dot<uint8_t, int8_t>(); return true;
      case ZYDIS_MNEMONIC_TDPBUUD: dot<uint8_t, uint8_t>(); return true;
      default: return false;
    }
  }

 private:
  [[noreturn]] void refuse(const char* why) const { stop(d_, why); }

  uint64_t memory(int i) const {
    const ZydisDecodedOperand& op = d_.op[i];
    uint64_t a = op.mem.disp.has_displacement ? static_cast<uint64_t>(op.mem.disp.value) : 0;
    if (op.mem.base == ZYDIS_REGISTER_RIP) a += s_.rip + d_.in.length;
    else if (op.mem.base != ZYDIS_REGISTER_NONE) a += s_.gpr[gpr_index(op.mem.base)];
    return a;
  }
  // The index register is the stride, not a part of the address.
  uint8_t* row(int operand, int r) const {
    const ZydisDecodedOperand& op = d_.op[operand];
    if (op.mem.index == ZYDIS_REGISTER_NONE) refuse("tile without a stride");
    const uint64_t stride = s_.gpr[gpr_index(op.mem.index)] * op.mem.scale;
    return reinterpret_cast<uint8_t*>(memory(operand) + stride * static_cast<uint64_t>(r));
  }

  Tile& tile(int i) const {
    if (!tiles.configured) refuse("tiles are not configured");
    const ZydisDecodedOperand& op = d_.op[i];
    if (op.type != ZYDIS_OPERAND_TYPE_REGISTER || op.reg.value < ZYDIS_REGISTER_TMM0 ||
        op.reg.value > ZYDIS_REGISTER_TMM7) {
      refuse("operand");
    }
    Tile& t = tiles.tile[op.reg.value - ZYDIS_REGISTER_TMM0];
    if (t.rows == 0) refuse("a tile that the configuration leaves out");
    return t;
  }
  static void clear(Tile& t) { std::memset(t.bytes, 0, sizeof t.bytes); }

  void configure() const {
    uint8_t c[64];
    std::memcpy(c, reinterpret_cast<const void*>(memory(0)), sizeof c);
    tiles.release();
    if (c[0] == 0) return;
    if (c[0] != 1) refuse("palette is neither 0 nor 1");
    if (c[1] != 0) refuse("start row is not 0");
    for (int i = 2; i < 64; ++i) {
      const bool used = (i >= 16 && i < 16 + 2 * tile_count) || (i >= 48 && i < 48 + tile_count);
      if (!used && c[i] != 0) refuse("reserved bytes of the configuration are not 0");
    }
    for (int t = 0; t < tile_count; ++t) {
      const int row_bytes = c[16 + 2 * t] | c[17 + 2 * t] << 8, rows = c[48 + t];
      if (rows > max_rows) refuse("more than 16 rows");
      if (row_bytes > max_row_bytes) refuse("more than 64 bytes a row");
      if ((rows == 0) != (row_bytes == 0)) refuse("a tile with rows but no bytes, or bytes but no rows");
      tiles.tile[t].rows = rows;
      tiles.tile[t].row_bytes = row_bytes;
    }
    tiles.configured = true;
    ++configured_threads;
  }

  void store_configuration() const {
    uint8_t c[64] = {};
    c[0] = tiles.configured;
    for (int t = 0; t < tile_count; ++t) {
      c[16 + 2 * t] = static_cast<uint8_t>(tiles.tile[t].row_bytes);
      c[48 + t] = static_cast<uint8_t>(tiles.tile[t].rows);
    }
    std::memcpy(reinterpret_cast<void*>(memory(0)), c, sizeof c);
  }

  void load() const {
    Tile& t = tile(0);
    clear(t);
    for (int r = 0; r < t.rows; ++r) std::memcpy(t.bytes[r], row(1, r), static_cast<size_t>(t.row_bytes));
  }

  void store() const {
    const Tile& t = tile(1);
    for (int r = 0; r < t.rows; ++r) std::memcpy(row(0, r), t.bytes[r], static_cast<size_t>(t.row_bytes));
  }

  // sums (m, n) += a (m, k) * b, b as (k / 4, n) of four k each; sums wrap as on a CPU. The decoder refuses one tile
  // named twice.
  template <class A, class B>
  void dot() const {
    Tile& sums = tile(0);
    const Tile &a = tile(1), &b = tile(2);
    if (sums.row_bytes % 4 || a.row_bytes % 4 || b.row_bytes % 4) refuse("rows of a tile are not whole dwords");
    if (sums.rows != a.rows) refuse("rows of the sums are not those of the first factor");
    if (sums.row_bytes != b.row_bytes) refuse("columns of the sums are not those of the second factor");
    if (a.row_bytes / 4 != b.rows) refuse("k of the first factor is not that of the second");
    for (int m = 0; m < sums.rows; ++m) {
      uint32_t total[max_row_bytes / 4];
      std::memcpy(total, sums.bytes[m], sizeof total);
      for (int k = 0; k < b.rows; ++k) {
        for (int n = 0; n < sums.row_bytes / 4; ++n) {
          int sum = 0;
          for (int j = 0; j < 4; ++j) sum += a.get<A>(m, 4 * k + j) * b.get<B>(k, 4 * n + j);
          total[n] += static_cast<uint32_t>(sum);
        }
      }
      std::memcpy(sums.bytes[m], total, sizeof total);
    }
  }

  State& s_;
  const Decoded& d_;
};

}  // namespace

bool execute_tile(State& s, const Decoded& d) { return Instruction(s, d).execute(); }

int threads_with_tiles() { return configured_threads; }

}  // namespace nibble::emulator
