// SPDX-License-Identifier: Apache-2.0
#include "jit/matmul_plan.h"

#include <algorithm>

#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::jit {

namespace {

// Rows whose totals and activations of one k block stay in L2 while a chunk of panels passes over them.
constexpr int64_t rows_per_block = 256;
constexpr int64_t panels_per_chunk = 4;
constexpr int shares_left = 3;  // per worker, of what is left

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
size_t lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

MatmulPlan::MatmulPlan(const MicroKernel& kernel, const Call& call) {
  m = call.in[0].shape[0];
  k = call.in[0].shape[1];
  needs = quant::act_needs_of(*call.in[0].format);
  packed = m <= kernel.packed_limit(call.in[1].format->layout);
  isa_ = packed ? kernel.packed_isa : kernel.isa;
  if (!packed && kernel.release) release = &kernel.release();
  make_parts(kernel, call);
  panels_per_tile = packed ? kernel.packed_panels : kernel.panel_panels;

  int unit = quant::max_group, record = 0;
  for (const Part& part : parts) {
    unit = std::max(unit, part.shape.unit_k);
    record = std::max(record, part.panel_record);
  }
  // A tile's expanded panels take half of L1: the other half is for activations, totals and t.
  const auto half_l1 = static_cast<int64_t>(cache_sizes().l1d / 2);
  k_block = std::max<int64_t>(unit, half_l1 / (record * panels_per_tile) * quant::max_group / unit * unit);
  k_block = ceil_div(ceil_div(k, std::max<int64_t>(1, ceil_div(k, k_block))), unit) * unit;

  for (int rows = 0; rows <= max_rows; ++rows) {
    act_shapes.emplace_back(GemmKey{isa_, Source::packed, static_cast<uint8_t>(rows), 1, parts[0].layout});
  }
  make_tiles(packed ? kernel.packed_rows : kernel.panel_rows);
  make_chunks(call.threads);
  make_kernels(kernel);

  int64_t block_rows = 0, chunk_panels = 0;
  for (const RowBlock& block : row_blocks) block_rows = std::max(block_rows, block.rows);
  for (const Chunk& chunk : chunks) chunk_panels = std::max(chunk_panels, chunk.end_panel - chunk.panel);
  if (packed) {
    worker_bytes = lines(act_bytes);
    scratch_bytes = worker_bytes * static_cast<size_t>(tiles.size() > 1 ? 1 : call.threads);
    return;
  }
  const int64_t records = k_block / quant::max_group;
  expanded_bytes = lines(static_cast<size_t>(records * record * chunk_panels));
  totals_bytes = lines(static_cast<size_t>(block_rows * chunk_panels) * quant::panel_columns * sizeof(float));
  worker_bytes = expanded_bytes + totals_bytes * (gate ? 2 : 1);
  shared_bytes = lines(act_bytes);
  scratch_bytes = shared_bytes + worker_bytes * static_cast<size_t>(call.threads);
}

void MatmulPlan::make_parts(const MicroKernel& kernel, const Call& call) {
  const int weights = static_cast<int>(call.attrs().i("weights", 1));
  gate = !call.attrs().s("gate", "").empty();
  epilogue.function = parse_function(call.attrs().s(gate ? "gate" : "activation", ""));
  epilogue.gate = gate;
  int next = 1 + weights;
  if (call.attrs().i("bias", 0)) bias = next++;
  if (call.attrs().i("residual", 0)) residual = next++;
  epilogue.bias = bias != 0;
  if (residual)
    epilogue.residual = static_cast<uint8_t>(1 + static_cast<int>(call.in[static_cast<size_t>(residual)].dtype));
  int64_t column = 0;
  for (int w = 1; w <= weights; ++w) {
    const QuantLayout& layout = call.in[static_cast<size_t>(w)].format->layout;
    const int64_t n = call.in[static_cast<size_t>(w)].shape[0];
    NIBBLE_CHECK(kernel.rejects(layout) == nullptr, "weight ", w, ": ", kernel.rejects(layout));
    Part part{.input = w, .n = n, .first_column = gate ? 0 : column, .layout = layout,
              .shape = GemmShape({isa_, Source::packed, 1, 1, layout}),
              .geometry = quant::panel_geometry(layout, n, k)};
    part.panel_record = GemmShape({isa_, Source::panel, 1, 1, expanded_layout(isa_, layout)}).panel_bytes;
    column += n;
    parts.push_back(part);
  }
}

// As few tiles as the largest allows, their rows as even as possible.
void MatmulPlan::make_tiles(int rows_per_tile) {
  const int64_t blocks = std::max<int64_t>(1, ceil_div(m, rows_per_block));
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = m * b / blocks, end = m * (b + 1) / blocks;
    const int64_t count = ceil_div(end - begin, rows_per_tile);
    RowBlock block{static_cast<int>(tiles.size()), 0, end - begin};
    // The larger ones first: AMX is configured once for each number of rows.
    for (int64_t t = 0, row = begin; t < count; ++t) {
      const int rows = static_cast<int>((end - row + count - t - 1) / (count - t));
      tiles.push_back({row, rows, act_record_bytes});
      act_record_bytes += act_shapes[static_cast<size_t>(rows)].act_bytes;
      row += rows;
    }
    block.end_tile = static_cast<int>(tiles.size());
    row_blocks.push_back(block);
  }
  act_bytes = static_cast<size_t>(act_record_bytes * ceil_div(k, quant::max_group));
}

