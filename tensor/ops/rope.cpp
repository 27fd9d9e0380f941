// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (arXiv 2104.09864).
// rope_table: positions i32 (m), inv_freq f32 (r/2) -> f32 (m, r): r/2 cosines, then r/2 sines, of float(position) *
//   inv_freq (rounded to f32), each times attention_factor.
// rope: x f (m, heads * head_dim), table f32 (m, r) -> f32 of x's shape. r elements of each head from `begin` on are
//   rotated in pairs (i, i + r/2) for "halves" or (2i, 2i + 1) for "interleaved"; the rest is copied.
#include <cmath>

#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

TensorDesc infer_table(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_count(in, 2, 2);
  check_dtype(in[0], DType::i32, "positions");
  check_rank(in[0], 1, "positions");
  check_dtype(in[1], DType::f32, "inv_freq");
  check_rank(in[1], 1, "inv_freq");
  attrs.f("attention_factor", 1.0);
  return {{in[0].shape[0], 2 * in[1].shape[0]}, DType::f32, nullptr};
}

void table_reference(const KernelArgs& args) {
  const Tensor &positions = args.in[0], &inv_freq = args.in[1], &out = args.out;
  const double factor = args.attrs->f("attention_factor", 1.0);
  const int64_t pairs = inv_freq.dim(0);
  for (int64_t i = 0; i < out.dim(0); ++i) {
    const float position = static_cast<float>(positions.as<const int32_t>()[i * positions.strides[0]]);
    for (int64_t p = 0; p < pairs; ++p) {
      const float angle = position * inv_freq.as<const float>()[p * inv_freq.strides[0]];
      store(out, i * out.strides[0] + p * out.strides[1], std::cos(double{angle}) * factor);
      store(out, i * out.strides[0] + (pairs + p) * out.strides[1], std::sin(double{angle}) * factor);
    }
  }
}

bool interleaved(const Attrs& attrs) {
  const std::string pairing = attrs.s("pairing", "halves");
  NIBBLE_CHECK(pairing == "halves" || pairing == "interleaved", "unknown pairing ", pairing,
               "; known are halves, interleaved");
  return pairing == "interleaved";
}

TensorDesc infer_rope(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_count(in, 2, 2);
  check_float(in[0], "x");
  check_rank(in[0], 2, "x");
  check_dtype(in[1], DType::f32, "table");
  check_rank(in[1], 2, "table");
  interleaved(attrs);
  const int64_t head_dim = attrs.i("head_dim"), rotated = in[1].shape[1];
  NIBBLE_CHECK(in[0].shape[0] == in[1].shape[0], "x ", to_string(in[0]), " and table ", to_string(in[1]),
               " differ in rows");
  NIBBLE_CHECK(head_dim >= 1 && in[0].shape[1] % head_dim == 0, "x ", to_string(in[0]),
               ": expected a width that is a multiple of head_dim ", head_dim);
  NIBBLE_CHECK(rotated % 2 == 0 && rotated <= head_dim, "table ", to_string(in[1]),
               ": expected an even width up to head_dim ", head_dim);
  const int64_t begin = attrs.i("begin", 0);
  NIBBLE_CHECK(begin >= 0 && begin <= head_dim - rotated, "begin ", begin, ", expected 0 to ", head_dim - rotated);
  return {in[0].shape, DType::f32, nullptr};
}

void rope_reference(const KernelArgs& args) {
  const Tensor &x = args.in[0], &table = args.in[1], &out = args.out;
  const int64_t head_dim = args.attrs->i("head_dim"), pairs = table.dim(1) / 2;
  const int64_t begin = args.attrs->i("begin", 0);
  const bool adjacent = interleaved(*args.attrs);
  for (int64_t i = 0; i < x.dim(0); ++i) {
    auto in = [&](int64_t c) { return load(x, i * x.strides[0] + c * x.strides[1]); };
    auto put = [&](int64_t c, double y) { store(out, i * out.strides[0] + c * out.strides[1], y); };
    auto angle = [&](int64_t c) {
      return double{table.as<const float>()[i * table.strides[0] + c * table.strides[1]]};
    };
    for (int64_t head = 0; head < x.dim(1); head += head_dim) {
      for (int64_t p = 0; p < pairs; ++p) {
        const int64_t a = head + begin + (adjacent ? 2 * p : p), b = adjacent ? a + 1 : a + pairs;
        const double cosine = angle(p), sine = angle(pairs + p), first = in(a), second = in(b);
        put(a, first * cosine - second * sine);
        put(b, first * sine + second * cosine);
      }
      for (int64_t c = head; c < head + begin; ++c) put(c, in(c));
      for (int64_t c = head + begin + 2 * pairs; c < head + head_dim; ++c) put(c, in(c));
    }
  }
}

}  // namespace

extern const OpDef rope_table_op = {"rope_table", infer_table, table_reference};
extern const OpDef rope_op = {"rope", infer_rope, rope_reference};

}  // namespace nibble::ops
