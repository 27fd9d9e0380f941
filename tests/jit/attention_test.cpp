// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "jit/jit.h"
#include "tensor/cpu.h"
#include "tests/jit/kernel_runner.h"
#include "tests/support/compare.h"
#include "tests/support/emulator.h"
#include "tests/support/guarded.h"
#include "tests/support/reference.h"

namespace nibble {

namespace {

struct Model {
  int64_t heads = 4, kv_heads = 2, d = 64, window = 0;
  double softcap = 0;
  int64_t dv = d;
  DType pages = DType::f16;
  bool slopes = false, sinks = false;
  int64_t prefix = 0;  ///< positions that see each other
  int64_t tail = 0;    ///< of d: keys end in tails and are the values without them; dv is then d - tail
  int64_t k_size() const { return d - tail; }  ///< of one kv head in k, and in v:
  int64_t v_size() const { return tail > 0 ? tail : dv; }
  double scale() const { return 1 / std::sqrt(static_cast<double>(d)); }
  std::vector<float> slope_list() const {
    std::vector<float> list;
    for (int64_t h = 0; slopes && h < heads; ++h)
      list.push_back(std::exp2(-8.0f * static_cast<float>(h + 1) / static_cast<float>(heads)));
    return list;
  }
  std::vector<float> sink_list() const {
    std::vector<float> list;
    for (int64_t h = 0; sinks && h < heads; ++h) list.push_back(static_cast<float>(h % 5) - 1.5f);
    return list;
  }
  /// One kv head of a page; i8 pages carry a scale of 4 bytes per slot.
  int64_t page_bytes(int64_t size) const {
    return pages == DType::i8 ? 32 * (size + size % 2 + 4) : 32 * size * static_cast<int64_t>(element_bytes(pages));
  }
};

struct TokenRow {
  int32_t sequence, position;
};

std::vector<TokenRow> positions(int32_t sequence, int32_t begin, int32_t end) {
  std::vector<TokenRow> rows;
  for (int32_t p = begin; p < end; ++p) rows.push_back({sequence, p});
  return rows;
}

/// Uniform in [-1, 1), fixed by its arguments alone, with as many bits of mantissa as pages of the type hold exactly; 8
/// for i8.
float value(DType pages, int64_t sequence, int64_t position, int64_t i) {
  uint64_t x = 0x9e3779b97f4a7c15u + static_cast<uint64_t>(sequence) * 0xbf58476d1ce4e5b9u +
               static_cast<uint64_t>(position) * 0x94d049bb133111ebu + static_cast<uint64_t>(i) * 0xd6e8feb86659fd93u;
  for (int round = 0; round < 3; ++round) x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u;
  const int bits = pages == DType::f32 ? 24 : pages == DType::f16 ? 11 : 8;
  return static_cast<float>(static_cast<double>(x >> (64 - bits)) * std::ldexp(2.0, -bits) - 1);
}

/// Pages of some sequences, taken in a scattered order; memory that is not written holds NaN.
class Cache {
 public:
  Cache(const Model& model, int sequences, int max_pages)
      : model_(model), max_pages_(max_pages), pages_(sequences * max_pages), table_(pages_),
        k_(bytes(model.k_size())), v_(bytes(model.v_size())) {
    for (int i = 0; i < pages_; ++i)
      table_[i] = static_cast<int32_t>((i * 7 + 3) % pages_);  // 7 must not divide the count
    NIBBLE_CHECK(pages_ % 7 != 0, "pages");
    std::memset(k_.data(), 0xff, k_.size());
    std::memset(v_.data(), 0xff, v_.size());
  }

