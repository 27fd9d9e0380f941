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

// From so many rows on an element that is converted once costs less than one that each tile of the kernel converts.
constexpr int64_t expanded_rows = 24;
constexpr int64_t panel_columns = 16, panel_row = 64;  // bytes of an expanded one

/// Whether values are read from a copy: they are keys turned over, or their rows are no multiple of 16.
bool copies_values(const AttentionShape& shape) { return shape.tail_dim > 0 || shape.padded_dim != shape.value_dim; }

size_t carve(const AttentionShape& s, std::byte* at, AttentionWorkspace* work) {
  Carver carver{at};
  AttentionWorkspace& w = *work;
  const int64_t coded_rows = s.coded() ? s.tile_rows : 0;
  w.query = carver.take<float>((s.tile_rows - coded_rows) * s.head_dim);
  w.query_codes = carver.take<int16_t>(coded_rows * (s.key_pairs() + s.tail_pairs()) * 2);
  w.weight_codes = carver.take<int16_t>(coded_rows * block_positions);
  w.query_scale = carver.take<float>(coded_rows);
  w.tail_scale = carver.take<float>(coded_rows);
  w.weight_scale = carver.take<float>(coded_rows);
  w.value_scales = carver.take<float>(s.coded() ? block_positions : 0);
  w.scores = carver.take<float>(s.tile_rows * block_positions);
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
  w.tails = carver.take<float>(s.tail_dim > 0 ? coded_rows * block_positions : 0);
  w.values = carver.take<std::byte>(copies_values(s) ? block_positions * value_row : 0);
  w.panels = carver.take<std::byte>(
      s.head_rows() < expanded_rows ? 0 : max_expanded * std::max<int64_t>(s.head_dim, block_positions) * panel_row);
  return carver.used;
}

/// What one k of the value matrix is: a slot, or two of them side by side.
int64_t value_rows(const AttentionShape& shape, int64_t slots) { return shape.coded() ? (slots + 1) / 2 : slots; }
int64_t element_of(const AttentionShape& shape) {
  return shape.coded() ? 2 : static_cast<int64_t>(element_bytes(shape.pages));
}

void pad_values(const AttentionShape& shape, const std::byte* page, int64_t rows, std::byte* copy) {
  const auto row = static_cast<size_t>(shape.value_dim * element_of(shape)),
             padded_row = static_cast<size_t>(shape.padded_dim * element_of(shape));
  for (int64_t r = 0; r < rows; ++r) {
    std::byte* to = copy + static_cast<size_t>(r) * padded_row;
    std::memcpy(to, page + static_cast<size_t>(r) * row, row);
    std::memset(to + row, 0, padded_row - row);
  }
}

// Further than a read from memory takes, near enough to stay in L2.
constexpr int64_t prefetch_bytes = 8192;

/// The pages of one block that the tile sees, of the part's kv heads, which follow each other in each.
struct Block {
  AttentionColumns columns{};
  int64_t seen = 0;            ///< columns behind this one no row sees: they may hold anything
  int64_t begin = 0, end = 0;  ///< rows of each kv head that see some
  int64_t pages = 0;
  const std::byte *keys[block_pages] = {}, *seconds[block_pages] = {};  ///< seconds: values or tails
  const std::byte* next = nullptr;  ///< keys of the page behind
  int64_t rows() const { return end - begin; }
  int64_t column(int64_t page) const { return columns.from + page * page_positions; }
  int64_t slots(int64_t page) const { return std::min<int64_t>(page_positions, seen - column(page)); }
  const std::byte* keys_behind(int64_t page) const { return page + 1 < pages ? keys[page + 1] : next; }
};

/// The part of a block whose values one page holds.
Block one_page(const Block& block, int64_t page) {
  Block one = block;
  one.columns.from = block.column(page);
  one.seen = one.columns.from + block.slots(page);
  one.pages = 1;
  one.keys[0] = block.keys[page];
  one.seconds[0] = block.seconds[page];
  if (page + 1 < block.pages) one.next = block.seconds[page + 1];
  return one;
}

