// SPDX-License-Identifier: Apache-2.0
// Everything about one matmul_q node that can be decided once: tiles of rows, chunks of panels, blocks of k, kernels
// and where things lie in scratch.
#pragma once

#include <array>
#include <vector>

#include "jit/act_tile.h"
#include "jit/epilogue.h"
#include "jit/microkernel.h"
#include "quant/format.h"
#include "tensor/kernel.h"

namespace nibble::jit {

struct MatmulPlan {
  static constexpr int max_rows = 12, max_panels = 4;

  struct Part {  ///< one weight
    int input;
    int64_t n, first_column;  ///< in the result; a gate's second weight shares the first one's columns
    QuantLayout layout;
    GemmShape shape;  ///< of one row and one panel, packed
    quant::PanelGeometry geometry;
    std::array<std::array<const Code*, max_panels + 1>, max_rows + 1> kernels{};  ///< by rows and panels
    std::array<const Code*, max_panels + 1> expanders{};
    int panel_record = 0;  ///< expanded bytes per panel and record of 128 k
  };
  struct Tile {
    int64_t row;
    int rows;
    int64_t record_offset;  ///< bytes of one record of all tiles before it
  };
  struct RowBlock {
    int first_tile, end_tile;
    int64_t rows;
  };
  struct Chunk {
    int part;
    int64_t panel, end_panel;
  };

  MatmulPlan(const MicroKernel& kernel, const Call& call);

  bool packed;  ///< few rows: weights are unpacked in registers
  int64_t m, k;
  quant::ActNeeds needs;
  std::vector<Part> parts;
  std::vector<Tile> tiles;
  std::vector<RowBlock> row_blocks;
  std::vector<Chunk> chunks;
  std::vector<GemmShape> act_shapes;  ///< by rows of a tile
  int panels_per_tile;
  int64_t k_block;                    ///< of expanded weights
  int bias = 0, residual = 0;         ///< input indices, 0 = none
  bool gate = false;
  Epilogue epilogue;

  int64_t act_record_bytes = 0;  ///< one record of every tile
  size_t act_bytes = 0;       ///< of all packed tiles
  size_t shared_bytes = 0;    ///< in front of the workers' own: the packed tiles, if shared
  size_t expanded_bytes = 0;  ///< of one worker: a chunk, k_block
  size_t totals_bytes = 0;    ///< of one worker and weight: a chunk, the rows of a block
  size_t worker_bytes = 0;
  size_t scratch_bytes = 0;
  std::string detail;
  const Code* release = nullptr;  ///< MicroKernel::release, if its kernels set GemmArgs::tiles

 private:
  void make_parts(const MicroKernel& kernel, const Call& call);
  void make_tiles(int rows_per_tile);
  void make_chunks(int threads);
  void make_kernels(const MicroKernel& kernel);
  Isa isa_;  ///< of the kernels that multiply
};

}  // namespace nibble::jit
