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
  const int64_t coded_rows = s.coded() ? s.tile_rows : 0;
  w.query = carver.take<float>((s.tile_rows - coded_rows) * s.head_dim);
  w.query_codes = carver.take<int16_t>(coded_rows * (s.key_pairs() + s.tail_pairs()) * 2);
  w.weight_codes = carver.take<int16_t>(coded_rows * page_positions);
  w.query_scale = carver.take<float>(coded_rows);
  w.tail_scale = carver.take<float>(coded_rows);
  w.weight_scale = carver.take<float>(coded_rows);
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
  const int64_t value_row = s.padded_dim * static_cast<int64_t>(element_bytes(s.pages));
  w.tails = carver.take<float>(s.tail_dim > 0 ? coded_rows * page_positions : 0);
  w.values = carver.take<std::byte>(s.tail_dim > 0 || s.padded_dim != s.value_dim ? page_positions * value_row : 0);
  return carver.used;
}

/// What one k of the value matrix is: a slot, or two of them side by side.
int64_t value_rows(const AttentionShape& shape, int64_t slots) { return shape.coded() ? (slots + 1) / 2 : slots; }
int64_t value_element(const AttentionShape& shape) { return shape.coded() ? 2 : static_cast<int64_t>(element_bytes(shape.pages)); }

/// The page's values with rows of a multiple of 16: the page itself, or a copy.
const std::byte* padded_values(const AttentionShape& shape, const std::byte* page, int64_t rows, std::byte* copy) {
  if (shape.padded_dim == shape.value_dim) return page;
  const auto row = static_cast<size_t>(shape.value_dim * value_element(shape)),
             padded_row = static_cast<size_t>(shape.padded_dim * value_element(shape));
  for (int64_t r = 0; r < rows; ++r) {
    std::byte* to = copy + static_cast<size_t>(r) * padded_row;
    std::memcpy(to, page + static_cast<size_t>(r) * row, row);
    std::memset(to + row, 0, padded_row - row);
  }
  return copy;
}

/// One page of the part's kv heads, which follow each other, and where the next page's are.
struct Page {
  const std::byte *keys, *values, *next_keys;  ///< values: or tails
  int64_t position, slots;    ///< of slot 0; slots that a row of the tile may see
  int64_t begin, end;         ///< rows of each kv head that see some
};

// Further than a read from memory takes, near enough to stay in L2.
constexpr int64_t prefetch_bytes = 8192;

/// How far from the `part_bytes` bytes of pages at `offset` a kernel prefetches: what is read prefetch_bytes later, which is
/// in what comes `then` when the pages end before.
int64_t ahead(const std::byte* pages, int64_t offset, int64_t part_bytes, const std::byte* then) {
  const int64_t target = offset + prefetch_bytes;
  return target < part_bytes ? prefetch_bytes : then + (target - part_bytes) - (pages + offset);
}

/// Rows of queries, codes or floats, and their scales.
struct Queries {
  const void* rows;
  int64_t stride, count;  ///< bytes; elements, or pairs of codes
  const float* scales;
};

/// scores (+)= queries times a page whose rows, of one kv head, are its columns. Codes never add.
void add_scores(const AttentionShape& shape, const GemmFloat& gemm, const Queries& queries, const std::byte* page, int64_t bytes,
                int64_t prefetch, bool accumulate, float* scores, int64_t rows) {
  const int64_t element = shape.coded() ? 2 : static_cast<int64_t>(element_bytes(shape.pages));
  gemm.run({.a = queries.rows,
            .a_stride = queries.stride,
            .b = page,
            .b_stride = page_positions * element,
            .b_panel = 16 * element,
            .b_ahead = prefetch,
            .c = scores,
            .c_stride = page_positions * 4,
            .k = queries.count,
            .accumulate = accumulate,
            .row_scales = queries.scales,
            .column_scales = shape.coded() ? shape.scales(page, bytes) : nullptr},
           rows, page_positions / 16);
}

void scores_of(const AttentionShape& shape, const GemmFloat& gemm, const Page& page, const AttentionPart& part, AttentionWorkspace& work) {
  const int64_t key_bytes = shape.key_bytes(), tail_bytes = shape.second_bytes(), pairs = shape.key_pairs() + shape.tail_pairs();
  for (int64_t head = 0; head < part.kv_count; ++head) {
    const int64_t row = head * part.head_rows + page.begin, rows = page.end - page.begin;
    float* scores = work.scores + row * page_positions;
    const float* query = work.query + row * shape.head_dim;
    const int16_t* codes = work.query_codes + row * pairs * 2;
    const Queries keys = shape.coded() ? Queries{codes, pairs * 4, shape.key_pairs(), work.query_scale + row}
                                       : Queries{query, shape.head_dim * 4, shape.key_dim(), nullptr};
    add_scores(shape, gemm, keys, page.keys + head * key_bytes, key_bytes,
               ahead(page.keys, head * key_bytes, part.kv_count * key_bytes, page.values), false, scores, rows);
    if (shape.tail_dim == 0) continue;
    const Queries tails = shape.coded() ? Queries{codes + 2 * shape.key_pairs(), pairs * 4, shape.tail_pairs(), work.tail_scale + row}
                                        : Queries{query + shape.key_dim(), shape.head_dim * 4, shape.tail_dim, nullptr};
    add_scores(shape, gemm, tails, page.values + head * tail_bytes, tail_bytes,
               ahead(page.values, head * tail_bytes, part.kv_count * tail_bytes, page.next_keys), !shape.coded(),
               shape.coded() ? work.tails + row * page_positions : scores, rows);
  }
}

