// SPDX-License-Identifier: Apache-2.0
// The macro-kernel of matmul_q. Few rows: every worker takes chunks of packed panels and streams them once from memory.
// Prompts: activations are packed together, then a worker takes a chunk of panels and a block of rows and, per block of
// k, expands the chunk once and lets all tiles of rows pass over it; totals wait in L2 between the blocks of k.
#include "jit/matmul.h"

#include <algorithm>
#include <exception>
#include <map>
#include <memory>
#include <mutex>

#include "jit/code_cache.h"
#include "jit/matmul_plan.h"
#include "jit/peak.h"
#include "tensor/check.h"

namespace nibble::jit {

namespace {

constexpr int columns_per_panel = quant::panel_columns;

/// One execution, as one worker sees it.
class Run {
 public:
  Run(const MatmulPlan& plan, const KernelArgs& args) : plan_(plan), args_(args) {}

  void few_rows() {
    if (plan_.m == 0) return;
    const std::byte* acts = args_.scratch;
    if (plan_.tiles.size() > 1) {
      pack_together(plan_.k);
    } else {
      // A barrier costs more than packing a few rows again.
      std::byte* mine = args_.scratch + static_cast<size_t>(args_.worker.index) * plan_.worker_bytes;
      pack(plan_.tiles[0], 0, plan_.k, mine);
      acts = mine;
    }
    // The first chunk is the worker's own (reads_first); the next one is taken before the last panels of this one, so
    // that the stream of weights goes on there.
    const auto chunks = static_cast<int64_t>(plan_.chunks.size());
    for (int64_t c = args_.worker.index; c < chunks;) c = few_rows_chunk(c, acts);
  }

  std::span<const std::byte> reads_first(int piece) const {
    const auto c = static_cast<size_t>(args_.worker.index);
    if (!plan_.packed || c >= plan_.chunks.size()) return {};
    const MatmulPlan::Chunk& chunk = plan_.chunks[c];
    const int weights = plan_.gate ? 2 : 1;
    const int64_t panel = chunk.panel + piece / weights;
    if (panel >= chunk.end_panel) return {};
    const MatmulPlan::Part& part = plan_.parts[static_cast<size_t>(chunk.part + piece % weights)];
    return {panel_data(part, panel), part.geometry.panel_bytes};
  }

  void many_rows() {
    pack_together(plan_.k_block);
    const size_t chunks = plan_.chunks.size(), jobs = chunks * plan_.row_blocks.size();
    for (size_t j; (j = static_cast<size_t>(args_.counters[1].fetch_add(1, std::memory_order_relaxed))) < jobs;) {
      job(plan_.chunks[j % chunks], plan_.row_blocks[j / chunks]);
    }
    if (tiles_) (*plan_.release)(GemmArgs{});
  }

 private:
  void pack_together(int64_t k_block) {
    const auto tiles = static_cast<int64_t>(plan_.tiles.size());
    for (int64_t t; (t = args_.counters[0].fetch_add(1, std::memory_order_relaxed)) < tiles;) {
      const MatmulPlan::Tile& tile = plan_.tiles[static_cast<size_t>(t)];
      for (int64_t k = 0; k < plan_.k; k += k_block) {
        const int64_t end = std::min(k + k_block, plan_.k);
        pack(tile, k, end, tile_at(tile, k, end));
      }
    }
    args_.worker.barrier();
  }

  void pack(const MatmulPlan::Tile& tile, int64_t begin, int64_t end, std::byte* to) {
    pack_act_tile(plan_.act_shapes[static_cast<size_t>(tile.rows)], tile.rows,
                  {plan_.needs, args_.in[0].data, plan_.m, plan_.k}, tile.row, begin, end, to);
  }

  const std::byte* panel_data(const MatmulPlan::Part& part, int64_t panel) const {
    return args_.in[static_cast<size_t>(part.input)].data + panel * static_cast<int64_t>(part.geometry.panel_bytes);
  }

