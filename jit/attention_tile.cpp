// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "jit/attention.h"

namespace nibble::jit {

namespace {

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/// Hands out the parts of a block of memory, or only counts when there is none.
struct Carver {
  std::byte* at;
  size_t used = 0;
  template <class T>
  T* take(int64_t count) {
    T* part = at ? reinterpret_cast<T*>(at + used) : nullptr;
    used += aligned(static_cast<size_t>(count) * sizeof(T));
    return part;
  }
};

size_t carve(const AttentionShape& s, std::byte* at, AttentionWorkspace* work) {
  Carver carver{at};
  AttentionWorkspace& w = *work;
  w.query = carver.take<float>(s.tile_rows * s.head_dim);
  w.scores = carver.take<float>(s.tile_rows * page_positions);
  w.output = carver.take<float>(s.tile_rows * s.padded_dim);
  w.total = carver.take<float>(s.tile_rows * s.padded_dim);
  w.maximum = carver.take<float>(s.tile_rows);
  w.sum = carver.take<float>(s.tile_rows);
  w.factor = carver.take<float>(s.tile_rows);
  w.total_maximum = carver.take<float>(s.tile_rows);
  w.total_sum = carver.take<float>(s.tile_rows);
  w.first = carver.take<int32_t>(s.tile_rows);
  w.last = carver.take<int32_t>(s.tile_rows);
  w.position = carver.take<int32_t>(s.tile_rows);
  w.slope = carver.take<float>(s.slopes < 0 ? 0 : s.tile_rows);
  const auto element = static_cast<int64_t>(element_bytes(s.pages));
  w.values = carver.take<std::byte>(s.padded_dim == s.value_dim ? 0 : page_positions * s.padded_dim * element);
  return carver.used;
}

/// The page's values with rows of a multiple of 16: the page itself, or a copy.
const std::byte* padded_values(const AttentionShape& shape, const std::byte* page, int64_t slots, std::byte* copy) {
  if (shape.padded_dim == shape.value_dim) return page;
  const size_t element = element_bytes(shape.pages), row = static_cast<size_t>(shape.value_dim) * element,
               padded_row = static_cast<size_t>(shape.padded_dim) * element;
  for (int64_t slot = 0; slot < slots; ++slot) {
    std::byte* to = copy + static_cast<size_t>(slot) * padded_row;
    std::memcpy(to, page + static_cast<size_t>(slot) * row, row);
    std::memset(to + row, 0, padded_row - row);
  }
  return copy;
}

/// One page's keys and values of one kv head, and how far the next page's are, in bytes.
struct Page {
  const std::byte *keys, *values;
  int64_t keys_ahead, values_ahead;
};

/// Rows [begin, end) against one page; first_position is the page's.
void page_step(const AttentionShape& shape, const GemmFloat& gemm, const Page& page, int64_t first_position, int64_t slots,
               int64_t begin, int64_t end, AttentionWorkspace& work) {
  const int64_t d = shape.head_dim, dp = shape.padded_dim, count = end - begin;
  const auto element = static_cast<int64_t>(element_bytes(shape.pages));
  float* scores = work.scores + begin * page_positions;
  gemm.run({.a = work.query + begin * d,
            .a_stride = d * 4,
            .b = page.keys,
            .b_stride = page_positions * element,
            .b_panel = 16 * element,
            .b_ahead = page.keys_ahead,
            .c = scores,
            .c_stride = page_positions * 4,
            .k = d,
            .accumulate = 0},
           count, page_positions / 16);
  PageScales scales{first_position, nullptr, nullptr};
  if (shape.pages == DType::i8) {
    scales.keys = reinterpret_cast<const float*>(page.keys + d * page_positions);
    scales.values = reinterpret_cast<const float*>(page.values + shape.value_dim * page_positions);
  }
  attention_softmax(shape, scales, begin, end, work);
  // Slots behind the tile's last position may hold anything, so they are left out; fma(0, v, x) would be x anyway.
  gemm.run({.a = scores,
            .a_stride = page_positions * 4,
            .b = padded_values(shape, page.values, slots, work.values),
            .b_stride = dp * element,
            .b_panel = 16 * element,
            .b_ahead = page.values_ahead,
            .c = work.output + begin * dp,
            .c_stride = dp * 4,
            .k = slots,
            .accumulate = 1},
           count, dp / 16);
}

}  // namespace

size_t AttentionWorkspace::bytes(const AttentionShape& shape) {
  AttentionWorkspace unused(shape, nullptr);
  return carve(shape, nullptr, &unused);
}
AttentionWorkspace::AttentionWorkspace(const AttentionShape& shape, std::byte* at) { carve(shape, at, this); }

void attention_range(const AttentionShape& shape, const GemmFloat& gemm, const KernelArgs& args, AttentionTile tile,
                     int64_t kv_head, int64_t range, AttentionWorkspace& work) {
  const int64_t rows = tile.rows * shape.heads_per_kv;
  for (int64_t r = 0; r < rows; ++r) attention_clear(shape, work.maximum[r], work.sum[r], work.output + r * shape.padded_dim);
  const int64_t first = *std::min_element(work.first, work.first + rows), last = *std::max_element(work.last, work.last + rows);
  const int64_t begin_page = std::max(range * range_pages, first / page_positions);
  const int64_t end_page = std::min((range + 1) * range_pages, last / page_positions + 1);
  const int32_t* table = args.in[5].as<int32_t>() + args.in[4].as<int32_t>()[tile.row] * shape.max_pages;
  const int64_t key_bytes = shape.page_bytes(shape.head_dim), value_bytes = shape.page_bytes(shape.value_dim);
  for (int64_t p = begin_page; p < end_page; ++p) {
    const int64_t position = p * page_positions, page_last = position + page_positions - 1;
    int64_t begin = 0, end = rows;
    while (begin < end && (work.last[begin] < position || work.first[begin] > page_last)) ++begin;
    while (begin < end && (work.last[end - 1] < position || work.first[end - 1] > page_last)) --end;
    if (begin == end) continue;
    // Pages of one head lie apart, so the hardware can't guess the next one.
    const int64_t here = table[p] * shape.kv_heads + kv_head;
    const int64_t ahead = p < last / page_positions ? (table[p + 1] - table[p]) * shape.kv_heads : 0;
    const Page page{args.in[6].data + here * key_bytes, args.in[7].data + here * value_bytes, ahead * key_bytes, ahead * value_bytes};
    page_step(shape, gemm, page, position,
              std::min<int64_t>(page_positions, last - position + 1), begin, end, work);
  }
}

}  // namespace nibble::jit