// Few rows: each chunk is a share of what is left, so that streams are long and the workers still end together.
// Prompts: enough equal chunks that the last one of a worker is a small part of its time.
void MatmulPlan::make_chunks(int threads) {
  int64_t left = 0;
  const size_t weights = gate ? 1 : parts.size();
  for (size_t p = 0; p < weights; ++p) left += parts[p].geometry.panels;
  const int64_t jobs = threads == 1 ? 1 : threads * (packed ? shares_left : 12);
  const int64_t row_jobs = packed ? 1 : static_cast<int64_t>(row_blocks.size());
  const int64_t both = gate && !packed ? 2 : 1;  // a prompt's chunk of a gate takes twice the time
  int64_t size = ceil_div(left * both * row_jobs, jobs);
  if (!packed) size = std::min(size, panels_per_chunk);
  for (size_t p = 0; p < weights; ++p) {
    for (int64_t panel = 0, next; panel < parts[p].geometry.panels; panel = next) {
      if (packed) size = ceil_div(left, jobs);
      const int64_t whole = std::max<int64_t>(1, ceil_div(size, panels_per_tile)) * panels_per_tile;
      next = std::min(panel + whole, parts[p].geometry.panels);
      chunks.push_back({static_cast<int>(p), panel, next});
      left -= next - panel;
    }
  }
}

void MatmulPlan::make_kernels(const MicroKernel& kernel) {
  std::array<bool, max_rows + 1> used{};
  for (const Tile& tile : tiles) used[static_cast<size_t>(tile.rows)] = true;
  for (Part& part : parts) {
    for (int panels = 1; panels <= panels_per_tile; ++panels) {
      const auto p = static_cast<uint8_t>(panels);
      // Only the widest tile and what is left at the end of a weight.
      if (panels != panels_per_tile && part.geometry.panels % panels_per_tile != panels) continue;
      for (size_t rows = 1; rows <= max_rows; ++rows) {
        if (!used[rows]) continue;
        GemmKey key{isa_, packed ? Source::packed : Source::panel, static_cast<uint8_t>(rows), p,
                    packed ? part.layout : expanded_layout(isa_, part.layout)};
        // A gate's first weight leaves its totals to the second.
        if (!gate || &part != &parts[0]) key.epilogue = epilogue;
        part.kernels[rows][p] = &gemm_code(kernel, key);
        if (detail.empty() || panels == panels_per_tile) detail = part.kernels[rows][p]->name();
      }
      if (!packed) part.expanders[p] = &gemm_code(kernel, {isa_, Source::packed, 0, p, part.layout});
    }
  }
}

}  // namespace nibble::jit