/// How far from the `part_bytes` bytes of pages at `offset` a kernel prefetches: what is read prefetch_bytes later,
/// which is in what comes `then` when the pages end before.
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
Queries key_queries(const AttentionShape& shape, const AttentionWorkspace& work, int64_t row) {
  const int64_t pairs = shape.key_pairs() + shape.tail_pairs();
  if (shape.coded()) return {work.query_codes + row * pairs * 2, pairs * 4, shape.key_pairs(), work.query_scale + row};
  return {work.query + row * shape.head_dim, shape.head_dim * 4, shape.key_dim(), nullptr};
}
Queries tail_queries(const AttentionShape& shape, const AttentionWorkspace& work, int64_t row) {
  const int64_t pairs = shape.key_pairs() + shape.tail_pairs();
  if (shape.coded())
    return {work.query_codes + (row * pairs + shape.key_pairs()) * 2, pairs * 4, shape.tail_pairs(),
            work.tail_scale + row};
  return {work.query + row * shape.head_dim + shape.key_dim(), shape.head_dim * 4, shape.tail_dim, nullptr};
}

/// One kv head's keys or tails of a page, and where their scores go.
struct Columns {
  const std::byte* page;
  int64_t bytes, ahead;
  int64_t values_ahead;  ///< likewise, while the first panel is expanded
  bool accumulate;        ///< codes never do
  float* scores;          ///< of the first row, at the page's first column
};

/// scores (+)= queries times the page, whose rows are the columns.
void add_scores(const AttentionShape& shape, const AttentionGemm& gemm, const Queries& queries, const Columns& columns,
                int64_t rows, AttentionWorkspace& work) {
  const int64_t element = element_of(shape);
  GemmFloatArgs args{.a = queries.rows,
                     .a_stride = queries.stride,
                     .b = columns.page,
                     .b_stride = page_positions * element,
                     .b_panel = panel_columns * element,
                     .b_ahead = columns.ahead,
                     .c = columns.scores,
                     .c_stride = block_positions * 4,
                     .k = queries.count,
                     .accumulate = columns.accumulate,
                     .row_scales = queries.scales,
                     .column_scales = shape.coded() ? shape.scales(columns.page, columns.bytes) : nullptr};
  constexpr int64_t panels = page_positions / panel_columns;
  if (rows < expanded_rows) return gemm.pages.run(args, rows, panels);
  const int64_t step = std::min<int64_t>(max_expanded, gemm.panels.panels_per_tile(gemm.panels.rows_per_tile()));
  args.b = work.panels;
  args.b_stride = panel_row;
  args.b_panel = queries.count * panel_row;
  args.b_ahead = 0;
  for (int64_t p = 0; p < panels; p += step) {
    for (int64_t i = 0; i < step; ++i) {
      attention_expand(shape.pages, columns.page + (p + i) * panel_columns * element, page_positions * element,
                       queries.count, p + i == 0 ? columns.values_ahead : columns.ahead,
                       work.panels + i * args.b_panel);
    }
    gemm.panels.run(args, rows, step);
    args.c += step * panel_columns;
    if (args.column_scales != nullptr) args.column_scales += step * panel_columns;
  }
}

void scores_of(const AttentionShape& shape, const AttentionGemm& gemm, const Block& block, const AttentionPart& part,
               AttentionWorkspace& work) {
  const int64_t key_bytes = shape.key_bytes(), second_bytes = shape.second_bytes();
  for (int64_t page = 0; page < block.pages; ++page) {
    const std::byte *keys = block.keys[page], *seconds = block.seconds[page];
    // without tails the keys of all pages come first
    const std::byte* behind = shape.tail_dim > 0       ? seconds
                              : page + 1 < block.pages ? block.keys[page + 1]
                                                       : block.seconds[0];
    for (int64_t head = 0; head < part.kv_count; ++head) {
      const int64_t row = head * part.head_rows + block.begin, at = row * block_positions + block.column(page);
      int64_t far = ahead(keys, head * key_bytes, part.kv_count * key_bytes, behind);
      // A tile's many rows take so long that the whole next page can come.
      if (block.rows() >= expanded_rows) far = block.keys_behind(page) - keys;
      add_scores(shape, gemm, key_queries(shape, work, row),
                 {keys + head * key_bytes, key_bytes, far, seconds - keys, false, work.scores + at}, block.rows(),
                 work);
      if (shape.tail_dim == 0) continue;
      far = ahead(seconds, head * second_bytes, part.kv_count * second_bytes, block.keys_behind(page));
      add_scores(shape, gemm, tail_queries(shape, work, row),
                 {seconds + head * second_bytes, second_bytes, far, 0, !shape.coded(),
                  (shape.coded() ? work.tails : work.scores) + at},
                 block.rows(), work);
    }
  }
}

