// SPDX-License-Identifier: Apache-2.0
// Attention over pages of 32 positions, in tiles: consecutive rows of one sequence times the query heads of some kv heads.
// Few rows take several kv heads together: their pages follow each other in memory, and the softmax of one head hides the
// latency of another's.
//
// Same bits however rows are batched and work is split: positions are cut into fixed ranges of 512. Each range gives
// every row one partial (maximum, sum, output), made page by page in order; partials are merged in order, always by the
// same formula. A row that sees nothing of a page or range may pass through it: that changes nothing, since
// exp2(0) = 1 exactly and hidden positions weigh 0 (only the sign of a zero could change, and the last step clears it).
//
// i8 pages: codes are read as floats; a slot's key scale multiplies its scores, its value scale its weights, so that the
// products themselves know nothing of scales.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "jit/gemm_float.h"
#include "tensor/op.h"

namespace nibble::jit {

inline constexpr int page_positions = 32;
inline constexpr int range_positions = 512;
inline constexpr int range_pages = range_positions / page_positions;

struct AttentionShape {
  int64_t rows = 0, heads = 0, kv_heads = 0;
  int64_t head_dim = 0, value_dim = 0;  ///< of q and k, of v and the result
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
  int64_t tile_rows = 0;    ///< tile_tokens * heads_per_kv * group

  int64_t page_bytes(int64_t dim) const {  ///< of one kv head
    return pages == DType::i8 ? page_positions * (dim + 4) : page_positions * dim * static_cast<int64_t>(element_bytes(pages));
  }
  /// The positions that a token row sees.
  int64_t first_position(const KernelArgs& args, int64_t row) const {
    return window > 0 ? std::max<int64_t>(0, args.in[3].as<int32_t>()[row] - window + 1) : 0;
  }
  int64_t last_position(const KernelArgs& args, int64_t row) const {
    const int64_t last = ends < 0 ? args.in[3].as<int32_t>()[row] : args.in[ends].as<int32_t>()[row] - 1;
    return std::min(last, max_pages * page_positions - 1);
  }
};

/// Consecutive token rows of one sequence.
struct AttentionTile {
  int32_t row, rows;
};

/// A tile's part of some kv heads. Its rows are ordered by kv head, token, query head.
struct AttentionPart {
  AttentionTile tile;
  int64_t kv_begin, kv_count;
  int64_t head_rows;  ///< rows of one kv head
  AttentionPart(const AttentionShape& shape, AttentionTile t, int64_t group)
      : tile(t),
        kv_begin(group * shape.group),
        kv_count(std::min(shape.group, shape.kv_heads - kv_begin)),
        head_rows(t.rows * shape.heads_per_kv) {}
  int64_t rows() const { return kv_count * head_rows; }
  int64_t token(const AttentionShape& shape, int64_t r) const { return tile.row + r % head_rows / shape.heads_per_kv; }
  int64_t head(const AttentionShape& shape, int64_t r) const {
    return (kv_begin + r / head_rows) * shape.heads_per_kv + r % shape.heads_per_kv;
  }
};

/// One worker's buffers, 64-byte aligned parts of the scratch memory.
struct AttentionWorkspace {
  float *query;              ///< (tile_rows, head_dim), scaled
  float *scores;             ///< (tile_rows, 32)
  float *output, *total;     ///< (tile_rows, padded_dim): of the range, of all ranges so far
  float *maximum, *sum;      ///< (tile_rows) of the range
  float *factor;             ///< (tile_rows) what the page before is scaled by
  float *total_maximum, *total_sum;
  int32_t *first, *last;     ///< (tile_rows) positions that the row sees
  int32_t *position;         ///< (tile_rows) the row's own
  float *slope;              ///< (tile_rows) per position, in units of log2; only with slopes
  std::byte *values;         ///< (32, padded_dim): a V page whose value_dim is not a multiple of 16
  static size_t bytes(const AttentionShape& shape);
  AttentionWorkspace(const AttentionShape& shape, std::byte* at);
};

/// The state of one row after one range, as kept for merging: maximum, sum, 14 unused, output (padded_dim).
inline int64_t partial_floats(const AttentionShape& shape) { return 16 + shape.padded_dim; }

/// Writes rows [begin, end) of k and v at their positions, for one kv head.
void attention_store(const AttentionShape& shape, const KernelArgs& args, int64_t begin, int64_t end, int64_t kv_head);

/// Fills what the workspace keeps of each row; the totals start.
void attention_load(const AttentionShape& shape, const KernelArgs& args, const AttentionPart& part, AttentionWorkspace& work);
/// The partial of range `range` into maximum, sum, output.
void attention_range(const AttentionShape& shape, const GemmFloat& gemm, const KernelArgs& args, const AttentionPart& part,
                     int64_t range, AttentionWorkspace& work);

/// (maximum, sum, output) of what came before, merged with the next range's.
void attention_merge(const AttentionShape& shape, float& total_maximum, float& total_sum, float* total, float maximum,
                     float sum, const float* output);
/// total / sum into value_dim floats.
void attention_finish(const AttentionShape& shape, float sum, const float* total, float* out);
/// Maximum and sum before any position, of a range.
void attention_clear(const AttentionShape& shape, float& maximum, float& sum, float* output);
/// The same of a query head's total: its sink, if any, counts as a position without a value.
void attention_start(const AttentionShape& shape, const KernelArgs& args, int64_t head, float& maximum, float& sum, float* output);

/// Where a page stands and what its codes are worth, null unless they are i8.
struct PageScales {
  int64_t first_position;
  const float *keys, *values;
};
/// Softmax of rows [begin, end) over one page, in place in work.scores; hidden scores weigh 0. Updates maximum and sum
/// and scales what the rows have gathered so far.
void attention_softmax(const AttentionShape& shape, const PageScales& page, int64_t begin, int64_t end, AttentionWorkspace& work);
void attention_scale(float* output, int64_t count, float factor);

}  // namespace nibble::jit
