// SPDX-License-Identifier: Apache-2.0
#include "jit/peak.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "jit/amx_tiles.h"
#include "jit/code_cache.h"
#include "jit/generator.h"
#include "tensor/buffer.h"
#include "tensor/check.h"
#include "tensor/parallel.h"

namespace nibble::jit {

namespace {

struct PeakKey {
  Isa isa;
};
struct FloatPeakKey {
  Isa isa;
};
struct MixPeakKey {
  int isa, group;  // an int, for a key without padding
};
struct PeakArgs {
  int64_t count = 0;
};

constexpr int dots_per_loop = 24;
constexpr int64_t read_bytes_per_loop = 512;

// Twelve independent sums: enough for the latency of every inner product (at most 5 cycles, two a cycle). Four tiles
// are enough too: 52 cycles, one in 16.
class PeakEmitter : public Generator {
 public:
  PeakEmitter(Isa isa_wanted, bool floats) : Generator(isa_wanted), floats_(floats) {
    prologue();
    mov(rax, arg(rdi, &PeakArgs::count));
    for (int i = 0; i < vector_count(); ++i) zero(vec(i));
    if (isa_wanted == Isa::amxint8) {
      ldtilecfg(constant(tile_config(16, 64)));
      for (int i = 0; i < 8; ++i) tilezero(Xbyak::Tmm(i));
    }
    Xbyak::Label loop;
    align(32);
    L(loop);
    for (int i = 0; i < dots_per_loop; ++i) dot(vec(i % 12), i);
    dec(rax);
    jnz(loop, T_NEAR);
    if (isa_wanted == Isa::amxint8) tilerelease();
    epilogue();
  }

 private:
  void dot(const Xbyak::Xmm& sum, int i) {
    if (floats_) {
      vfmadd231ps(sum, vec(14), vec(15));
    } else if (isa() == Isa::avx2) {
      const Xbyak::Xmm product = vec(12 + i % 2);
      vpmaddubsw(product, vec(14), vec(15));
      vpaddw(sum, sum, product);
    } else if (isa() == Isa::avxvnni) {
      vpdpbusd(sum, vec(14), vec(15), Xbyak::VexEncoding);
    } else if (isa() == Isa::amxint8) {
      tdpbssd(Xbyak::Tmm(i % first_act_tile), Xbyak::Tmm(first_act_tile), Xbyak::Tmm(first_weight_tile));
    } else {
      vpdpbusd(sum, vec(14), vec(15));
    }
  }
  bool floats_;
};

constexpr int mix_sums = 8;

class MixPeakEmitter : public Generator {
 public:
  MixPeakEmitter(Isa isa_wanted, int group) : Generator(isa_wanted) {
    prologue();
    mov(rax, arg(rdi, &PeakArgs::count));
    for (int i = 0; i < 16; ++i) zero(vec(i));
    Xbyak::Label loop;
    align(32);
    L(loop);
    for (int step = 0; step < group / 4; ++step) products(step);
    for (int i = 0; i < mix_sums; ++i) {
      vpaddd(vec(i), vec(i), weights_);
      vfmsub213ps(vec(i), weights_, scale_);
      vfmadd213ps(vec(i), scale_, act_);
    }
    dec(rax);
    jnz(loop, T_NEAR);
    epilogue();
  }

 private:
  /// Four k of all sums, in the kernels' order: two products, then their two additions.
  void products(int step) {
    const bool int16 = isa() == Isa::avx2;
    for (int i = 0; i < mix_sums; ++i) {
      if (isa() == Isa::avxvnni) {
        vpdpbusd(vec(i), weights_, act_, Xbyak::VexEncoding);
      } else if (!int16) {
        vpdpbusd(vec(i), weights_, act_);
      } else if (step % 8 == 0) {
        vpmaddubsw(vec(i), weights_, act_);
      } else {
        vpmaddubsw(vec(8 + i % 2), weights_, act_);
        if (i % 2 == 0) continue;
        for (int j = 0; j < 2; ++j) vpaddw(vec(i - 1 + j), vec(i - 1 + j), vec(8 + j));
      }
    }
    if (!int16 || step % 8 != 7) return;
    for (int i = 0; i < mix_sums; ++i) {
      vpmaddwd(vec(i), vec(i), act_);
      if (step > 7) vpaddd(vec(i), vec(i), scale_);
    }
  }