  // Weights come from memory for the first tile of rows and from cache for the others.
  // Returns the chunk that this worker takes next.
  int64_t few_rows_chunk(int64_t index, const std::byte* acts) {
    const MatmulPlan::Chunk& chunk = plan_.chunks[static_cast<size_t>(index)];
    int64_t next = static_cast<int64_t>(plan_.chunks.size());
    alignas(64) float totals[2][MatmulPlan::max_rows * MatmulPlan::max_panels * columns_per_panel];
    for (int64_t panel = chunk.panel; panel < chunk.end_panel; panel += plan_.panels_per_tile) {
      const auto panels = static_cast<int>(std::min<int64_t>(plan_.panels_per_tile, chunk.end_panel - panel));
      const std::byte* after = panel_data(plan_.parts[static_cast<size_t>(chunk.part)], panel);
      if (panel + panels < chunk.end_panel) {
        after += panels * static_cast<int64_t>(plan_.parts[static_cast<size_t>(chunk.part)].geometry.panel_bytes);
      } else {
        next = args_.worker.count + args_.counters[1].fetch_add(1, std::memory_order_relaxed);
        if (next < static_cast<int64_t>(plan_.chunks.size()))
          after = first_codes(plan_.chunks[static_cast<size_t>(next)]);
      }
      for (size_t t = 0; t < plan_.tiles.size(); ++t) {
        const MatmulPlan::Tile& tile = plan_.tiles[t];
        for (int g = 0; g < (plan_.gate ? 2 : 1); ++g) {
          const MatmulPlan::Part& part = plan_.parts[static_cast<size_t>(chunk.part + g)];
          const std::byte* codes = panel_data(part, panel);
          if (t == 0) prefetch_scales(part, next_codes(chunk, panel, plan_.tiles.size() - 1, g, after));
          GemmArgs gemm{.act = acts + tile.record_offset * records_of(plan_.k), .codes = codes,
                        .scales = codes + part.geometry.scales_offset, .out = totals[g], .first = 1,
                        .panel_stride = static_cast<int64_t>(part.geometry.panel_bytes),
                        .next = next_codes(chunk, panel, t, g, after)};
          set_k(gemm, part, 0, plan_.k);
          if (!plan_.gate || g == 1) gemm.finish = finish_args(chunk, tile, panel, panels, totals[0]);
          (*part.kernels[static_cast<size_t>(tile.rows)][static_cast<size_t>(panels)])(gemm);
        }
      }
    }
    return next;
  }

  // The first scales of the panel that comes next; the kernel prefetches those behind them.
  static void prefetch_scales(const MatmulPlan::Part& part, const std::byte* next) {
    for (size_t at = 0; at < 512; at += 64) __builtin_prefetch(next + part.geometry.scales_offset + at);
  }

  const std::byte* first_codes(const MatmulPlan::Chunk& chunk) const {
    return panel_data(plan_.parts[static_cast<size_t>(chunk.part)], chunk.panel);
  }

  // With a gate the streams of both weights take turns; the tiles after the first find the weights in cache.
  const std::byte* next_codes(const MatmulPlan::Chunk& chunk, int64_t panel, size_t tile, int g,
                              const std::byte* after) const {
    const auto first = static_cast<size_t>(chunk.part);
    if (plan_.gate && g == 0) return panel_data(plan_.parts[first + 1], panel);
    return tile + 1 < plan_.tiles.size() ? panel_data(plan_.parts[first], panel) : after;
  }

  void set_k(GemmArgs& gemm, const MatmulPlan::Part& part, int64_t begin, int64_t end) const {
    const GemmShape& shape = part.shape;
    gemm.units = (end - begin) / shape.unit_k;
    gemm.tail = ((end - begin) % shape.unit_k + shape.tail_k - 1) / shape.tail_k;
    if (begin == 0) return;
    const int64_t units = begin / shape.unit_k;
    gemm.codes = static_cast<const std::byte*>(gemm.codes) + begin / quant::block_k * shape.code_block_bytes;
    gemm.scales = static_cast<const std::byte*>(gemm.scales) + units * shape.unit_scale_bytes;
  }

  void job(const MatmulPlan::Chunk& chunk, const MatmulPlan::RowBlock& block) {
    std::byte* mine = args_.scratch + plan_.shared_bytes + static_cast<size_t>(args_.worker.index) * plan_.worker_bytes;
    float* totals[2];
    for (size_t g = 0; g < 2; ++g) {
      totals[g] = reinterpret_cast<float*>(mine + plan_.expanded_bytes + g * plan_.totals_bytes);
    }
    for (int g = 0; g < (plan_.gate ? 2 : 1); ++g) {
      const MatmulPlan::Part& part = plan_.parts[static_cast<size_t>(chunk.part + g)];
      const bool last_weight = !plan_.gate || g == 1;
      for (int64_t k = 0; k < plan_.k; k += plan_.k_block) {
        expand(part, chunk, k, mine);
        const bool finish = last_weight && k + plan_.k_block >= plan_.k;
        multiply(part, chunk, block, k, mine, totals[g], finish ? totals[0] : nullptr);
      }
    }
  }

