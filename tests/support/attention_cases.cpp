// SPDX-License-Identifier: Apache-2.0
// Cases of the op attention.
#include <algorithm>
#include <numeric>
#include <utility>

#include "tests/support/op_maker.h"

namespace nibble::test {

namespace {

struct PagedKeys {
  int64_t max_pages, kv_heads, d, dv;
  int64_t tail;  ///< keys end in so many elements of v_pages and are the values without them; 0: v_pages hold values
  DType dtype;
  Ints table;
  Floats k_pages, v_pages;

  float rounded(float x) const {
    if (dtype == DType::f32) return x;
    return dtype == DType::bf16 ? bf16_to_f32(f32_to_bf16(x)) : f16_to_f32(f32_to_f16(x));
  }
  /// Position p of sequence s into the pages.
  void put(int64_t s, int64_t p, const float* k, const float* v) {
    const int64_t page = table[s * max_pages + p / 32];
    const auto column = [&](int64_t e, int64_t size) {
      return ((page * kv_heads + e / size) * size + e % size) * 32 + p % 32;
    };
    for (int64_t e = 0; e < kv_heads * d; e++) {
      if (e % d < d - tail) k_pages[column(e / d * (d - tail) + e % d, d - tail)] = k[e];
      else v_pages[column(e / d * tail + e % d - (d - tail), tail)] = k[e];
    }
    for (int64_t e = 0; tail == 0 && e < kv_heads * dv; e++)
      v_pages[((page * kv_heads + e / dv) * 32 + p % 32) * dv + e % dv] = v[e];
  }
};

PagedKeys paged_keys(Maker& mk, int64_t max_pages, int64_t kv_heads, int64_t d, int64_t dv, int64_t tail) {
  const int64_t pages = 2 * max_pages, k = d - tail, v = tail > 0 ? tail : dv;
  PagedKeys keys{max_pages,
                 kv_heads,
                 d,
                 dv,
                 tail,
                 mk.dtype,
                 Ints(pages),
                 Floats(pages * kv_heads * k * 32, 7.0f),
                 Floats(pages * kv_heads * v * 32, 7.0f)};
  std::iota(keys.table.begin(), keys.table.end(), 0);
  for (int64_t i = pages - 1; i > 0; i--) std::swap(keys.table[i], keys.table[mk.random.integer(0, i)]);
  return keys;
}

/// 0: ALiBi and sinks; 1: values of another size, with tails at odd sizes; 2: a window and sinks; 3: a soft cap and a
/// prefix that sees itself.
AttentionShape attention_shape(Maker& mk) {
  const int64_t kv_heads = mk.variant == 0   ? 3
                           : mk.variant == 1 ? 1
                                             : 2,
                heads = mk.variant == 0 ? 3 : 6, d = mk.size + 1;
  AttentionShape shape{0, heads, kv_heads, d, 0.3, mk.variant == 2 ? mk.size + 4 : 0, mk.variant == 3 ? 2.0 : 0.0};
  shape.dv = mk.variant == 1 ? mk.size - 2 : d;
  if (mk.variant == 0) shape.slopes = mk.random.floats(heads, 0, 0.5);
  if (mk.variant % 2 == 0) shape.sinks = mk.random.floats(heads, -3, 3);
  return shape;
}

}  // namespace

/// Two sequences whose rows are interleaved, in shuffled pages; the last rows of each are the queries. With a prefix
/// it is all rows of the second sequence.
void attention_case(Maker& mk) {
  AttentionShape shape = attention_shape(mk);
  const int64_t heads = shape.heads, kv_heads = shape.kv_heads, d = shape.d, dv = shape.dv;
  const int64_t lengths[2] = {6 * mk.size + 3, mk.size}, queries[2] = {mk.size, mk.variant == 3 ? mk.size : 3};
  const int64_t tail = mk.variant == 1 && mk.size % 2 == 1 ? d - dv : 0;
  PagedKeys keys = paged_keys(mk, lengths[0] / 32 + 2, kv_heads, d, dv, tail);
  Floats q, k, v;
  Ints positions, sequences, ends;
  Doubles want;
  for (int32_t s = 0; s < 2; s++) {
    shape.length = lengths[s];
    shape.prefix = mk.variant == 3 && s == 1 ? lengths[1] - 2 : 0;
    Floats all_q = mk.random.floats(lengths[s] * heads * d), all_k, all_v;
    for (float x : mk.random.floats(lengths[s] * kv_heads * d)) all_k.push_back(keys.rounded(x));
    for (float x : mk.random.floats(lengths[s] * kv_heads * dv)) all_v.push_back(keys.rounded(x));
    for (size_t i = 0; tail > 0 && i < all_v.size(); i++) all_v[i] = all_k[i / dv * d + i % dv];
    const Doubles full = attention(all_q, all_k, all_v, shape);
    for (int64_t p = 0; p < lengths[s]; p++) {
      const auto k_row = all_k.begin() + p * kv_heads * d, v_row = all_v.begin() + p * kv_heads * dv;
      if (p < lengths[s] - queries[s]) {
        keys.put(s, p, &*k_row, &*v_row);
        continue;
      }
      q.insert(q.end(), all_q.begin() + p * heads * d, all_q.begin() + (p + 1) * heads * d);
      for (int64_t h = 0; h < kv_heads; h++) {
        const auto head = k_row + h * d, tails = head + (d - tail);
        k.insert(k.end(), head, tails);
        v.insert(v.end(), tail > 0 ? tails : v_row + h * dv, tail > 0 ? head + d : v_row + (h + 1) * dv);
      }
      want.insert(want.end(), full.begin() + p * heads * dv, full.begin() + (p + 1) * heads * dv);
      positions.push_back(static_cast<int32_t>(p));
      sequences.push_back(s);
      ends.push_back(static_cast<int32_t>(std::max(shape.prefix, p + 1)));
    }
  }
  const int64_t m = queries[0] + queries[1], pages = 2 * keys.max_pages;
  mk.add({m, heads * d}, DType::f32, q);
  const int64_t k_size = d - tail, v_size = tail > 0 ? tail : dv;
  mk.add({m, kv_heads * k_size}, DType::f32, k);
  mk.add({m, kv_heads * v_size}, DType::f32, v);
  mk.ints({m}, positions);
  mk.ints({m}, sequences);
  mk.ints({2, keys.max_pages}, keys.table);
  mk.add({pages, kv_heads, k_size, 32}, keys.dtype, keys.k_pages);
  mk.add(tail > 0 ? Shape{pages, kv_heads, tail, 32} : Shape{pages, kv_heads, 32, dv}, keys.dtype, keys.v_pages);
  mk.result.attrs = {{"heads", heads}, {"kv_heads", kv_heads}, {"scale", shape.scale}, {"window", shape.window},
                     {"softcap", shape.softcap}};
  const auto optional = [&](const char* name, bool present) { mk.result.attrs.set(name, int64_t{present}); };
  optional("slopes", !shape.slopes.empty());
  optional("sinks", !shape.sinks.empty());
  optional("ends", mk.variant == 3);
  optional("tails", tail > 0);
  if (!shape.slopes.empty()) mk.add({heads}, DType::f32, shape.slopes);
  if (!shape.sinks.empty()) mk.add({heads}, DType::f32, shape.sinks);
  if (mk.variant == 3) mk.ints({m}, ends);
  mk.want(std::move(want), 2);
}

}  // namespace nibble::test
