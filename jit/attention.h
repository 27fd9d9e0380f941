// SPDX-License-Identifier: Apache-2.0
// Attention over pages of 32 positions, in tiles: consecutive rows of one sequence times query heads: those of some kv
// heads, or a slice of those of one. Few rows take several kv heads together: their pages follow each other in memory,
// and the softmax of one head hides the latency of another's.
//
// Same bits however rows are batched and work is split: positions are cut into fixed ranges of 512, and these into
// blocks of 128. Each range gives every row one partial (maximum, sum, output), made block by block in order; partials
// are merged in order, always by the same formula. Inside a block sums go by position. A row that sees nothing of a
// page, block or range may pass through it: that changes nothing, since exp2(0) = 1 exactly and hidden positions weigh
// 0 (only the sign of a zero could change, and the last step clears it).
//
// Few rows read pages as they are. Many would convert every element again and again, so they have a panel of 16 columns
// expanded to f32, or codes to int16, which stays in L1 while they all read it.
//
// With tails, a block's values are its keys turned over, once for each tile: a small part of what its rows do with
// them.
//
// i8 pages hold rotated keys and values (jit/hadamard.h) and are multiplied as integers: rotated queries become int16
// codes with a scale per row, and so do a block's weights once each has been multiplied with its slot's value scale.
// Sums are exact, so nothing depends on who computes them. Keys and tails are rotated and scaled each for itself.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "jit/gemm_float.h"
#include "tensor/op.h"

namespace nibble::jit {

inline constexpr int page_positions = 32;
inline constexpr int block_pages = 4;
inline constexpr int block_positions = block_pages * page_positions;
inline constexpr int range_positions = 512;
inline constexpr int max_head_dim = 1024;  // as in tensor/ops/attention.cpp
inline constexpr int range_pages = range_positions / page_positions;

struct AttentionShape {
  int64_t rows = 0, heads = 0, kv_heads = 0;
  int64_t head_dim = 0, value_dim = 0;  ///< of q and whole keys, of the result
  int64_t tail_dim = 0;     ///< of head_dim, what v_pages hold of keys; the rest is the values; 0: v_pages hold values
  int64_t padded_dim = 0;   ///< value_dim rounded up to 16
  DType pages = DType::f16; ///< f32, f16, bf16 or i8
  int64_t heads_per_kv = 0;
  int64_t max_pages = 0;    ///< columns of the page table
  int64_t max_ranges = 0;
  int64_t window = 0;
  float scale = 1;          ///< of a score, log2(e) included unless there is a softcap
  float softcap = 0;
  int slopes = -1, sinks = -1, ends = -1;  ///< inputs; -1 without
  int64_t tile_tokens = 0;  ///< at most
  int64_t group = 0, groups = 0;  ///< kv heads taken together, and how many such groups there are
  int64_t slice = 0, slices = 0;  ///< query heads of a kv head taken together; more than one slice only with group 1
  int64_t tile_rows = 0;    ///< tile_tokens * slice * group

  int64_t head_rows() const { return tile_tokens * slice; }  ///< of a tile for each kv head, at most
  int64_t key_dim() const { return head_dim - tail_dim; }            ///< of rows in k_pages
  int64_t second_dim() const { return tail_dim > 0 ? tail_dim : value_dim; }  ///< of rows in v_pages

  bool coded() const { return pages == DType::i8; }
  int64_t key_pairs() const { return (key_dim() + 1) / 2; }
  int64_t tail_pairs() const { return (tail_dim + 1) / 2; }
  /// Of one kv head in k_pages, and in v_pages.
  int64_t key_bytes() const { return page_bytes(coded() ? 2 * key_pairs() : key_dim()); }
  int64_t second_bytes() const { return page_bytes(tail_dim > 0 && coded() ? 2 * tail_pairs() : second_dim()); }
  /// The scales of a page's slots, behind its codes.
  static float* scales(std::byte* page, int64_t bytes) {
    return reinterpret_cast<float*>(page + bytes) - page_positions;
  }
  static const float* scales(const std::byte* page, int64_t bytes) {
    return reinterpret_cast<const float*>(page + bytes) - page_positions;
  }
  /// The positions that a token row sees.
  int64_t first_position(const KernelArgs& args, int64_t row) const {
    return window > 0 ? std::max<int64_t>(0, args.in[3].as<int32_t>()[row] - window + 1) : 0;
  }
  int64_t last_position(const KernelArgs& args, int64_t row) const {
    const int64_t last = ends < 0 ? args.in[3].as<int32_t>()[row] : args.in[ends].as<int32_t>()[row] - 1;
    return std::min(last, max_pages * page_positions - 1);
  }