  void expand(const MatmulPlan::Part& part, const MatmulPlan::Chunk& chunk, int64_t k, std::byte* to) const {
    const int64_t end = std::min(k + plan_.k_block, plan_.k), records = records_of(end - k);
    for (int64_t panel = chunk.panel; panel < chunk.end_panel; panel += plan_.panels_per_tile) {
      const auto panels = static_cast<int>(std::min<int64_t>(plan_.panels_per_tile, chunk.end_panel - panel));
      for (int p = 0; p < panels; ++p) {
        const std::byte* codes = panel_data(part, panel + p);
        GemmArgs gemm{.codes = codes, .scales = codes + part.geometry.scales_offset, .out = to + p * 64};
        set_k(gemm, part, k, end);
        (*part.expanders[static_cast<size_t>(panels)])(gemm);
      }
      to += records * part.panel_record * panels;
    }
  }

  // `gate`: the totals of a gate's first weight if the sums are complete with this block of k, null if they are not.
  void multiply(const MatmulPlan::Part& part, const MatmulPlan::Chunk& chunk, const MatmulPlan::RowBlock& block,
                int64_t k, const std::byte* expanded, float* total, const float* gate) {
    const int64_t end = std::min(k + plan_.k_block, plan_.k), records = records_of(end - k);
    GemmArgs gemm{.units = (end - k) / quant::max_group, .first = k == 0, .tiles = &tiles_};
    gemm.tail = ((end - k) % quant::max_group + part.shape.tail_k - 1) / part.shape.tail_k;
    for (int64_t panel = chunk.panel; panel < chunk.end_panel; panel += plan_.panels_per_tile) {
      const auto panels = static_cast<int>(std::min<int64_t>(plan_.panels_per_tile, chunk.end_panel - panel));
      gemm.codes = expanded;
      for (int t = block.first_tile; t < block.end_tile; ++t) {
        const MatmulPlan::Tile& tile = plan_.tiles[static_cast<size_t>(t)];
        const auto rows = static_cast<size_t>(tile.rows);
        gemm.act = tile_at(tile, k, end);
        gemm.out = total;
        if (gate) {
          gemm.finish = finish_args(chunk, tile, panel, panels, gate);
          gate += tile.rows * panels * columns_per_panel;
        }
        (*part.kernels[rows][static_cast<size_t>(panels)])(gemm);
        total += tile.rows * panels * columns_per_panel;
      }
      expanded += records * part.panel_record * panels;
    }
  }

  // Records of k in [begin, end). Blocks of k are outermost, so that the tiles of one follow each other in memory and
  // the hardware prefetches them.
  std::byte* tile_at(const MatmulPlan::Tile& tile, int64_t begin, int64_t end) const {
    return args_.scratch + begin / quant::max_group * plan_.act_record_bytes +
           tile.record_offset * records_of(end - begin);
  }

  static int64_t records_of(int64_t k) { return (k + quant::max_group - 1) / quant::max_group; }

  FinishArgs finish_args(const MatmulPlan::Chunk& chunk, const MatmulPlan::Tile& tile, int64_t panel, int panels,
                         const float* gate_totals) const {
    const MatmulPlan::Part& part = plan_.parts[static_cast<size_t>(chunk.part)];
    const int64_t in_part = panel * columns_per_panel, column = part.first_column + in_part;
    FinishArgs f{.columns = std::min<int64_t>(panels * columns_per_panel, part.n - in_part),
                 .gate_totals = gate_totals};
    if (plan_.bias) {
      f.gate_bias = args_.in[static_cast<size_t>(plan_.bias)].as<const float>() + column;
      f.bias = f.gate_bias + (plan_.gate ? part.n : 0);
    }
    if (plan_.residual) {
      const Tensor& residual = args_.in[static_cast<size_t>(plan_.residual)];
      const auto element = static_cast<int64_t>(element_bytes(residual.desc.dtype));
      f.residual_stride = residual.strides[0] * element;
      f.residual = residual.data + tile.row * f.residual_stride + column * element;
    }
    f.result_stride = args_.out.strides[0] * static_cast<int64_t>(sizeof(float));
    f.result = args_.out.as<float>() + tile.row * args_.out.strides[0] + column;
    return f;
  }