void softmax_of(const AttentionShape& shape, const Block& block, const AttentionPart& part, AttentionWorkspace& work) {
  if (!shape.coded() && block.rows() == part.head_rows)
    return attention_softmax(shape, block.columns, 0, part.rows(), work);
  const int64_t bytes = shape.tail_dim > 0 ? shape.key_bytes() : shape.second_bytes();
  for (int64_t head = 0; head < part.kv_count; ++head) {
    for (int64_t page = 0; shape.coded() && page < block.pages; ++page) {
      const std::byte* values = shape.tail_dim > 0 ? block.keys[page] : block.seconds[page];
      std::copy_n(shape.scales(values + head * bytes, bytes), page_positions, work.value_scales + block.column(page));
    }
    attention_softmax(shape, block.columns, head * part.head_rows + block.begin, head * part.head_rows + block.end,
                      work);
  }
}

/// Where a kv head's values of each page are, with rows of padded_dim.
void find_values(const AttentionShape& shape, const Block& block, int64_t head, const std::byte* values[block_pages],
                 AttentionWorkspace& work) {
  const int64_t copy_bytes = value_rows(shape, page_positions) * shape.padded_dim * element_of(shape);
  for (int64_t page = 0; page < block.pages; ++page) {
    values[page] = block.seconds[page] + head * shape.second_bytes();
    if (!copies_values(shape)) continue;
    std::byte* copy = work.values + page * copy_bytes;
    if (shape.tail_dim > 0)
      attention_turn(shape.pages, block.keys[page] + head * shape.key_bytes(), shape.value_dim, shape.padded_dim, copy);
    else pad_values(shape, values[page], value_rows(shape, block.slots(page)), copy);
    values[page] = copy;
  }
}

/// output += weights times the values of a block of one page.
void add_values(const AttentionShape& shape, const AttentionGemm& gemm, const Block& page, GemmFloatArgs args,
                const std::byte* values, int64_t head, const AttentionPart& part) {
  const int64_t bytes = shape.second_bytes();
  args.b = values;
  args.b_stride = shape.padded_dim * element_of(shape);
  args.b_panel = panel_columns * element_of(shape);
  if (!copies_values(shape)) args.b_ahead = ahead(page.seconds[0], head * bytes, part.kv_count * bytes, page.next);
  args.k = value_rows(shape, page.slots(0));
  gemm.pages.run(args, page.rows(), shape.padded_dim / panel_columns);
}

/// The same for a block of any pages, with panels that are expanded first. Codes are summed page by page, as they are
/// where rows are few.
void add_expanded_values(const AttentionShape& shape, const AttentionGemm& gemm, const Block& block, GemmFloatArgs args,
                         const std::byte* const values[], AttentionWorkspace& work) {
  const int64_t element = element_of(shape), stride = shape.padded_dim * element,
                panels = shape.padded_dim / panel_columns;
  const int64_t page_rows = value_rows(shape, page_positions), last = block.pages - 1,
                k = last * page_rows + value_rows(shape, block.slots(last));
  const int64_t step = std::min<int64_t>(max_expanded, gemm.panels.panels_per_tile(gemm.panels.rows_per_tile()));
  args.b_stride = panel_row;
  args.b_panel = k * panel_row;
  for (int64_t p = 0; p < panels; p += step) {
    const int64_t count = std::min(step, panels - p);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t page = 0; page < block.pages; ++page) {
        attention_expand(shape.pages, values[page] + (p + i) * panel_columns * element, stride,
                         value_rows(shape, block.slots(page)), 0,
                         work.panels + i * args.b_panel + page * page_rows * panel_row);
      }
    }
    const int64_t most = shape.coded() ? page_rows : k;
    for (int64_t done = 0; done < k; done += most) {
      GemmFloatArgs rows = args;
      rows.a = static_cast<const std::byte*>(args.a) + done * 4;
      rows.b = work.panels + done * panel_row;
      rows.k = std::min(most, k - done);
      gemm.panels.run(rows, block.rows(), count);
    }
    args.c += count * panel_columns;
  }
}

