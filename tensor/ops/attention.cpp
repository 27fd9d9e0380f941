// SPDX-License-Identifier: Apache-2.0
// attention over a paged f16 cache, causal, with grouped kv heads, an optional sliding window and soft cap. Inputs and
// attributes as in docs/ops.md. First stores k and v of every row at its position (rounded to f16), then row i attends
// to positions max(0, p - window + 1) .. p of its own sequence, read back from the pages. q, k and v may be strided.
// A row whose sequence, position or page lies outside the tables stores nothing and gives zeros, and earlier places
// without a page are not attended to (callers check).
#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

constexpr int64_t page_slots = 32;
constexpr int64_t max_head_dim = 1024;  // so that the sums of one head fit on the stack

enum Input : int { q_in, k_in, v_in, positions_in, sequence_in, page_table_in, k_pages_in, v_pages_in, inputs };

TensorDesc infer(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_count(in, inputs, inputs);
  constexpr std::string_view names[] = {"q", "k", "v", "positions", "sequence", "page_table", "k_pages", "v_pages"};
  constexpr DType types[] = {DType::f32, DType::f32, DType::f32, DType::i32, DType::i32, DType::i32, DType::f16, DType::f16};
  constexpr int ranks[] = {2, 2, 2, 1, 1, 2, 4, 4};
  for (int i = 0; i < inputs; ++i) {
    check_dtype(in[i], types[i], names[i]);
    check_rank(in[i], ranks[i], names[i]);
  }
  const int64_t heads = attrs.i("heads"), kv_heads = attrs.i("kv_heads"), m = in[q_in].shape[0];
  NIBBLE_CHECK(heads >= 1 && kv_heads >= 1 && heads % kv_heads == 0, "heads ", heads,
               " must be a multiple of kv_heads ", kv_heads);
  NIBBLE_CHECK(in[q_in].shape[1] % heads == 0, "q ", to_string(in[q_in]), ": expected a width that is a multiple of heads ",
               heads);
  const int64_t d = in[q_in].shape[1] / heads, pages = in[k_pages_in].shape[0];
  NIBBLE_CHECK(d >= 1 && d <= max_head_dim, "q ", to_string(in[q_in]), ": head size ", d, ", expected 1 to ", max_head_dim);
  check_shape(in[k_in], {m, kv_heads * d}, "k");
  check_shape(in[v_in], {m, kv_heads * d}, "v");
  check_shape(in[positions_in], {m}, "positions");
  check_shape(in[sequence_in], {m}, "sequence");
  check_shape(in[k_pages_in], {pages, kv_heads, d, page_slots}, "k_pages");
  check_shape(in[v_pages_in], {pages, kv_heads, page_slots, d}, "v_pages");
  NIBBLE_CHECK(attrs.i("window", 0) >= 0, "window ", attrs.i("window", 0), ", expected 0 or more");
  NIBBLE_CHECK(attrs.f("softcap", 0.0) >= 0, "softcap ", attrs.f("softcap", 0.0), ", expected 0 or more");
  attrs.f("scale");
  return {in[q_in].shape, DType::f32, nullptr};
}

struct Cache {
  const Tensor &table, &k_pages, &v_pages;

  /// -1 where there is no page.
  int64_t page(int64_t sequence, int64_t position) const {
    const int64_t index = position / page_slots;
    if (sequence < 0 || sequence >= table.dim(0) || position < 0 || index >= table.dim(1)) return -1;
    const int64_t page = table.as<const int32_t>()[sequence * table.strides[0] + index * table.strides[1]];
    return page < k_pages.dim(0) ? page : -1;
  }
  int64_t k_offset(int64_t page, int64_t head, int64_t c, int64_t slot) const {
    const Shape& s = k_pages.strides;
    return page * s[0] + head * s[1] + c * s[2] + slot * s[3];
  }
  int64_t v_offset(int64_t page, int64_t head, int64_t c, int64_t slot) const {
    const Shape& s = v_pages.strides;
    return page * s[0] + head * s[1] + slot * s[2] + c * s[3];
  }
};

int64_t element(const Tensor& t, int64_t i) { return t.as<const int32_t>()[i * t.strides[0]]; }

void store_row(const KernelArgs& args, const Cache& cache, int64_t i, int64_t d) {
  const Tensor &k = args.in[k_in], &v = args.in[v_in];
  const int64_t position = element(args.in[positions_in], i);
  const int64_t page = cache.page(element(args.in[sequence_in], i), position);
  if (page < 0) return;
  for (int64_t c = 0; c < k.dim(1); ++c) {
    store(cache.k_pages, cache.k_offset(page, c / d, c % d, position % page_slots),
          load(k, i * k.strides[0] + c * k.strides[1]));
    store(cache.v_pages, cache.v_offset(page, c / d, c % d, position % page_slots),
          load(v, i * v.strides[0] + c * v.strides[1]));
  }
}

struct Options {
  int64_t d, group, window;
  double scale, softcap;
};

/// One query head of row i: online softmax in double.
void attend(const KernelArgs& args, const Cache& cache, const Options& o, int64_t i, int64_t head) {
  const Tensor &q = args.in[q_in], &out = args.out;
  const int64_t position = element(args.in[positions_in], i), sequence = element(args.in[sequence_in], i);
  const int64_t kv_head = head / o.group;
  double sums[max_head_dim], total = 0, max = -std::numeric_limits<double>::infinity();
  std::fill(sums, sums + o.d, 0.0);
  const int64_t last = cache.page(sequence, position) < 0 ? -1 : position;
  for (int64_t p = o.window > 0 ? std::max<int64_t>(0, position - o.window + 1) : 0; p <= last; ++p) {
    const int64_t page = cache.page(sequence, p);
    if (page < 0) continue;
    double score = 0;
    for (int64_t c = 0; c < o.d; ++c) {
      score += load(q, i * q.strides[0] + (head * o.d + c) * q.strides[1]) *
               load(cache.k_pages, cache.k_offset(page, kv_head, c, p % page_slots));
    }
    score *= o.scale;
    if (o.softcap > 0) score = o.softcap * std::tanh(score / o.softcap);
    const double top = std::max(max, score), fade = std::exp(max - top), weight = std::exp(score - top);
    total = total * fade + weight;
    for (int64_t c = 0; c < o.d; ++c) {
      sums[c] = sums[c] * fade + weight * load(cache.v_pages, cache.v_offset(page, kv_head, c, p % page_slots));
    }
    max = top;
  }
  for (int64_t c = 0; c < o.d; ++c) {
    store(out, i * out.strides[0] + (head * o.d + c) * out.strides[1], total == 0 ? 0.0 : sums[c] / total);
  }
}

void reference(const KernelArgs& args) {
  const int64_t heads = args.attrs->i("heads");
  const Options options = {.d = args.out.dim(1) / heads,
                           .group = heads / args.attrs->i("kv_heads"),
                           .window = args.attrs->i("window", 0),
                           .scale = args.attrs->f("scale"),
                           .softcap = args.attrs->f("softcap", 0.0)};
  const Cache cache = {args.in[page_table_in], args.in[k_pages_in], args.in[v_pages_in]};
  for (int64_t i = 0; i < args.out.dim(0); ++i) store_row(args, cache, i, options.d);
  for (int64_t i = 0; i < args.out.dim(0); ++i) {
    for (int64_t head = 0; head < heads; ++head) attend(args, cache, options, i, head);
  }
}

}  // namespace

extern const OpDef attention_op = {.name = "attention", .infer = infer, .reference = reference, .writes_inputs = true};

}  // namespace nibble::ops
