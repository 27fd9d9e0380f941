// SPDX-License-Identifier: Apache-2.0
// attention over a paged cache with grouped kv heads. Inputs and attributes as in docs/ops.md. First stores k and v of
// every row at its position (rounded to the pages' type), then row i attends to positions max(0, p - window + 1) .. p
// of its own sequence (up to ends[i] - 1 where there are ends), read back from the pages. q, k and v may be strided.
// With tails, keys are [k, tail] and k is the values too: v holds the tails, v_pages their pages, as k_pages has keys.
// Of a visible position j, score = softcap(q . k * scale) + slope * (j - p); exp(sink) joins the sum of exp(score).
// Rows of i8 pages are rotated before they become codes, so queries are too, and results are rotated back.
// A row whose sequence, position or page lies outside the tables stores nothing and gives zeros, and places without a
// page are not attended to (callers check).
#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

constexpr int64_t page_slots = 32;
constexpr int64_t max_head_dim = 1024;  // so that the sums of one head fit on the stack

enum Input : int { q_in, k_in, v_in, positions_in, sequence_in, page_table_in, k_pages_in, v_pages_in, least_inputs };

/// Where the optional inputs stand; -1 without.
struct Optional {
  int slopes = -1, sinks = -1, ends = -1, inputs = least_inputs;
  explicit Optional(const Attrs& attrs) {
    if (attrs.i("slopes", 0) != 0) slopes = inputs++;
    if (attrs.i("sinks", 0) != 0) sinks = inputs++;
    if (attrs.i("ends", 0) != 0) ends = inputs++;
  }
};

/// Elements of one head of a row: of q, of k, of v and of the result.
struct Sizes {
  int64_t q, k, v, out;
  bool tails;
  Sizes(std::span<const TensorDesc> in, const Attrs& attrs)
      : q(in[q_in].shape[1] / attrs.i("heads")),
        v(in[v_in].shape[1] / attrs.i("kv_heads")),
        tails(attrs.i("tails", 0) != 0) {
    k = tails ? q - v : q;
    out = tails ? k : v;
  }
};

/// Sizes of a page: in bytes with the scales behind the codes where they are i8.
void check_pages(const TensorDesc& k_pages, const TensorDesc& v_pages, int64_t kv_heads, const Sizes& sizes) {
  const DType type = k_pages.dtype;
  NIBBLE_CHECK(type == DType::f32 || type == DType::f16 || type == DType::bf16 || type == DType::i8,
               "k_pages: expected f32, f16, bf16 or i8, found ", to_string(k_pages));
  check_dtype(v_pages, type, "v_pages");
  const int64_t pages = k_pages.shape[0];
  const auto column = [&](int64_t size) {
    return Shape{pages, kv_heads, type == DType::i8 ? size + size % 2 + 4 : size, page_slots};
  };
  check_shape(k_pages, column(sizes.k), "k_pages");
  if (sizes.tails) check_shape(v_pages, column(sizes.v), "v_pages");
  else if (type == DType::i8) check_shape(v_pages, {pages, kv_heads, sizes.v + 4, page_slots}, "v_pages");
  else check_shape(v_pages, {pages, kv_heads, page_slots, sizes.v}, "v_pages");
}

void check_optional(std::span<const TensorDesc> in, const Optional& optional, int64_t heads, int64_t m) {
  for (auto [index, name] : {std::pair{optional.slopes, "slopes"}, {optional.sinks, "sinks"}}) {
    if (index < 0) continue;
    check_dtype(in[index], DType::f32, name);
    check_shape(in[index], {heads}, name);
  }
  if (optional.ends < 0) return;
  check_dtype(in[optional.ends], DType::i32, "ends");
  check_shape(in[optional.ends], {m}, "ends");
}