  const Xbyak::Xmm weights_ = vec(12), act_ = vec(13), scale_ = vec(14);
};

struct ReadKey {
  Isa isa;
};
struct ReadArgs {
  const void* data = nullptr;
  int64_t loops = 0;
};

class ReadEmitter : public Generator {
 public:
  ReadEmitter() : Generator(Isa::avx2) {
    prologue();
    mov(rsi, arg(rdi, &ReadArgs::data));
    mov(rax, arg(rdi, &ReadArgs::loops));
    Xbyak::Label loop;
    align(32);
    L(loop);
    for (int at = 0; at < read_bytes_per_loop; at += 64) {
      prefetcht0(ptr[rsi + (at + 4096)]);
      vmovdqu(vec(0), ptr[rsi + at]);
      vmovdqu(vec(1), ptr[rsi + (at + 32)]);
    }
    add(rsi, static_cast<int>(read_bytes_per_loop));
    dec(rax);
    jnz(loop, T_NEAR);
    epilogue();
  }
};

double seconds(ThreadPool& pool, FunctionRef<void(const Worker&)> body) {
  const auto start = std::chrono::steady_clock::now();
  pool.run(body);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

template <class Measure>
double best_of(int runs, Measure measure) {
  double best = 0;
  for (int i = 0; i < runs; ++i) best = std::max(best, measure());
  return best;
}

/// The best for as long as the system may take to spread new threads over idle cores; one thread needs no spreading.
template <class Measure>
double best_of_while(int threads, Measure measure) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(threads > 1 ? 60 : 5);
  double best = 0;
  do {
    best = std::max(best, measure());
  } while (std::chrono::steady_clock::now() < end);
  return best;
}

}  // namespace

double measure_read_bandwidth(int threads) {
  NIBBLE_CHECK(supported(Isa::avx2), "read bandwidth is measured with AVX2, which this CPU lacks");
  const Code& code = code_cache().get(ReadKey{Isa::avx2}, [] { return ReadEmitter().finish("peak_read"); });
  const Buffer buffer(std::max<size_t>(size_t{256} << 20, 4 * cache_sizes().l3));
  ThreadPool pool(threads);
  const size_t share = buffer.size() / static_cast<size_t>(threads) / 4096 * 4096;
  pool.run([&](const Worker& w) { std::memset(buffer.data() + share * static_cast<size_t>(w.index), 1, share); });
  return best_of(6, [&] {
    const double time = seconds(pool, [&](const Worker& w) {
      code(ReadArgs{buffer.data() + share * static_cast<size_t>(w.index),
                    static_cast<int64_t>(share) / read_bytes_per_loop});
    });
    return static_cast<double>(share) * threads / time;
  });
}

double measure_int8_peak(Isa isa, int threads) {
  NIBBLE_CHECK(isa != Isa::generic && supported(isa), "int8 peak of ", name(isa), ": not supported by this CPU");
  const Code& code = code_cache().get(PeakKey{isa}, [&] { return PeakEmitter(isa, false).finish("peak_int8"); });
  ThreadPool pool(threads);
  const int loops = isa == Isa::amxint8 ? 1000 : 20000;
  const double per_dot = isa == Isa::amxint8 ? 2 * 16 * 16 * 64 : isa == Isa::avx512vnni ? 128 : 64;
  const double operations = per_dot * dots_per_loop * loops * threads;
  return best_of_while(threads,
                       [&] { return operations / seconds(pool, [&](const Worker&) { code(PeakArgs{loops}); }); });
}

double measure_int8_mix_peak(Isa isa, int threads, int group) {
  NIBBLE_CHECK(isa != Isa::generic && isa != Isa::amxint8 && supported(isa), "int8 mix peak of ", name(isa),
               ": no such kernel or not supported by this CPU");
  NIBBLE_CHECK(group > 0 && group % 32 == 0, "int8 mix peak: expected a multiple of 32, found group ", group);
  const auto emit = [&] { return MixPeakEmitter(isa, group).finish("peak_int8_mix"); };
  const Code& code = code_cache().get(MixPeakKey{static_cast<int>(isa), group}, emit);
  ThreadPool pool(threads);
  const int loops = 500'000 / group;
  const double operations = (isa == Isa::avx512vnni ? 32.0 : 16.0) * mix_sums * group * loops * threads;
  return best_of_while(threads,
                       [&] { return operations / seconds(pool, [&](const Worker&) { code(PeakArgs{loops}); }); });
}

double measure_f32_peak(Isa isa, int threads) {
  NIBBLE_CHECK(isa != Isa::generic && supported(isa), "f32 peak of ", name(isa), ": not supported by this CPU");
  const Code& code = code_cache().get(FloatPeakKey{isa}, [&] { return PeakEmitter(isa, true).finish("peak_f32"); });
  ThreadPool pool(threads);
  constexpr int64_t loops = 20000;
  const double operations = (isa >= Isa::avx512vnni ? 32.0 : 16.0) * dots_per_loop * loops * threads;
  return best_of_while(threads,
                       [&] { return operations / seconds(pool, [&](const Worker&) { code(PeakArgs{loops}); }); });
}

}  // namespace nibble::jit
