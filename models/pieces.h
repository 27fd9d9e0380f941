// SPDX-License-Identifier: Apache-2.0
// Pieces: named ways in which one tensor of a file is several weights, or the same weight in another order. An
// architecture names them behind a path: "transformer.h.{}.attn.c_attn#transpose,q". Several are applied from left to
// right. They only choose and order rows (blocks of quantised rows stay as they are), but for `transpose`,
// `plus_one` and `unit_head`, which need elements that are not quantised, and `latent_k`, which makes floats of them. A
// bias goes through the same pieces as its weight.
//
//   q k v                      of rows [q; k; v]: heads, kv_heads and kv_heads times head_dim
//   group_q group_k group_v    of kv_heads groups of rows [q heads of the group, k, v]; with kv_heads == heads that is
//                              [q k v] per head
//   latent_k latent_v          of heads groups of rows [k without its rotated part, v]: one matrix per head, that of k
//                              transposed
//   before_rope rope           of rows [a; rope_dim rows]
//   first_half second_half     of rows [a; b]
//   even odd                   of rows a b a b ...
//   after_two                  all but the first two rows
//   to_halves                  of each head, the first rope_dim rows: pairs (2i, 2i + 1) become (i, i + rope_dim / 2)
//   to_pairs                   the inverse of to_halves
//   experts                    of (experts, n, k): one matrix per expert; of (experts, n): one vector
//                              (also for norms with weights of their own for each head)
//   transpose                  of (k, n), the weight (n, k); biases pass
//   row                        of a vector (n), the matrix (1, n); matrices pass
//   plus_one                   1 is added to each element of a vector
//   unit_head                  if Config::unit_head, each row is divided by its length
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/arch.h"

namespace nibble::models {

/// Consecutive rows.
struct RowRun {
  int64_t row = 0, count = 0;
  bool operator==(const RowRun&) const = default;
};

/// What one weight takes of a file's tensor. With `first` the element where a 2-d (or 1-d) tensor begins:
///   not transposed: it is (n, columns), and the weight's rows are the rows of `runs`, one after the other;
///   transposed:     it is (columns, n), and the weight's rows are those columns; with `whole_lines` the n elements of
///   a
///                   line are whole blocks, and may be quantised.
/// A vector has columns == 0, its elements are the rows.
struct Slice {
  int64_t first = 0;
  int64_t source_rows = 0;  ///< n
  int64_t columns = 0;
  bool transposed = false;
  bool whole_lines = false;
  float add = 0;
  bool unit_rows = false;   ///< each row divided by its length
  std::vector<RowRun> runs;

  bool vector() const { return columns == 0; }
  int64_t rows() const;  ///< of the weight
  Shape shape() const;    ///< of the weight
};

/// Whether `pieces` make one weight for each expert, or head.
bool has_experts(std::string_view pieces);
/// Number of weights that `pieces` ("experts,transpose") make of a tensor: the experts, or heads, or 1.
int64_t slice_count(const Shape& shape, std::string_view pieces, const Config& config, const std::string& where);
/// Applies the pieces to a tensor of one, two or (with "experts") three dimensions, for one expert or head. `where`
/// begins error messages. Throws Error for unknown pieces and shapes that don't fit the config.
Slice make_slice(const Shape& shape, std::string_view pieces, int64_t expert, const Config& config,
                 const std::string& where);

/// Calls visit(source row, count) for the source rows that hold rows [row, row + count) of the weight, in order.
template <class Visit>
void for_each_run(const Slice& slice, int64_t row, int64_t count, const Visit& visit) {
  for (const RowRun& run : slice.runs) {
    if (count == 0) return;
    if (row >= run.count) {
      row -= run.count;
      continue;
    }
    const int64_t here = run.count - row < count ? run.count - row : count;
    visit(run.row + row, here);
    row = 0;
    count -= here;
  }
}

std::span<const std::string_view> all_pieces();

}  // namespace nibble::models