void softmax_of(const AttentionShape& shape, const Page& page, const AttentionPart& part, AttentionWorkspace& work) {
  if (!shape.coded() && page.begin == 0 && page.end == part.head_rows) {
    attention_softmax(shape, page.position, nullptr, 0, part.rows(), work);
    return;
  }
  const std::byte* values = shape.tail_dim > 0 ? page.keys : page.values;
  const int64_t bytes = shape.tail_dim > 0 ? shape.key_bytes() : shape.second_bytes();
  for (int64_t head = 0; head < part.kv_count; ++head) {
    const float* scales = shape.coded() ? shape.scales(values + head * bytes, bytes) : nullptr;
    attention_softmax(shape, page.position, scales, head * part.head_rows + page.begin, head * part.head_rows + page.end, work);
  }
}

void gather_values(const AttentionShape& shape, const GemmFloat& gemm, const Page& page, const AttentionPart& part, AttentionWorkspace& work) {
  const int64_t dp = shape.padded_dim, rows = value_rows(shape, page.slots), element = value_element(shape);
  const int64_t bytes = shape.tail_dim > 0 ? shape.key_bytes() : shape.second_bytes();
  for (int64_t head = 0; head < part.kv_count; ++head) {
    const int64_t row = head * part.head_rows + page.begin;
    const std::byte* values = work.values;
    if (shape.tail_dim > 0) attention_turn(shape.pages, page.keys + head * bytes, shape.value_dim, dp, work.values);
    else values = padded_values(shape, page.values + head * bytes, rows, work.values);
    // Slots behind the tile's last position may hold anything, so they are left out; fma(0, v, x) would be x anyway.
    GemmFloatArgs args{.a = work.scores + row * page_positions,
                       .a_stride = page_positions * 4,
                       .b = values,
                       .b_stride = dp * element,
                       .b_panel = 16 * element,
                       .b_ahead = shape.tail_dim > 0 ? 0 : ahead(page.values, head * bytes, part.kv_count * bytes, page.next_keys),
                       .c = work.output + row * dp,
                       .c_stride = dp * 4,
                       .k = rows,
                       .accumulate = 1};
    if (shape.coded()) {
      args.a = work.weight_codes + row * page_positions;
      args.a_stride = page_positions * 2;
      args.row_scales = work.weight_scale + row;
    }
    gemm.run(args, page.end - page.begin, dp / 16);
  }
}

}  // namespace

size_t AttentionWorkspace::bytes(const AttentionShape& shape) {
  AttentionWorkspace unused(shape, nullptr);
  return carve(shape, nullptr, &unused);
}
AttentionWorkspace::AttentionWorkspace(const AttentionShape& shape, std::byte* at) { carve(shape, at, this); }

void attention_range(const AttentionShape& shape, const GemmFloat& gemm, const KernelArgs& args, const AttentionPart& part,
                     int64_t range, AttentionWorkspace& work) {
  const int64_t rows = part.rows();
  for (int64_t r = 0; r < rows; ++r) attention_clear(shape, work.maximum[r], work.sum[r], work.output + r * shape.padded_dim);
  // Every kv head has the same tokens, so the rows of the first one tell.
  const int32_t *first = work.first, *last = work.last;
  const int64_t lowest = *std::min_element(first, first + part.head_rows), highest = *std::max_element(last, last + part.head_rows);
  const int64_t begin_page = std::max(range * range_pages, lowest / page_positions);
  const int64_t end_page = std::min((range + 1) * range_pages, highest / page_positions + 1);
  const int32_t* table = args.in[5].as<int32_t>() + args.in[4].as<int32_t>()[part.tile.row] * shape.max_pages;
  const int64_t key_bytes = shape.key_bytes(), value_bytes = shape.second_bytes();
  const auto pages_of = [&](int input, int64_t page, int64_t bytes) {
    return args.in[input].data + (table[page] * shape.kv_heads + part.kv_begin) * bytes;
  };
  for (int64_t p = begin_page; p < end_page; ++p) {
    const int64_t position = p * page_positions, page_last = position + page_positions - 1;
    int64_t begin = 0, end = part.head_rows;
    while (begin < end && (last[begin] < position || first[begin] > page_last)) ++begin;
    while (begin < end && (last[end - 1] < position || first[end - 1] > page_last)) --end;
    if (begin == end) continue;
    const Page page{.keys = pages_of(6, p, key_bytes),
                    .values = pages_of(7, p, value_bytes),
                    .next_keys = pages_of(6, p < highest / page_positions ? p + 1 : p, key_bytes),
                    .position = position,
                    .slots = std::min<int64_t>(page_positions, highest - position + 1),
                    .begin = begin,
                    .end = end};
    scores_of(shape, gemm, page, part, work);
    softmax_of(shape, page, part, work);
    gather_values(shape, gemm, page, part, work);
  }
}

}  // namespace nibble::jit
