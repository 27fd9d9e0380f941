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

/// One page of the part's kv heads, which follow each other, and where the next page's are.
struct Page {
  const std::byte *keys, *values, *next_keys;
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

void scores_of(const AttentionShape& shape, const GemmFloat& gemm, const Page& page, const AttentionPart& part, AttentionWorkspace& work) {
  const int64_t d = shape.head_dim, bytes = shape.page_bytes(d);
  const auto element = static_cast<int64_t>(element_bytes(shape.pages));
  for (int64_t head = 0; head < part.kv_count; ++head) {
    const int64_t row = head * part.head_rows + page.begin;
    gemm.run({.a = work.query + row * d,
              .a_stride = d * 4,
              .b = page.keys + head * bytes,
              .b_stride = page_positions * element,
              .b_panel = 16 * element,
              .b_ahead = ahead(page.keys, head * bytes, part.kv_count * bytes, page.values),
              .c = work.scores + row * page_positions,
              .c_stride = page_positions * 4,
              .k = d,
              .accumulate = 0},
             page.end - page.begin, page_positions / 16);
  }
}

void softmax_of(const AttentionShape& shape, const Page& page, const AttentionPart& part, AttentionWorkspace& work) {
  if (shape.pages != DType::i8 && page.begin == 0 && page.end == part.head_rows) {
    attention_softmax(shape, {page.position, nullptr, nullptr}, 0, part.rows(), work);
    return;
  }
  for (int64_t head = 0; head < part.kv_count; ++head) {
    PageScales scales{page.position, nullptr, nullptr};
    if (shape.pages == DType::i8) {
      const auto behind = [&](const std::byte* pages, int64_t size) {
        return reinterpret_cast<const float*>(pages + head * shape.page_bytes(size) + size * page_positions);
      };
      scales.keys = behind(page.keys, shape.head_dim);
      scales.values = behind(page.values, shape.value_dim);
    }
    attention_softmax(shape, scales, head * part.head_rows + page.begin, head * part.head_rows + page.end, work);
  }
}

void gather_values(const AttentionShape& shape, const GemmFloat& gemm, const Page& page, const AttentionPart& part, AttentionWorkspace& work) {
  const int64_t dp = shape.padded_dim, bytes = shape.page_bytes(shape.value_dim);
  const auto element = static_cast<int64_t>(element_bytes(shape.pages));
  for (int64_t head = 0; head < part.kv_count; ++head) {
    const int64_t row = head * part.head_rows + page.begin;
    // Slots behind the tile's last position may hold anything, so they are left out; fma(0, v, x) would be x anyway.
    gemm.run({.a = work.scores + row * page_positions,
              .a_stride = page_positions * 4,
              .b = padded_values(shape, page.values + head * bytes, page.slots, work.values),
              .b_stride = dp * element,
              .b_panel = 16 * element,
              .b_ahead = ahead(page.values, head * bytes, part.kv_count * bytes, page.next_keys),
              .c = work.output + row * dp,
              .c_stride = dp * 4,
              .k = page.slots,
              .accumulate = 1},
             page.end - page.begin, dp / 16);
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
  const int64_t key_bytes = shape.page_bytes(shape.head_dim), value_bytes = shape.page_bytes(shape.value_dim);
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