 private:
  int64_t page_bytes(int64_t dim) const {
    return page_positions * (coded() ? dim + 4 : dim * static_cast<int64_t>(element_bytes(pages)));
  }
};

/// Consecutive token rows of one sequence.
struct AttentionTile {
  int32_t row, rows;
};

/// A tile's part of some kv heads, or of a slice of one's query heads. Its rows are ordered by kv head, token, query
/// head.
struct AttentionPart {
  AttentionTile tile;
  int64_t kv_begin, kv_count;
  int64_t first_head, heads;  ///< of each kv head
  int64_t head_rows;          ///< rows of one kv head
  /// `index` counts groups times slices.
  AttentionPart(const AttentionShape& shape, AttentionTile t, int64_t index)
      : tile(t),
        kv_begin(index / shape.slices * shape.group),
        kv_count(std::min(shape.group, shape.kv_heads - kv_begin)),
        first_head(index % shape.slices * shape.slice),
        heads(std::min(shape.slice, shape.heads_per_kv - first_head)),
        head_rows(t.rows * heads) {}
  int64_t rows() const { return kv_count * head_rows; }
  int64_t token(int64_t r) const { return tile.row + r % head_rows / heads; }
  int64_t head(const AttentionShape& shape, int64_t r) const {
    return (kv_begin + r / head_rows) * shape.heads_per_kv + first_head + r % heads;
  }
};

/// One worker's buffers, 64-byte aligned parts of the scratch memory.
struct AttentionWorkspace {
  float *query;              ///< (tile_rows, head_dim), scaled; not for i8 pages
  int16_t *query_codes;      ///< (tile_rows, key_pairs + tail_pairs, 2) for i8 pages
  int16_t *weight_codes;     ///< (tile_rows, 128) for i8 pages
  float *query_scale, *tail_scale, *weight_scale;  ///< (tile_rows) for i8 pages; tail_scale of the query's tail
  float *value_scales;       ///< (128) for i8 pages
  float *scores;             ///< (tile_rows, 128): a block's
  float *output, *total;     ///< (tile_rows, padded_dim): of the range, of all ranges so far
  float *maximum, *sum;      ///< (tile_rows) of the range
  float *factor;             ///< (tile_rows) what the blocks before are scaled by
  float *total_maximum, *total_sum;
  int32_t *first, *last;     ///< (tile_rows) positions that the row sees
  int32_t *position;         ///< (tile_rows) the row's own
  float *slope;              ///< (tile_rows) per position, in units of log2; only with slopes
  float *tails;              ///< (tile_rows, 128): the tails' part of scores; only with tails in i8
  std::byte *values;         ///< (128, padded_dim): a block's values copied to rows of padded_dim, or keys turned over
  std::byte *panels;         ///< expanded: max_expanded of head_dim or 128 rows of 64 bytes; not for few rows
  static size_t bytes(const AttentionShape& shape);
  AttentionWorkspace(const AttentionShape& shape, std::byte* at);
};

/// The kernels for pages as they are, and for expanded panels.
struct AttentionGemm {
  GemmFloat pages, panels;
  AttentionGemm() = default;
  AttentionGemm(Isa isa, DType type) : pages(isa, type), panels(isa, type == DType::i8 ? DType::i32 : DType::f32) {}
};
/// Panels that are expanded at once, at most; no more than a page is wide.
inline constexpr int64_t max_expanded = 2;

/// The state of one row after one range, as kept for merging: maximum, sum, 14 unused, output (padded_dim).
inline int64_t partial_floats(const AttentionShape& shape) { return 16 + shape.padded_dim; }

/// Writes rows [begin, end) of k and v at their positions, for one kv head.
void attention_store(const AttentionShape& shape, const KernelArgs& args, int64_t begin, int64_t end, int64_t kv_head);

/// Fills what the workspace keeps of each row; the totals start.
void attention_load(const AttentionShape& shape, const KernelArgs& args, const AttentionPart& part,
                    AttentionWorkspace& work);
/// The partial of range `range` into maximum, sum, output.
void attention_range(const AttentionShape& shape, const AttentionGemm& gemm, const KernelArgs& args,
                     const AttentionPart& part, int64_t range, AttentionWorkspace& work);

/// (maximum, sum, output) of what came before, merged with the next range's.
void attention_merge(const AttentionShape& shape, float& total_maximum, float& total_sum, float* total, float maximum,
                     float sum, const float* output);
/// total / sum into value_dim floats.
void attention_finish(const AttentionShape& shape, float sum, const float* total, float* out);
/// Maximum and sum before any position, of a range.
void attention_clear(const AttentionShape& shape, float& maximum, float& sum, float* output);
/// The same of a query head's total: its sink, if any, counts as a position without a value.
void attention_start(const AttentionShape& shape, const KernelArgs& args, int64_t head, float& maximum, float& sum,
                     float* output);

/// A page of keys of `count` elements as values (32, padded), in i8 of pairs (16, padded, 2): columns from `count` on
/// are of no use.
void attention_turn(DType type, const std::byte* page, int64_t count, int64_t padded, std::byte* values);
/// 16 columns of `rows` rows, `stride` bytes apart, to rows of 64 bytes: floats, or of i8 pairs as pairs of int16.
/// Lines that are `ahead` bytes further on are prefetched.
void attention_expand(DType type, const std::byte* in, int64_t stride, int64_t rows, int64_t ahead, std::byte* out);

/// Columns [from, to) of a block's scores, whole pages; column 0 is `position`.
struct AttentionColumns {
  int64_t position, from, to;
};
/// Softmax of rows [begin, end) over one block, in place in work.scores; hidden scores weigh 0. Updates maximum and sum
/// and scales what the rows have gathered so far. In i8 the products of weights and value_scales go into weight_codes
/// instead.
void attention_softmax(const AttentionShape& shape, const AttentionColumns& columns, int64_t begin, int64_t end,
                       AttentionWorkspace& work);
void attention_scale(float* output, int64_t count, float factor);

}  // namespace nibble::jit
