// SPDX-License-Identifier: Apache-2.0
#include "models/pieces.h"

#include <array>
#include <iterator>
#include <utility>

#include "tensor/check.h"

namespace nibble::models {

namespace {

struct Context {
  const Config& config;
  const std::string& where;
  std::string_view piece;

  template <class... Args>
  void check(bool ok, const Args&... args) const {
    if (!ok) fail(where, ", piece '", piece, "': ", args...);
  }
};

/// Keeps these rows of what the slice is so far.
void select(Slice& slice, const std::vector<RowRun>& wanted) {
  std::vector<RowRun> runs;
  for (const RowRun& want : wanted)
    for_each_run(slice, want.row, want.count, [&](int64_t row, int64_t count) {
      if (!runs.empty() && runs.back().row + runs.back().count == row) runs.back().count += count;
      else runs.push_back({row, count});
    });
  slice.runs = std::move(runs);
}

/// Block `index` of `sizes`, one after the other, that repeat `repeats` times over the rows.
void select_block(Slice& slice, const Context& c, std::initializer_list<int64_t> sizes, int index, int64_t repeats) {
  int64_t period = 0, begin = 0, i = 0, size = 0;
  for (const int64_t s : sizes) {
    if (i == index) begin = period, size = s;
    period += s;
    ++i;
  }
  c.check(slice.rows() == period * repeats, "expected ", period * repeats, " rows, found ", slice.rows());
  std::vector<RowRun> runs;
  for (int64_t r = 0; r < repeats; ++r) runs.push_back({r * period + begin, size});
  select(slice, runs);
}

template <int index>
void fused(Slice& slice, const Context& c) {
  const int64_t q = int64_t{c.config.heads} * c.config.head_dim, k = int64_t{c.config.kv_heads} * c.config.head_dim;
  select_block(slice, c, {q, k, k}, index, 1);
}

template <int index>
void grouped(Slice& slice, const Context& c) {
  const int64_t head = c.config.head_dim, group = c.config.heads / c.config.kv_heads;
  select_block(slice, c, {group * head, head, head}, index, c.config.kv_heads);
}

template <int index>
void around_rope(Slice& slice, const Context& c) {
  c.check(slice.rows() > c.config.rope_dim, "expected more than ", c.config.rope_dim, " rows, found ", slice.rows());
  select_block(slice, c, {slice.rows() - c.config.rope_dim, c.config.rope_dim}, index, 1);
}

template <int index>
void half(Slice& slice, const Context& c) {
  c.check(slice.rows() % 2 == 0, "expected an even number of rows, found ", slice.rows());
  select_block(slice, c, {slice.rows() / 2, slice.rows() / 2}, index, 1);
}

template <int index>
void alternate(Slice& slice, const Context& c) {
  c.check(slice.rows() % 2 == 0, "expected an even number of rows, found ", slice.rows());
  select_block(slice, c, {1, 1}, index, slice.rows() / 2);
}

void after_two(Slice& slice, const Context& c) {
  c.check(slice.rows() > 2, "expected more than 2 rows, found ", slice.rows());
  select(slice, {{2, slice.rows() - 2}});
}

void unit_head(Slice& slice, const Context& c) { slice.unit_rows = c.config.unit_head; }

template <bool to_halves>
void reorder_heads(Slice& slice, const Context& c) {
  const int64_t head = c.config.head_dim, pairs = c.config.rope_dim / 2;
  c.check(slice.rows() % head == 0, "expected a multiple of ", head, " rows, found ", slice.rows());
  std::vector<RowRun> runs;
  for (int64_t begin = 0; begin < slice.rows(); begin += head) {
    for (int64_t i = 0; i < 2 * pairs; ++i) {
      const int64_t from = to_halves ? 2 * (i % pairs) + i / pairs : i / 2 + i % 2 * pairs;
      runs.push_back({begin + from, 1});
    }
    if (2 * pairs < head) runs.push_back({begin + 2 * pairs, head - 2 * pairs});
  }
  select(slice, runs);
}

void transpose(Slice& slice, const Context& c) {
  if (slice.vector()) return;
  c.check(slice.runs == std::vector<RowRun>{{0, slice.source_rows}}, "must stand before pieces that choose rows");
  std::swap(slice.source_rows, slice.columns);
  slice.transposed = !slice.transposed;
  slice.runs = {{0, slice.source_rows}};
}

void plus_one(Slice& slice, const Context& c) {
  c.check(slice.vector(), "expected a vector, found ", to_string(slice.shape()));
  slice.add = 1;
}

void row(Slice& slice, const Context& c) {
  if (!slice.vector()) return;
  c.check(slice.runs == std::vector<RowRun>{{0, slice.source_rows}}, "must stand before pieces that choose rows");
  slice.columns = std::exchange(slice.source_rows, 1);
  slice.runs = {{0, 1}};
}

// Done by make_slice, which knows the tensor's third dimension, or the head.
void whole(Slice&, const Context&) {}

struct Piece {
  std::string_view name;
  void (*apply)(Slice&, const Context&);
};

constexpr Piece pieces_list[] = {
    {"q", fused<0>},           {"k", fused<1>},          {"v", fused<2>},          {"group_q", grouped<0>},
    {"group_k", grouped<1>},   {"group_v", grouped<2>},  {"first_half", half<0>},  {"second_half", half<1>},
    {"even", alternate<0>},    {"odd", alternate<1>},    {"to_halves", reorder_heads<true>},
    {"to_pairs", reorder_heads<false>},                  {"experts", whole},     {"transpose", transpose},
    {"latent_k", whole},       {"latent_v", whole},      {"before_rope", around_rope<0>}, {"rope", around_rope<1>},
    {"plus_one", plus_one},    {"after_two", after_two},  {"unit_head", unit_head},
    {"row", row},
};

const Piece& find_piece(std::string_view name, const std::string& where) {
  std::string known;
  for (const Piece& piece : pieces_list) {
    if (piece.name == name) return piece;
    known += message(known.empty() ? "" : ", ", piece.name);
  }
  fail(where, ": unknown piece '", name, "': expected one of ", known);
}

/// Calls visit(name) for each of "a,b,c".
template <class Visit>
void for_each_piece(std::string_view pieces, const Visit& visit) {
  while (!pieces.empty()) {
    const size_t comma = pieces.find(',');
    visit(pieces.substr(0, comma));
    pieces.remove_prefix(comma == std::string_view::npos ? pieces.size() : comma + 1);
  }
}

bool has_piece(std::string_view pieces, std::string_view wanted) {
  bool found = false;
  for_each_piece(pieces, [&](std::string_view name) { found = found || name == wanted; });
  return found;
}

/// The one among `pieces` that makes a matrix for each head; empty without.
std::string_view latent_piece(std::string_view pieces) {
  for (std::string_view name : {"latent_k", "latent_v"})
    if (has_piece(pieces, name)) return name;
  return {};
}

/// "latent_k" or "latent_v" of one head.
Slice latent(const Shape& shape, std::string_view piece, int64_t head, const Config& config, const std::string& where) {
  const int64_t k = config.head_dim - config.rope_dim, v = config.value_size();
  NIBBLE_CHECK(shape.rank() == 2 && shape[0] == config.heads * (k + v), where, ", piece '", piece,
               "': expected a matrix of ", config.heads * (k + v), " rows, found ", to_string(shape));
  Slice slice;
  if (piece == "latent_k") {
    slice.transposed = slice.whole_lines = true;
    slice.first = head * (k + v) * shape[1];
    slice.source_rows = shape[1];
    slice.columns = k;
    slice.runs = {{0, shape[1]}};
  } else {
    slice.source_rows = shape[0];
    slice.columns = shape[1];
    slice.runs = {{head * (k + v) + k, v}};
  }
  return slice;
}

}  // namespace

int64_t Slice::rows() const {
  int64_t sum = 0;
  for (const RowRun& run : runs) sum += run.count;
  return sum;
}

Shape Slice::shape() const { return vector() ? Shape{rows()} : Shape{rows(), columns}; }

bool has_experts(std::string_view pieces) { return has_piece(pieces, "experts") || !latent_piece(pieces).empty(); }

int64_t slice_count(const Shape& shape, std::string_view pieces, const Config& config, const std::string& where) {
  if (!has_experts(pieces)) return 1;
  if (!latent_piece(pieces).empty()) return config.heads;
  NIBBLE_CHECK(shape.rank() == 2 || shape.rank() == 3, where, ": expected (experts, n, k) or (experts, n), found ",
               to_string(shape));
  return shape[0];
}

Slice make_slice(const Shape& shape, std::string_view pieces, int64_t expert, const Config& config,
                 const std::string& where) {
  Slice slice;
  if (const std::string_view piece = latent_piece(pieces); !piece.empty()) {
    slice = latent(shape, piece, expert, config, where);
  } else {
    const int dim = has_experts(pieces) ? 1 : 0;
    slice_count(shape, pieces, config, where);
    NIBBLE_CHECK(shape.rank() - dim == 1 || shape.rank() - dim == 2, where, ": expected a vector or a matrix, found ",
                 to_string(shape));
    if (dim == 1) slice.first = expert * (shape.elements() / shape[0]);
    slice.source_rows = shape[dim];
    slice.columns = shape.rank() - dim == 2 ? shape[dim + 1] : 0;
    slice.runs = {{0, slice.source_rows}};
  }
  for_each_piece(pieces, [&](std::string_view name) {
    find_piece(name, where).apply(slice, {.config = config, .where = where, .piece = name});
  });
  return slice;
}

std::span<const std::string_view> all_pieces() {
  static constexpr auto names = [] {
    std::array<std::string_view, std::size(pieces_list)> out;
    for (size_t i = 0; i < out.size(); ++i) out[i] = pieces_list[i].name;
    return out;
  }();
  return names;
}

}  // namespace nibble::models