TensorDesc infer(std::span<const TensorDesc> in, const Attrs& attrs) {
  const Optional optional(attrs);
  check_count(in, optional.inputs, optional.inputs);
  constexpr std::string_view names[] = {"q", "k", "v", "positions", "sequence", "page_table", "k_pages", "v_pages"};
  constexpr DType types[] = {DType::f32, DType::f32, DType::f32, DType::i32, DType::i32, DType::i32};
  constexpr int ranks[] = {2, 2, 2, 1, 1, 2, 4, 4};
  for (int i = 0; i < least_inputs; ++i) {
    if (i < k_pages_in) check_dtype(in[i], types[i], names[i]);
    check_rank(in[i], ranks[i], names[i]);
  }
  const int64_t heads = attrs.i("heads"), kv_heads = attrs.i("kv_heads"), m = in[q_in].shape[0];
  NIBBLE_CHECK(heads >= 1 && kv_heads >= 1 && heads % kv_heads == 0, "heads ", heads,
               " must be a multiple of kv_heads ", kv_heads);
  NIBBLE_CHECK(in[q_in].shape[1] % heads == 0, "q ", to_string(in[q_in]),
               ": expected a width that is a multiple of heads ", heads);
  NIBBLE_CHECK(in[v_in].shape[1] % kv_heads == 0, "v ", to_string(in[v_in]),
               ": expected a width that is a multiple of kv_heads ", kv_heads);
  const Sizes sizes(in, attrs);
  NIBBLE_CHECK(!sizes.tails || sizes.k >= 1, "v ", to_string(in[v_in]), ": tails of ", sizes.v,
               " leave nothing of heads of ", sizes.q);
  for (auto [input, size] : {std::pair{q_in, sizes.q}, {v_in, sizes.v}}) {
    NIBBLE_CHECK(size >= 1 && size <= max_head_dim, names[input], " ", to_string(in[input]), ": head size ", size,
                 ", expected 1 to ", max_head_dim);
  }
  check_shape(in[k_in], {m, kv_heads * sizes.k}, "k");
  check_shape(in[v_in], {m, kv_heads * sizes.v}, "v");
  check_shape(in[positions_in], {m}, "positions");
  check_shape(in[sequence_in], {m}, "sequence");
  check_pages(in[k_pages_in], in[v_pages_in], kv_heads, sizes);
  check_optional(in, optional, heads, m);
  NIBBLE_CHECK(attrs.i("window", 0) >= 0, "window ", attrs.i("window", 0), ", expected 0 or more");
  NIBBLE_CHECK(attrs.f("softcap", 0.0) >= 0, "softcap ", attrs.f("softcap", 0.0), ", expected 0 or more");
  attrs.f("scale");
  return {{m, heads * sizes.out}, DType::f32, nullptr};
}

/// The Walsh-Hadamard transform, not normalised, of blocks of the largest power of two that divides `count`; returns
/// that. Codes depend on its bits, which the order of its additions fixes.
template <class Float>
int64_t rotate(Float* x, int64_t count) {
  const int64_t block = count & -count;
  for (int64_t reach = 1; reach < block; reach *= 2) {
    for (int64_t i = 0; i < count; ++i) {
      if ((i & reach) != 0) continue;
      const Float a = x[i], b = x[i + reach];
      x[i] = a + b;
      x[i + reach] = a - b;
    }
  }
  return block;
}

struct Cache {
  const Tensor &table, &k_pages, &v_pages;
  bool tails;
  int64_t k_size;  ///< of one kv head in k

  /// -1 where there is no page.
  int64_t page(int64_t sequence, int64_t position) const {
    const int64_t index = position / page_slots;
    if (sequence < 0 || sequence >= table.dim(0) || position < 0 || index >= table.dim(1)) return -1;
    const int64_t page = table.as<const int32_t>()[sequence * table.strides[0] + index * table.strides[1]];
    return page < k_pages.dim(0) ? page : -1;
  }
  double key(int64_t page, int64_t head, int64_t c, int64_t slot) const {
    return tails && c >= k_size ? in_column(v_pages, page, head, c - k_size, slot)
                                : in_column(k_pages, page, head, c, slot);
  }
  double value(int64_t page, int64_t head, int64_t c, int64_t slot) const {
    if (tails) return in_column(k_pages, page, head, c, slot);
    if (v_pages.desc.dtype == DType::i8) return coded(v_pages, page, head, slot, value_code(slot, c));
    return load(v_pages, at(v_pages, page, head) + slot * v_pages.strides[2] + c * v_pages.strides[3]);
  }
  /// `x(c)` is element c of the row.
  template <class Row>
  void store_key(int64_t page, int64_t head, int64_t slot, int64_t d, Row x) const {
    store_column(k_pages, page, head, slot, d, x);
  }
  template <class Row>
  void store_value(int64_t page, int64_t head, int64_t slot, int64_t dv, Row x) const {
    if (tails) return store_column(v_pages, page, head, slot, dv, x);
    if (v_pages.desc.dtype == DType::i8) {
      return store_codes(v_pages, page, head, slot, dv, [&](int64_t c) { return value_code(slot, c); }, x);
    }
    for (int64_t c = 0; c < dv; ++c) {
      store(v_pages, at(v_pages, page, head) + slot * v_pages.strides[2] + c * v_pages.strides[3], x(c));
    }
  }