  /// Runs one call on these rows; q, k and v are column slices of one joined matrix. -> (rows, heads * dv)
  std::vector<float> run(std::string_view kernel, const std::vector<TokenRow>& rows, int threads) {
    const int64_t m = static_cast<int64_t>(rows.size()), q_size = model_.heads * model_.d,
                  k_size = model_.kv_heads * model_.k_size();
    const int64_t v_size = model_.kv_heads * model_.v_size(), y_size = model_.heads * model_.dv,
                  joined = q_size + k_size + v_size;
    test::Guarded x(static_cast<size_t>(m * joined) * 4), y(static_cast<size_t>(m * y_size) * 4);
    std::vector<int32_t> position(rows.size()), sequence(rows.size()), ends(rows.size());
    for (int64_t i = 0; i < m; ++i) {
      position[i] = rows[i].position;
      sequence[i] = rows[i].sequence;
      ends[i] = std::max(static_cast<int32_t>(model_.prefix), rows[i].position + 1);
      for (int64_t j = 0; j < joined; ++j) x.as<float>()[i * joined + j] = element(rows[i], j);
    }
    const auto columns = [&](int64_t begin, int64_t size) {
      Tensor t({Shape{m, size}, DType::f32}, x.as<float>() + begin);
      t.strides = Shape{joined, 1};
      return t;
    };
    const bool coded = model_.pages == DType::i8;
    const auto columns_of = [&](int64_t size) {
      return Shape{pages_, model_.kv_heads, coded ? size + size % 2 + 4 : size, 32};
    };
    const Shape k_shape = columns_of(model_.k_size());
    const Shape v_shape = model_.tail > 0 ? columns_of(model_.v_size())
                          : coded         ? Shape{pages_, model_.kv_heads, model_.dv + 4, 32}
                                          : Shape{pages_, model_.kv_heads, 32, model_.dv};
    auto slopes = model_.slope_list(), sinks = model_.sink_list();
    std::vector<Tensor> in = {columns(0, q_size),
                              columns(q_size, k_size),
                              columns(q_size + k_size, v_size),
                              Tensor({Shape{m}, DType::i32}, position.data()),
                              Tensor({Shape{m}, DType::i32}, sequence.data()),
                              Tensor({Shape{pages_ / max_pages_, max_pages_}, DType::i32}, table_.data()),
                              Tensor({k_shape, model_.pages}, k_.data()),
                              Tensor({v_shape, model_.pages}, v_.data())};
    if (model_.slopes) in.push_back(Tensor({Shape{model_.heads}, DType::f32}, slopes.data()));
    if (model_.sinks) in.push_back(Tensor({Shape{model_.heads}, DType::f32}, sinks.data()));
    if (model_.prefix > 0) in.push_back(Tensor({Shape{m}, DType::i32}, ends.data()));
    const Tensor out({Shape{m, y_size}, DType::f32}, y.data());
    const Attrs attrs{{"slopes", int64_t{model_.slopes}},
                      {"sinks", int64_t{model_.sinks}},
                      {"ends", int64_t{model_.prefix > 0}},
                      {"heads", model_.heads},
                      {"kv_heads", model_.kv_heads},
                      {"scale", model_.scale()},
                      {"window", model_.window},
                      {"softcap", model_.softcap},
                      {"tails", int64_t{model_.tail > 0}}};
    ThreadPool pool(threads);
    test::KernelRunner runner("attention", kernel, in, out.desc, attrs, threads);
    runner.run(pool, in, out);
    return {y.as<float>(), y.as<float>() + m * y_size};
  }
  /// What a call of all rows 0..length-1 gives, by the double reference; one sequence.
  test::Doubles expected(int32_t sequence, int64_t length) const {
    const int64_t q_size = model_.heads * model_.d, k_size = model_.kv_heads * model_.k_size(),
                  v_size = model_.kv_heads * model_.v_size();
    test::Floats q, k, v;
    for (int32_t p = 0; p < length; ++p) {
      for (int64_t j = 0; j < q_size; ++j) q.push_back(element({sequence, p}, j));
      for (int64_t j = 0; j < k_size; ++j) k.push_back(element({sequence, p}, q_size + j));
      for (int64_t j = 0; j < v_size; ++j) v.push_back(element({sequence, p}, q_size + k_size + j));
    }
    if (model_.pages == DType::i8) {
      as_coded(k, model_.k_size());
      as_coded(v, model_.v_size());
    }
    if (model_.tail > 0) {
      const test::Floats tails = std::exchange(v, k);
      k.clear();
      for (int64_t i = 0; i < length * model_.kv_heads; ++i) {
        k.insert(k.end(), v.begin() + i * model_.k_size(), v.begin() + (i + 1) * model_.k_size());
        k.insert(k.end(), tails.begin() + i * model_.tail, tails.begin() + (i + 1) * model_.tail);
      }
    }
    return test::attention(q, k, v,
                           {length, model_.heads, model_.kv_heads, model_.d, model_.scale(), model_.window,
                            model_.softcap, model_.dv, model_.slope_list(), model_.sink_list(), model_.prefix});
  }
  /// |value| <= 1. A score errs by at most `score` (its dot product, the scale, softcap and exponent), a weight by
  /// twice that relatively, and sums of n weights by n roundings.
  double bound(int64_t length) const {
    const double d = static_cast<double>(model_.d), size = d * model_.scale();
    const double score =
        test::f32_epsilon * (2 * d + 8) * size + (model_.softcap != 0 ? 8 * test::f32_epsilon * model_.softcap : 0);
    // A slope is rounded once, as is its product with a distance.
    const double slopes = model_.slopes ? 4 * test::f32_epsilon * static_cast<double>(length) : 0;
    // i8 pages: half a code of 1/32767 for each of d query elements; half a code of the block's largest weight for each
    // of its 128 weights, and the largest of all blocks sum to less than all weights do.
    const double code = model_.pages == DType::i8 ? 0.5 / 32767 : 0;
    return 4 * (score + slopes + code * size) + 2 * test::f32_epsilon * static_cast<double>(length + 32) + 128 * code;
  }