void gather_values(const AttentionShape& shape, const AttentionGemm& gemm, const Block& block,
                   const AttentionPart& part, AttentionWorkspace& work) {
  for (int64_t head = 0; head < part.kv_count; ++head) {
    const int64_t row = head * part.head_rows + block.begin, weight = row * block_positions + block.columns.from;
    const std::byte* values[block_pages];
    find_values(shape, block, head, values, work);
    // Columns that no row sees may hold anything, so they are left out; fma(0, v, x) would be x anyway.
    GemmFloatArgs args{.a = work.scores + weight,
                       .a_stride = block_positions * 4,
                       .b = nullptr,
                       .b_stride = 0,
                       .b_panel = 0,
                       .b_ahead = 0,
                       .c = work.output + row * shape.padded_dim,
                       .c_stride = shape.padded_dim * 4,
                       .k = 0,
                       .accumulate = 1};
    if (shape.coded()) {
      args.a = work.weight_codes + weight;
      args.a_stride = block_positions * 2;
      args.row_scales = work.weight_scale + row;
    }
    if (block.rows() < expanded_rows) add_values(shape, gemm, block, args, values[0], head, part);
    else add_expanded_values(shape, gemm, block, args, values, work);
  }
}

}  // namespace

size_t AttentionWorkspace::bytes(const AttentionShape& shape) {
  AttentionWorkspace unused(shape, nullptr);
  return carve(shape, nullptr, &unused);
}
AttentionWorkspace::AttentionWorkspace(const AttentionShape& shape, std::byte* at) { carve(shape, at, this); }

void attention_range(const AttentionShape& shape, const AttentionGemm& gemm, const KernelArgs& args,
                     const AttentionPart& part, int64_t range, AttentionWorkspace& work) {
  const int64_t rows = part.rows();
  for (int64_t r = 0; r < rows; ++r)
    attention_clear(shape, work.maximum[r], work.sum[r], work.output + r * shape.padded_dim);
  // Every kv head has the same tokens, so the rows of the first one tell.
  const int32_t *first = work.first, *last = work.last;
  const int64_t lowest = *std::min_element(first, first + part.head_rows),
                highest = *std::max_element(last, last + part.head_rows);
  const int64_t last_page = highest / page_positions;
  const int64_t begin_page = std::max(range * range_pages, lowest / page_positions),
                end_page = std::min((range + 1) * range_pages, last_page + 1);
  const int32_t* table = args.in[5].as<int32_t>() + args.in[4].as<int32_t>()[part.tile.row] * shape.max_pages;
  const auto pages_of = [&](int input, int64_t page, int64_t bytes) {
    return args.in[input].data + (table[page] * shape.kv_heads + part.kv_begin) * bytes;
  };
  for (int64_t p = begin_page; p < end_page;) {
    const int64_t block_begin = p / block_pages * block_pages,
                  block_end = std::min(block_begin + block_pages, end_page);
    const int64_t position = block_begin * page_positions, from = p * page_positions, to = block_end * page_positions;
    Block block{.columns = {position, from - position, to - position},
                .seen = std::min(to, highest + 1) - position,
                .begin = 0,
                .end = part.head_rows,
                .next = pages_of(6, std::min(block_end, last_page), shape.key_bytes())};
    while (block.begin < block.end && (last[block.begin] < from || first[block.begin] >= to)) ++block.begin;
    while (block.begin < block.end && (last[block.end - 1] < from || first[block.end - 1] >= to)) --block.end;
    for (; p < block_end; ++p, ++block.pages) {
      block.keys[block.pages] = pages_of(6, p, shape.key_bytes());
      block.seconds[block.pages] = pages_of(7, p, shape.second_bytes());
    }
    if (block.begin == block.end) continue;
    scores_of(shape, gemm, block, part, work);
    softmax_of(shape, block, part, work);
    // Few rows wait for memory, which is fastest in order.
    if (block.rows() >= expanded_rows) {
      gather_values(shape, gemm, block, part, work);
      continue;
    }
    for (int64_t page = 0; page < block.pages; ++page) gather_values(shape, gemm, one_page(block, page), part, work);
  }
}

}  // namespace nibble::jit