 private:
  static int64_t at(const Tensor& pages, int64_t page, int64_t head) {
    return page * pages.strides[0] + head * pages.strides[1];
  }
  static int64_t size(const Tensor& i8_pages) { return i8_pages.dim(2) - 4; }
  // Codes stand in pairs: two elements of a key, two slots of a value.
  static int64_t key_code(int64_t slot, int64_t c) { return (c / 2 * page_slots + slot) * 2 + c % 2; }
  int64_t value_code(int64_t slot, int64_t c) const { return (slot / 2 * size(v_pages) + c) * 2 + slot % 2; }
  static double in_column(const Tensor& pages, int64_t page, int64_t head, int64_t c, int64_t slot) {
    if (pages.desc.dtype == DType::i8) return coded(pages, page, head, slot, key_code(slot, c));
    return load(pages, at(pages, page, head) + c * pages.strides[2] + slot * pages.strides[3]);
  }
  template <class Row>
  static void store_column(const Tensor& pages, int64_t page, int64_t head, int64_t slot, int64_t d, Row x) {
    if (pages.desc.dtype == DType::i8) {
      return store_codes(pages, page, head, slot, d, [&](int64_t c) { return key_code(slot, c); }, x);
    }
    for (int64_t c = 0; c < d; ++c) {
      store(pages, at(pages, page, head) + c * pages.strides[2] + slot * pages.strides[3], x(c));
    }
  }
  static float* scales(const Tensor& pages, int64_t page, int64_t head) {
    return reinterpret_cast<float*>(pages.data + at(pages, page, head) + size(pages) * page_slots);
  }
  static double coded(const Tensor& pages, int64_t page, int64_t head, int64_t slot, int64_t code) {
    return double{scales(pages, page, head)[slot]} * load(pages, at(pages, page, head) + code);
  }
  template <class Place, class Row>
  static void store_codes(const Tensor& pages, int64_t page, int64_t head, int64_t slot, int64_t d, Place place,
                          Row x) {
    float rotated[max_head_dim], max = 0;
    for (int64_t c = 0; c < d; ++c) rotated[c] = static_cast<float>(x(c));
    rotate(rotated, d);
    for (int64_t c = 0; c < d; ++c) max = std::max(max, std::fabs(rotated[c]));
    const float inverse = max == 0 ? 0.0f : 127.0f / max;
    scales(pages, page, head)[slot] = max / 127.0f;
    for (int64_t c = 0; c < d; ++c) {
      const float code = std::nearbyint(rotated[c] * inverse);
      store(pages, at(pages, page, head) + place(c), std::clamp(code, -127.0f, 127.0f));
    }
  }
};

int64_t element(const Tensor& t, int64_t i) { return t.as<const int32_t>()[i * t.strides[0]]; }

struct Options {
  int64_t heads, kv_heads, d, dv, window;  ///< d of q, dv of the result
  int64_t k_size, v_size;                  ///< of one kv head
  double scale, softcap;
  Optional in;
  explicit Options(const KernelArgs& args)
      : heads(args.attrs->i("heads")),
        kv_heads(args.attrs->i("kv_heads")),
        d(args.in[q_in].dim(1) / heads),
        dv(args.out.dim(1) / heads),
        window(args.attrs->i("window", 0)),
        k_size(args.in[k_in].dim(1) / kv_heads),
        v_size(args.in[v_in].dim(1) / kv_heads),
        scale(args.attrs->f("scale")),
        softcap(args.attrs->f("softcap", 0.0)),
        in(*args.attrs) {}
};