  const MatmulPlan& plan_;
  const KernelArgs& args_;
  int64_t tiles_ = 0;
};

void run_plan(const void* state, const KernelArgs& args) {
  const auto& plan = *static_cast<const MatmulPlan*>(state);
  Run run(plan, args);
  if (plan.packed) {
    run.few_rows();
  } else {
    run.many_rows();
  }
}

std::span<const std::byte> reads_first(const void* state, const KernelArgs& args, int piece) {
  return Run(*static_cast<const MatmulPlan*>(state), args).reads_first(piece);
}

const char* rejects(const MicroKernel& kernel, const Call& call) {
  const auto weights = static_cast<size_t>(call.attrs().i("weights", 1));
  for (size_t w = 1; w <= weights; ++w) {
    if (const char* reason = kernel.rejects(call.in[w].format->layout)) return reason;
  }
  for (size_t i = 1 + weights; i < call.in.size(); ++i) {
    if (call.strides[i][-1] != 1) return "bias and residual must be contiguous along columns";
  }
  return nullptr;
}

// What a cost is computed from. The peak of the inner product is measured once per process (3 ms), where the CPU has
// it; the others are recorded on two cores of Zen 3: 36.6 GB/s read by two threads, 23.6 by one; cold 4-bit weights at
// 100 % of that with one row; 205 GOP/s of a peak of 355 a core with tiles of four rows; and half a microsecond to
// begin and to end.
constexpr double read_gbs = 23.6, read_gbs_shared = 18.3, share_of_peak = 0.58, start_ns = 500;

struct Peak {
  double gops;
  bool measured;
};
Peak int8_peak(Isa isa) {
  static std::mutex mutex;
  static std::map<Isa, Peak> known;
  const std::lock_guard lock(mutex);
  auto found = known.find(isa);
  if (found == known.end()) {
    const double published = isa == Isa::amxint8      ? 5000
                             : isa == Isa::avx512vnni ? 870
                             : isa == Isa::avxvnni    ? 490
                                                      : 355;  // where it is only emulated
    const bool have = supported(isa);
    found = known.emplace(isa, Peak{have ? measure_int8_peak(isa, 1) / 1e9 : published, have}).first;
  }
  return found->second;
}

// Reading and multiplying overlap: the slower one counts.
float cost(const MicroKernel& kernel, const Call& call) {
  double bytes = 0, operations = 0;
  const auto weights = static_cast<size_t>(call.attrs().i("weights", 1));
  for (size_t w = 1; w <= weights; ++w) {
    bytes += static_cast<double>(nibble::bytes(call.in[w]));
    operations += 2.0 * static_cast<double>(call.in[0].shape[0] * call.in[w].shape.elements());
  }
  const double reading = bytes / (call.threads == 1 ? read_gbs : read_gbs_shared);
  const bool packed = call.in[0].shape[0] <= kernel.packed_limit(call.in[1].format->layout);
  const double multiplying = operations / (int8_peak(packed ? kernel.packed_isa : kernel.isa).gops * share_of_peak);
  return static_cast<float>(std::max(reading, multiplying) / call.threads + start_ns);
}

std::string cost_basis(const MicroKernel& kernel) {
  const Peak peak = int8_peak(kernel.isa);
  return message(static_cast<int>(100 * share_of_peak), " % (recorded) of ", static_cast<int>(peak.gops),
                 peak.measured ? " GOP/s (measured)" : " GOP/s (assumed)", " and ", read_gbs_shared,
                 " GB/s (recorded) a thread, ", read_gbs, " GB/s of one alone");
}

template <const MicroKernel& kernel>
Kernel kernel_of(std::string_view kernel_name) {
  return {.name = kernel_name,
          .op = "matmul_q",
          .isa = kernel.isa,
          .rejects = [](const Call& call) { return rejects(kernel, call); },
          .cost = [](const Call& call) { return cost(kernel, call); },
          .bind = [](const Call& call) {
            auto plan = std::make_shared<const MatmulPlan>(kernel, call);
            return Bound{run_plan, plan, plan->scratch_bytes, plan->detail, reads_first};
          },
          .cost_basis = [] { return cost_basis(kernel); }};
}

}  // namespace

#define NIBBLE_KERNEL(isa) extern const MicroKernel kernel_##isa;
#include "jit/kernel_list.inc"
#undef NIBBLE_KERNEL

std::span<const MicroKernel* const> microkernels() {
  static constexpr const MicroKernel* list[] = {
#define NIBBLE_KERNEL(isa) &kernel_##isa,
#include "jit/kernel_list.inc"
#undef NIBBLE_KERNEL
  };
  return list;
}

const Code& gemm_code(const MicroKernel& kernel, const GemmKey& key) {
  return code_cache().get(key, [&] {
    try {
      return kernel.emit(key);
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {
      fail(name(key), ": ", e.what());
    }
  });
}

void register_matmul() {
#define NIBBLE_KERNEL(isa) register_kernel(kernel_of<kernel_##isa>("matmul_q_" #isa));
#include "jit/kernel_list.inc"
#undef NIBBLE_KERNEL
}

}  // namespace nibble::jit