 private:
  float element(TokenRow row, int64_t j) const { return value(model_.pages, row.sequence, row.position, j); }
  size_t bytes(int64_t size) const { return static_cast<size_t>(pages_ * model_.kv_heads * model_.page_bytes(size)); }
  /// What i8 pages hold of rows of `size`.
  static void as_coded(test::Floats& x, int64_t size) {
    for (size_t at = 0; at < x.size(); at += static_cast<size_t>(size)) test::as_i8_page(x.data() + at, size);
  }
  Model model_;
  int64_t max_pages_, pages_;
  std::vector<int32_t> table_;
  test::Guarded k_, v_;
};

class Attention : public testing::TestWithParam<std::pair<Isa, const char*>> {
 protected:
  void SetUp() override {
    jit::register_kernels();
    if (GetParam().first > max_isa()) GTEST_SKIP() << "needs " << name(GetParam().first);
    if (!supported(GetParam().first)) emulator::install();
  }
  const char* kernel() const { return GetParam().second; }
  bool emulated() const { return !supported(GetParam().first); }
  void expect_reference(const Model& model, int32_t length, int threads) {
    Cache cache(model, 1, (length + 31) / 32 + ((length + 31) / 32 % 7 == 0));
    const auto got = cache.run(kernel(), positions(0, 0, length), threads);
    EXPECT_TRUE(test::close(got, cache.expected(0, length), cache.bound(length),
                            message("d ", model.d, ", ", model.heads, "/", model.kv_heads, " heads, ", length)));
  }
};

TEST_P(Attention, MatchesReferenceForHeadSizes) {
  for (int64_t d : {1, 4, 6, 8, 16, 20, 64, 80, 96, 100, 128, 256})
    expect_reference({.heads = 2, .kv_heads = 1, .d = d}, 45, 1);
}
TEST_P(Attention, MatchesReferenceForValuesOfAnotherSize) {
  for (auto [d, dv] : {std::pair{24, 16}, {192, 128}, {6, 20}, {16, 3}}) {
    expect_reference({.heads = 4, .kv_heads = 2, .d = d, .dv = dv}, 45, 1);
  }
}
TEST_P(Attention, MatchesReferenceForPageTypes) {
  for (DType pages : {DType::f32, DType::bf16, DType::i8}) {
    for (int64_t d : {4, 7, 16, 20, 64, 100, 600}) {
      if (d == 600 && emulated()) continue;
      expect_reference({.heads = 2, .kv_heads = 1, .d = d, .pages = pages}, 45, 1);
    }
    expect_reference({.heads = 4,
                      .kv_heads = 2,
                      .d = 16,
                      .window = 40,
                      .softcap = 1,
                      .dv = 24,
                      .pages = pages,
                      .slopes = true,
                      .sinks = true},
                     700, 2);
  }
}
TEST_P(Attention, MatchesReferenceForTails) {
  for (DType pages : {DType::f32, DType::f16, DType::bf16, DType::i8}) {
    for (auto [dv, tail] : {std::pair{16, 8}, {20, 3}, {64, 16}, {1, 1}}) {
      expect_reference({.heads = 14, .kv_heads = 1, .d = dv + tail, .dv = dv, .pages = pages, .tail = tail}, 45, 2);
    }
    expect_reference(
        {.heads = 4, .kv_heads = 2, .d = 28, .softcap = 1, .dv = 24, .pages = pages, .sinks = true, .tail = 4},
        emulated() ? 40 : 600, 3);
  }
}
TEST_P(Attention, SlicesOfHeadsGiveSameBits) {
  const int32_t length = emulated() ? 33 : 600;
  for (auto [tail, pages] : {std::pair{0, DType::f16}, {8, DType::f16}, {8, DType::i8}}) {
    if (emulated() && pages == DType::i8) continue;
    const Model model{.heads = 50, .kv_heads = 1, .d = 24, .dv = 24 - tail, .pages = pages, .tail = tail};
    Cache whole(model, 1, 20);
    const auto want = whole.run(kernel(), positions(0, 0, length), 1);
    for (int threads : {1, 2, 5}) {
      Cache cache(model, 1, 20);
      auto got = cache.run(kernel(), positions(0, 0, length - 1), threads);
      const auto last = cache.run(kernel(), positions(0, length - 1, length), threads);
      got.insert(got.end(), last.begin(), last.end());
      EXPECT_TRUE(test::same_bits(got, want, message(name(pages), ", threads ", threads, ", tails of ", tail)));
    }
  }
}
TEST_P(Attention, MatchesReferenceWithSlopesSinksAndPrefix) {
  expect_reference({.heads = 6, .kv_heads = 2, .d = 16, .slopes = true}, 600, 2);
  expect_reference({.heads = 6, .kv_heads = 2, .d = 16, .window = 50, .sinks = true}, 600, 2);
  for (int64_t prefix : {1, 31, 33, 64, 520})
    expect_reference({.heads = 2, .kv_heads = 1, .d = 16, .prefix = prefix}, 600, 2);
}
TEST_P(Attention, OptionsTogetherGiveSameBitsInChunks) {
  for (DType pages : {DType::f32, DType::f16, DType::bf16, DType::i8}) {
    // The chunks begin behind the prefix, which must be in one call.
    const Model model{.heads = 4,
                      .kv_heads = 2,
                      .d = 12,
                      .window = 530,
                      .dv = 20,
                      .pages = pages,
                      .slopes = true,
                      .sinks = true,
                      .prefix = 40};
    const int32_t length = emulated() ? 70 : 600;
    Cache whole(model, 1, 20);
    const auto want = whole.run(kernel(), positions(0, 0, length), 1);
    for (int chunk : {1, 9, 33}) {
      if (emulated() && chunk != 9) continue;
      Cache cache(model, 1, 20);
      auto got = cache.run(kernel(), positions(0, 0, 40), 2);
      for (int32_t p = 40; p < length; p += chunk) {
        const auto part = cache.run(kernel(), positions(0, p, std::min(p + chunk, length)), 2);
        got.insert(got.end(), part.begin(), part.end());
      }
      EXPECT_TRUE(test::same_bits(got, want, message(name(pages), ", chunks of ", chunk)));
    }
  }
}
TEST_P(Attention, MatchesReferenceForHeadCounts) {
  for (auto [heads, kv_heads] : {std::pair{1, 1}, {3, 3}, {6, 2}, {7, 1}, {14, 2}, {64, 1}}) {
    expect_reference({.heads = heads, .kv_heads = kv_heads, .d = 16}, 70, 2);
  }
}
TEST_P(Attention, MatchesReferenceBeyondOneRange) {
  for (int length : {31, 32, 33, 512, 513, 1100}) expect_reference({.heads = 2, .kv_heads = 1, .d = 16}, length, 2);
}
TEST_P(Attention, MatchesReferenceWithWindowAndSoftcap) {
  for (int64_t window : {1, 5, 32, 33, 600})
    expect_reference({.heads = 2, .kv_heads = 2, .d = 16, .window = window}, 700, 2);
  expect_reference({.heads = 2, .kv_heads = 2, .d = 32, .softcap = 0.5}, 100, 1);
}

TEST_P(Attention, ChunksAndThreadsGiveSameBits) {
  for (int64_t window : {0, 40, 520}) {
    // An emulated instruction takes a microsecond.
    if (emulated() && window == 520) continue;
    const Model model{.heads = emulated() ? 2 : 6,
                      .kv_heads = emulated() ? 1 : 2,
                      .d = emulated() ? 8 : 24,
                      .window = window,
                      .softcap = window == 40 ? 1.0 : 0.0};
    const int32_t length = emulated() ? 540 : 1090;
    Cache whole(model, 1, 36);
    const auto want = whole.run(kernel(), positions(0, 0, length), 1);
    for (int chunk : {1, 7, 64, 500}) {
      for (int threads : {1, 2}) {
        if (emulated() ? chunk < 64 || threads == 1 : chunk == 1 && threads == 1 && window != 0) continue;
        Cache cache(model, 1, 36);
        std::vector<float> got;
        for (int32_t p = 0; p < length; p += chunk) {
          const auto part = cache.run(kernel(), positions(0, p, std::min(p + chunk, length)), threads);
          got.insert(got.end(), part.begin(), part.end());
        }
        EXPECT_TRUE(
            test::same_bits(got, want, message("chunks of ", chunk, ", threads ", threads, ", window ", window)));
      }
    }
  }
}

TEST_P(Attention, BatchesOfSequencesGiveSameBits) {
  const Model model{.heads = 4, .kv_heads = 1, .d = 32};
  const int32_t lengths[] = {3, 530, emulated() ? 33 : 1040, 64};
  std::vector<TokenRow> prompts, batch;
  std::vector<float> want;
  for (int32_t s = 0; s < 4; ++s) {
    Cache alone(model, 4, 34);
    alone.run(kernel(), positions(s, 0, lengths[s]), 1);
    const auto last = alone.run(kernel(), {{s, lengths[s]}}, 1);
    want.insert(want.end(), last.begin(), last.end());
    const auto rows = positions(s, 0, lengths[s]);
    prompts.insert(prompts.end(), rows.begin(), rows.end());
    batch.push_back({s, lengths[s]});
  }
  for (int threads : {1, 2, 3}) {
    Cache cache(model, 4, 34);
    cache.run(kernel(), prompts, threads);
    EXPECT_TRUE(test::same_bits(cache.run(kernel(), batch, threads), want, message("threads ", threads)));
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, Attention,
                         testing::Values(std::pair{Isa::avx2, "attention_avx2"},
                                         std::pair{Isa::avx512vnni, "attention_avx512"}),
                         [](const auto& isa) { return std::string(name(isa.param.first)); });

TEST(AttentionAvx512, GivesTheBitsOfAvx2) {
  jit::register_kernels();
  if (max_isa() < Isa::avx512vnni) GTEST_SKIP() << "needs avx512vnni";
  if (!supported(Isa::avx512vnni)) emulator::install();
  for (DType pages : {DType::f32, DType::f16, DType::bf16, DType::i8}) {
    const Model model{.heads = 6, .kv_heads = 2, .d = 40, .pages = pages};
    Cache a(model, 1, 20), b(model, 1, 20);
    EXPECT_TRUE(test::same_bits(a.run("attention_avx512", positions(0, 0, 70), 1),
                                b.run("attention_avx2", positions(0, 0, 70), 1), std::string(name(pages))));
  }
}

}  // namespace

}  // namespace nibble