void store_row(const KernelArgs& args, const Cache& cache, const Options& o, int64_t i) {
  const Tensor &k = args.in[k_in], &v = args.in[v_in];
  const int64_t position = element(args.in[positions_in], i), slot = position % page_slots;
  const int64_t page = cache.page(element(args.in[sequence_in], i), position);
  if (page < 0) return;
  for (int64_t h = 0; h < o.kv_heads; ++h) {
    cache.store_key(page, h, slot, o.k_size,
                    [&](int64_t c) { return load(k, i * k.strides[0] + (h * o.k_size + c) * k.strides[1]); });
    cache.store_value(page, h, slot, o.v_size,
                      [&](int64_t c) { return load(v, i * v.strides[0] + (h * o.v_size + c) * v.strides[1]); });
  }
}

double per_head(const KernelArgs& args, int input, int64_t head, double none) {
  return input < 0 ? none : load(args.in[input], head * args.in[input].strides[0]);
}

/// One query head of row i: online softmax in double.
void attend(const KernelArgs& args, const Cache& cache, const Options& o, int64_t i, int64_t head) {
  const Tensor &q = args.in[q_in], &out = args.out;
  const int64_t position = element(args.in[positions_in], i), sequence = element(args.in[sequence_in], i);
  const int64_t kv_head = head / (o.heads / o.kv_heads);
  const double slope = per_head(args, o.in.slopes, head, 0);
  const bool rotated = cache.k_pages.desc.dtype == DType::i8;
  double query[max_head_dim], sums[max_head_dim],
      max = per_head(args, o.in.sinks, head, -std::numeric_limits<double>::infinity());
  double total = o.in.sinks < 0 ? 0 : 1;
  std::fill(sums, sums + o.dv, 0.0);
  for (int64_t c = 0; c < o.d; ++c) query[c] = load(q, i * q.strides[0] + (head * o.d + c) * q.strides[1]);
  if (rotated) {
    for (auto [begin, size] : {std::pair{int64_t{0}, o.k_size}, {o.k_size, o.d - o.k_size}}) {
      if (size == 0) continue;
      const auto block = static_cast<double>(rotate(query + begin, size));
      for (int64_t c = begin; c < begin + size; ++c) query[c] /= block;
    }
  }
  const int64_t end = o.in.ends < 0 ? position + 1 : element(args.in[o.in.ends], i);
  const int64_t stop =
      cache.page(sequence, position) < 0 ? 0 : std::min(end, args.in[page_table_in].dim(1) * page_slots);
  for (int64_t p = o.window > 0 ? std::max<int64_t>(0, position - o.window + 1) : 0; p < stop; ++p) {
    const int64_t page = cache.page(sequence, p);
    if (page < 0) continue;
    double score = 0;
    for (int64_t c = 0; c < o.d; ++c) {
      score += query[c] * cache.key(page, kv_head, c, p % page_slots);
    }
    score *= o.scale;
    if (o.softcap > 0) score = o.softcap * std::tanh(score / o.softcap);
    score += slope * static_cast<double>(p - position);
    const double top = std::max(max, score), fade = std::exp(max - top), weight = std::exp(score - top);
    total = total * fade + weight;
    for (int64_t c = 0; c < o.dv; ++c)
      sums[c] = sums[c] * fade + weight * cache.value(page, kv_head, c, p % page_slots);
    max = top;
  }
  if (rotated) total *= static_cast<double>(rotate(sums, o.dv));
  for (int64_t c = 0; c < o.dv; ++c) {
    store(out, i * out.strides[0] + (head * o.dv + c) * out.strides[1], total == 0 ? 0.0 : sums[c] / total);
  }
}

void reference(const KernelArgs& args) {
  const Options options(args);
  const Cache cache = {args.in[page_table_in], args.in[k_pages_in], args.in[v_pages_in],
                       args.attrs->i("tails", 0) != 0, options.k_size};
  for (int64_t i = 0; i < args.out.dim(0); ++i) store_row(args, cache, options, i);
  for (int64_t i = 0; i < args.out.dim(0); ++i) {
    for (int64_t head = 0; head < options.heads; ++head) attend(args, cache, options, i, head);
  }
}

}  // namespace

extern const OpDef attention_op = {.name = "attention", .infer = infer, .reference = reference, .writes_inputs = true};

}  // namespace nibble::ops
