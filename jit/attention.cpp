// SPDX-License-Identifier: Apache-2.0
// The attention kernels: store, then tiles times groups of kv heads; few tiles with long contexts are split by range as
// well.
#include "jit/attention.h"

#include <algorithm>

#include "jit/float_kernels.h"
#include "tensor/check.h"
#include "tensor/kernel.h"

namespace nibble::jit {

namespace {

// Rows that several kv heads or a slice of heads bring together: enough to reuse a page from L1.
constexpr int64_t rows_per_group = 48;
// Tokens per tile: it works on as many positions too many for half of its rows.
constexpr int64_t tokens_per_tile = 48;
// Rows per tile: the more, the less expanding a page costs, as long as what is kept of them stays in L2.
constexpr int64_t rows_per_tile = 192, tile_bytes = 256 << 10;
// Fewer query heads of a kv head than a kernel's rows would waste it.
constexpr int64_t least_slice = 6;
// Above this many rows there are tiles enough for every worker without splitting ranges.
constexpr int64_t max_split_rows = 64;

struct Plan {  ///< made by worker 0 in scratch memory, read by all
  int64_t tiles, ranges;
  bool split;
};

struct State {
  AttentionShape shape;
  AttentionGemm gemm;
  size_t tiles_offset = 0, work_offset = 0, work_bytes = 0, partials_offset = 0;
};

struct Ranges {
  int64_t begin, end;
};
/// Those that rows [row, row + rows) see.
Ranges ranges_of(const AttentionShape& shape, const KernelArgs& args, int64_t row, int64_t rows) {
  int64_t first = shape.first_position(args, row), last = shape.last_position(args, row);
  for (int64_t i = row + 1; i < row + rows; ++i) {
    first = std::min(first, shape.first_position(args, i));
    last = std::max(last, shape.last_position(args, i));
  }
  return {first / range_positions, last / range_positions + 1};
}

void make_plan(const AttentionShape& shape, const KernelArgs& args, Plan& plan, AttentionTile* tiles) {
  const int32_t* sequences = args.in[4].as<int32_t>();
  plan.tiles = 0;
  plan.ranges = 1;
  for (int64_t row = 0; row < shape.rows;) {
    int64_t end = row;
    while (end < shape.rows && end - row < shape.tile_tokens && sequences[end] == sequences[row]) ++end;
    tiles[plan.tiles++] = {static_cast<int32_t>(row), static_cast<int32_t>(end - row)};
    const Ranges ranges = ranges_of(shape, args, row, end - row);
    plan.ranges = std::max(plan.ranges, ranges.end - ranges.begin);
    row = end;
  }
  // Four items per worker even out; more pieces would only add merging.
  plan.split = shape.rows <= max_split_rows && plan.ranges > 1 && args.worker.count > 1 &&
               plan.tiles * shape.groups * shape.slices < 4 * args.worker.count;
}

float* result(const AttentionShape& shape, const KernelArgs& args, int64_t row, int64_t head) {
  return args.out.as<float>() + row * args.out.strides[0] + head * shape.value_dim;
}

void run_part(const State& state, const KernelArgs& args, const AttentionPart& part, AttentionWorkspace& work) {
  const AttentionShape& shape = state.shape;
  attention_load(shape, args, part, work);
  const int64_t rows = part.rows(), dp = shape.padded_dim;
  const Ranges ranges = ranges_of(shape, args, part.tile.row, part.tile.rows);
  for (int64_t range = ranges.begin; range < ranges.end; ++range) {
    attention_range(shape, state.gemm, args, part, range, work);
    for (int64_t r = 0; r < rows; ++r) {
      attention_merge(shape, work.total_maximum[r], work.total_sum[r], work.total + r * dp, work.maximum[r],
                      work.sum[r], work.output + r * dp);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    attention_finish(shape, work.total_sum[r], work.total + r * dp,
                     result(shape, args, part.token(r), part.head(shape, r)));
  }
}

float* partial(const State& state, const KernelArgs& args, int64_t row, int64_t head, int64_t range) {
  const int64_t index = (row * state.shape.heads + head) * state.shape.max_ranges + range;
  return reinterpret_cast<float*>(args.scratch + state.partials_offset) + index * partial_floats(state.shape);
}

void run_split(const State& state, const KernelArgs& args, const AttentionPart& part, int64_t index,
               AttentionWorkspace& work) {
  const AttentionShape& shape = state.shape;
  const Ranges ranges = ranges_of(shape, args, part.tile.row, part.tile.rows);
  const int64_t range = ranges.begin + index;
  if (range >= ranges.end) return;
  attention_load(shape, args, part, work);
  attention_range(shape, state.gemm, args, part, range, work);
  for (int64_t r = 0; r < part.rows(); ++r) {
    float* to = partial(state, args, part.token(r), part.head(shape, r), range);
    to[0] = work.maximum[r];
    to[1] = work.sum[r];
    std::copy_n(work.output + r * shape.padded_dim, shape.padded_dim, to + 16);
  }
}

void merge_split(const State& state, const KernelArgs& args, AttentionWorkspace& work) {
  const AttentionShape& shape = state.shape;
  const int64_t items = shape.rows * shape.heads;
  const int64_t begin = items * args.worker.index / args.worker.count,
                end = items * (args.worker.index + 1) / args.worker.count;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t row = item / shape.heads, head = item % shape.heads;
    float maximum, sum;
    attention_start(shape, args, head, maximum, sum, work.total);
    const Ranges ranges = ranges_of(shape, args, row, 1);
    for (int64_t range = ranges.begin; range < ranges.end; ++range) {
      const float* from = partial(state, args, row, head, range);
      attention_merge(shape, maximum, sum, work.total, from[0], from[1], from + 16);
    }
    attention_finish(shape, sum, work.total, result(shape, args, row, head));
  }
}

void store_rows(const AttentionShape& shape, const KernelArgs& args) {
  const int64_t blocks = (shape.rows + page_positions - 1) / page_positions;
  for (int64_t item = args.worker.index; item < blocks * shape.kv_heads; item += args.worker.count) {
    const int64_t begin = item / shape.kv_heads * page_positions;
    attention_store(shape, args, begin, std::min(begin + page_positions, shape.rows), item % shape.kv_heads);
  }
}

void run(const void* opaque, const KernelArgs& args) {
  const State& state = *static_cast<const State*>(opaque);
  const AttentionShape& shape = state.shape;
  Plan& plan = *reinterpret_cast<Plan*>(args.scratch);
  auto* tiles = reinterpret_cast<AttentionTile*>(args.scratch + state.tiles_offset);
  if (args.worker.index == 0) make_plan(shape, args, plan, tiles);
  store_rows(shape, args);
  args.worker.barrier();
  AttentionWorkspace work(shape,
                          args.scratch + state.work_offset + static_cast<size_t>(args.worker.index) * state.work_bytes);
  const int64_t pieces = plan.split ? plan.ranges : 1, items = plan.tiles * shape.groups * shape.slices * pieces;
  for (int64_t item; (item = args.counters[0].fetch_add(1)) < items;) {
    // Late tiles see the most positions, so they come first; the tiles of one group follow each other.
    const AttentionPart part(shape, tiles[plan.tiles - 1 - item / pieces % plan.tiles], item / pieces / plan.tiles);
    if (plan.split) run_split(state, args, part, item % pieces, work);
    else run_part(state, args, part, work);
  }
  if (!plan.split) return;
  args.worker.barrier();
  merge_split(state, args, work);
}

/// Into tiles, groups and slices. One row of few kv heads has slices for all threads.
void cut(AttentionShape& s, int64_t threads) {
  const auto parts = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t row_bytes = (s.head_dim + 2 * s.padded_dim + block_positions) * static_cast<int64_t>(sizeof(float));
  const int64_t rows = std::clamp(tile_bytes / row_bytes, rows_per_group, rows_per_tile);
  // Smaller tiles where there would not be four for every thread.
  const int64_t shared = std::max(parts(s.rows * s.kv_heads, 4 * threads), rows_per_group / s.heads_per_kv);
  s.tile_tokens = std::min({tokens_per_tile, rows / s.heads_per_kv, shared, s.rows});
  s.tile_tokens = std::max<int64_t>(1, s.tile_tokens);
  s.group = std::clamp<int64_t>(rows_per_group / (s.tile_tokens * s.heads_per_kv), 1, parts(s.kv_heads, threads));
  s.groups = parts(s.kv_heads, s.group);
  s.slices = 1;
  if (s.group == 1) {
    const int64_t idle = parts(threads, s.groups * std::max<int64_t>(1, s.rows));
    s.slices = std::clamp<int64_t>(idle, 1, std::max<int64_t>(1, s.heads_per_kv / least_slice));
    s.slices = std::max(s.slices, parts(s.heads_per_kv, rows_per_group));
  }
  s.slice = parts(s.heads_per_kv, s.slices);
  s.slices = parts(s.heads_per_kv, s.slice);
  s.tile_rows = s.tile_tokens * s.slice * s.group;
}

AttentionShape shape_of(const Call& call) {
  AttentionShape s;
  s.rows = call.in[0].shape[0];
  s.heads = call.attrs().i("heads");
  s.kv_heads = call.attrs().i("kv_heads");
  s.head_dim = call.in[0].shape[1] / s.heads;
  s.value_dim = call.out.shape[1] / s.heads;
  if (call.attrs().i("tails", 0) != 0) s.tail_dim = s.head_dim - s.value_dim;
  s.padded_dim = (s.value_dim + 15) / 16 * 16;
  s.pages = call.in[6].dtype;
  s.heads_per_kv = s.heads / s.kv_heads;
  s.max_pages = call.in[5].shape[1];
  s.max_ranges = (s.max_pages + range_pages - 1) / range_pages;
  s.window = call.attrs().i("window", 0);
  s.softcap = static_cast<float>(call.attrs().f("softcap", 0));
  constexpr double log2_e = 1.4426950408889634;
  s.scale = static_cast<float>(call.attrs().f("scale") * (s.softcap != 0 ? 1 : log2_e));
  int input = 8;
  if (call.attrs().i("slopes", 0) != 0) s.slopes = input++;
  if (call.attrs().i("sinks", 0) != 0) s.sinks = input++;
  if (call.attrs().i("ends", 0) != 0) s.ends = input++;
  cut(s, call.threads);
  return s;
}

const char* rejects(const Call& call) {
  for (int i = 0; i < 3; ++i) {
    if (call.in[i].dtype != DType::f32) return "q, k and v must be f32";
    if (call.strides[i][1] != 1) return "the columns of q, k and v must stand side by side";
  }
  for (size_t i = 3; i < call.in.size(); ++i) {
    if (call.strides[i] != contiguous_strides(call.in[i].shape))
      return "positions, tables and pages must be contiguous";
  }
  return nullptr;
}

// How long the contexts will be is not known: a quarter of what the table can hold.
float cost(const Call& call, double flops_per_ns) {
  const AttentionShape s = shape_of(call);
  const double positions = static_cast<double>(s.max_pages * page_positions) / 4;
  const double flops = 2.0 * static_cast<double>(s.rows * s.heads * (s.head_dim + s.value_dim)) * positions;
  const double bytes = static_cast<double>(s.kv_heads * (s.key_bytes() + s.second_bytes())) *
                       positions / page_positions;
  return static_cast<float>(std::max(flops / flops_per_ns, bytes / 10) / call.threads + 1000);
}

template <Isa isa>
Bound bind(const Call& call) {
  auto state = std::make_shared<State>();
  state->shape = shape_of(call);
  const AttentionShape& s = state->shape;
  state->gemm = AttentionGemm(isa, s.pages);
  const auto align = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
  state->tiles_offset = align(sizeof(Plan));
  state->work_offset = state->tiles_offset + align(static_cast<size_t>(s.rows) * sizeof(AttentionTile));
  state->work_bytes = AttentionWorkspace::bytes(s);
  state->partials_offset = state->work_offset + state->work_bytes * static_cast<size_t>(call.threads);
  const int64_t split_rows = call.threads > 1 && s.rows <= max_split_rows && s.max_ranges > 1 ? s.rows : 0;
  const size_t partials = static_cast<size_t>(split_rows * s.heads * s.max_ranges * partial_floats(s)) * sizeof(float);
  Bound bound;
  bound.run = run;
  bound.scratch_bytes = state->partials_offset + partials;
  bound.detail = message(nibble::name(s.pages), " pages of 32, blocks of 128, ranges of 512, tiles of ", s.tile_rows,
                         " rows, ", name(isa));
  bound.state = std::move(state);
  return bound;
}

}  // namespace

void register_attention() {
  register_kernel({.name = "attention_avx2", .op = "attention", .isa = Isa::avx2, .rejects = rejects,
                   .cost = [](const Call& call) { return cost(call, 60); }, .bind = bind<Isa::avx2>});
  register_kernel({.name = "attention_avx512", .op = "attention", .isa = Isa::avx512vnni, .rejects = rejects,
                   .cost = [](const Call& call) { return cost(call, 100); }, .bind = bind<Isa::avx512vnni>});
}

}  // namespace nibble::jit
