// SPDX-License-Identifier: Apache-2.0
// The macro-kernel of matmul_experts_q. Experts with many rows: their rows are packed together, then a worker takes a
// chunk of one expert's panels and a block of its rows, expands the chunk and lets the tiles of rows pass over it.
// Experts with few rows: all their panels are one stream, of which workers take ever smaller chunks. Rows are grouped
// at run time, so tiles and chunks are counted out here rather than in a plan; scratch is for the worst grouping.
#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "jit/act_tile.h"
#include "jit/experts.h"
#include "jit/microkernel.h"
#include "quant/format.h"
#include "tensor/check.h"
#include "tensor/cpu.h"
#include "tensor/kernel.h"
#include "tensor/ops/experts.h"

namespace nibble::jit {

namespace {

constexpr int most_rows = 8, most_panels = 4;
constexpr int64_t rows_per_block = 256;  // as in jit/matmul_plan.cpp
constexpr int64_t panels_per_chunk = 4;
constexpr int64_t shares_left = 3;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
size_t lines(int64_t bytes) { return static_cast<size_t>(ceil_div(bytes, 64) * 64); }
int64_t records_of(int64_t k) { return ceil_div(k, quant::max_group); }

using Kernels = std::array<std::array<const Code*, most_panels + 1>, most_rows + 1>;  // by rows and panels

struct Weight {
  size_t input;
  QuantLayout layout;
  GemmShape shape;               ///< of one row and one panel, packed
  quant::PanelGeometry geometry;  ///< of one expert
  Kernels few = {}, many = {};
  std::array<const Code*, most_panels + 1> expanders = {};
  int panel_record;               ///< expanded bytes per panel and record
};

struct State {
  ops::ExpertsCall call;
  quant::ActNeeds needs;
  std::vector<Weight> weights;
  std::vector<GemmShape> act_shapes;  ///< by rows of a tile
  int64_t panels;
  int64_t few_limit;                  ///< up to so many rows of an expert are few
  int64_t few_rows, few_panels, many_rows, many_panels;  ///< of a tile
  int64_t k_block, row_record;        ///< row_record: bytes of a row in one record of a tile
  size_t shared_bytes = 0, gather_bytes = 0, tiles_bytes = 0, expanded_bytes = 0, totals_bytes = 0, worker_bytes = 0;
  std::string detail;

  State(const MicroKernel& kernel, const Call& c);
  bool gate() const { return weights.size() == 2; }
  int64_t rows_at_most() const { return call.tokens(); }  ///< of one expert

 private:
  void make_kernels(const MicroKernel& kernel, const Epilogue& epilogue);
};

State::State(const MicroKernel& kernel, const Call& c)
    : call(ops::experts_call(c.in, c.attrs())), needs(quant::act_needs_of(*c.in[0].format)) {
  panels = ceil_div(call.n, quant::panel_columns);
  few_rows = kernel.packed_rows, few_panels = kernel.packed_panels;
  many_rows = kernel.panel_rows, many_panels = kernel.panel_panels;
  int unit = quant::max_group, record = 0;
  for (size_t w = 1; w <= static_cast<size_t>(call.weights); ++w) {
    const QuantLayout& layout = c.in[w].format->layout;
    Weight weight{.input = w, .layout = layout, .shape = GemmShape({kernel.isa, Source::packed, 1, 1, layout}),
                  .geometry = quant::panel_geometry(layout, call.n, call.k), .panel_record = 0};
    weight.panel_record = GemmShape({kernel.isa, Source::panel, 1, 1, expanded_layout(kernel.isa, layout)}).panel_bytes;
    unit = std::max(unit, weight.shape.unit_k);
    record = std::max(record, weight.panel_record);
    weights.push_back(weight);
  }
  few_limit = kernel.packed_limit(weights[0].layout);
  const auto half_l1 = static_cast<int64_t>(cache_sizes().l1d / 2);
  k_block = std::max<int64_t>(unit, half_l1 / (record * many_panels) * quant::max_group / unit * unit);
  k_block = ceil_div(ceil_div(call.k, std::max<int64_t>(1, ceil_div(call.k, k_block))), unit) * unit;
  row_record = 0;
  for (int rows = 0; rows <= most_rows; ++rows) {
    act_shapes.emplace_back(GemmKey{kernel.isa, Source::packed, static_cast<uint8_t>(rows), 1, weights[0].layout});
    if (rows > 0) row_record = std::max<int64_t>(row_record, ceil_div(act_shapes.back().act_bytes, rows));
  }
  Epilogue epilogue;
  epilogue.function = parse_function(c.attrs().s("gate", ""));
  epilogue.gate = gate();
  epilogue.bias = call.bias != 0;
  make_kernels(kernel, epilogue);

  const int64_t records = records_of(call.k), row_bytes = row_record * records;
  const bool any_many = rows_at_most() > few_limit;
  if (any_many) {
    shared_bytes = lines(call.rows * row_bytes);
    expanded_bytes = lines(records_of(k_block) * record * panels_per_chunk);
    totals_bytes = lines(std::min(rows_per_block, rows_at_most()) * panels_per_chunk * quant::panel_columns * 4);
  }
  if (!call.grouped) gather_bytes = quant::act_geometry(needs, std::max(few_rows, many_rows), call.k).bytes;
  tiles_bytes = lines(std::min(few_limit, rows_at_most()) * row_bytes);
  worker_bytes = gather_bytes + tiles_bytes + expanded_bytes + totals_bytes * weights.size();
}

void State::make_kernels(const MicroKernel& kernel, const Epilogue& epilogue) {
  // Widths at the ends of whole rows of panels, of chunks and of the last chunk.
  const auto used = [&](int64_t width, int64_t of, int64_t chunk) {
    return width == of || panels % of == width || chunk % of == width || panels % chunk % of == width;
  };
  for (Weight& weight : weights) {
    // A gate's first weight leaves its totals to the second.
    const Epilogue finish = gate() && &weight == &weights[0] ? Epilogue{} : epilogue;
    const auto make = [&](Source source, size_t rows, size_t width) {
      const QuantLayout layout = source == Source::packed ? weight.layout : expanded_layout(kernel.isa, weight.layout);
      const Code& code = gemm_code(
          kernel, {kernel.isa, source, static_cast<uint8_t>(rows), static_cast<uint8_t>(width), layout, finish});
      detail = code.name();
      return &code;
    };
    const auto most_few = static_cast<size_t>(std::min({few_rows, few_limit, rows_at_most()}));
    for (size_t width = 1; width <= static_cast<size_t>(few_panels); ++width) {
      if (!used(static_cast<int64_t>(width), few_panels, few_panels)) continue;
      for (size_t rows = 1; rows <= most_few; ++rows) weight.few[rows][width] = make(Source::packed, rows, width);
    }
    if (rows_at_most() <= few_limit) continue;
    for (size_t width = 1; width <= static_cast<size_t>(many_panels); ++width) {
      if (!used(static_cast<int64_t>(width), many_panels, panels_per_chunk)) continue;
      for (size_t rows = 1; rows <= static_cast<size_t>(many_rows); ++rows)
        weight.many[rows][width] = make(Source::panel, rows, width);
      weight.expanders[width] =
          &gemm_code(kernel, {kernel.isa, Source::packed, 0, static_cast<uint8_t>(width), weight.layout});
    }
  }
}

/// Part i of `count` parts of [begin, end), as even as can be.
struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
  Range part(int64_t i, int64_t count) const { return {begin + size() * i / count, begin + size() * (i + 1) / count}; }
};

/// One execution, as one worker sees it.
class Run {
 public:
  Run(const State& state, const KernelArgs& args)
      : s_(state),
        args_(args),
        groups_(ops::expert_groups(args.in[static_cast<size_t>(state.call.groups)], state.call.experts)),
        mine_(args.scratch + s_.shared_bytes + static_cast<size_t>(args.worker.index) * s_.worker_bytes) {}

  void many() {
    if (s_.rows_at_most() <= s_.few_limit) return;
    pack_together();
    args_.worker.barrier();
    int64_t expert = 0, before = 0;  // jobs of the experts before it
    for (int64_t job; true; ++job) {
      job = args_.counters[0].fetch_add(1, std::memory_order_relaxed);
      for (; expert < s_.call.experts && job >= before + jobs(expert); ++expert) before += jobs(expert);
      if (expert == s_.call.experts) return;
      run_job(expert, (job - before) % chunks(), (job - before) / chunks());
    }
  }

  void few() {
    for (int64_t e = 0; e < s_.call.experts; ++e) steps_ += is_few(e) ? steps_of_expert() : 0;
    for (Step now = next_step(); now.expert >= 0;) {
      const Step then = next_step();
      run_step(now, then);
      now = then;
    }
  }

 private:
  bool is_few(int64_t e) const { return groups_.rows(e) > 0 && groups_.rows(e) <= s_.few_limit; }
  Range rows(int64_t e) const { return {groups_.begins[e], groups_.begins[e + 1]}; }
  int64_t chunks() const { return ceil_div(s_.panels, panels_per_chunk); }
  int64_t blocks(int64_t e) const {
    return groups_.rows(e) > s_.few_limit ? ceil_div(groups_.rows(e), rows_per_block) : 0;
  }
  int64_t jobs(int64_t e) const { return blocks(e) * chunks(); }

  const std::byte* panel_data(const Weight& weight, int64_t expert, int64_t panel) const {
    return args_.in[weight.input].data +
           (expert * s_.panels + panel) * static_cast<int64_t>(weight.geometry.panel_bytes);
  }

  // Rows of a tile that do not stand together in x are brought together first.
  quant::ActGeometry gather(Range tile) const {
    const Tensor& x = args_.in[0];
    const quant::ActGeometry from = quant::act_geometry(s_.needs, x.dim(0), s_.call.k);
    const quant::ActGeometry to = quant::act_geometry(s_.needs, tile.size(), s_.call.k);
    const auto copy = [&](size_t from_region, size_t to_region, int64_t bytes) {
      for (int64_t r = 0; r < tile.size(); ++r) {
        const std::byte* row = x.data + from_region + s_.call.source(groups_, tile.begin + r) * bytes;
        std::copy_n(row, bytes, mine_ + to_region + r * bytes);
      }
    };
    copy(0, 0, from.k_padded * s_.needs.bits / 8);
    copy(from.scales_offset, to.scales_offset, from.scales_per_row * 4);
    copy(from.sums_offset, to.sums_offset, from.sums_per_row * 4);
    return to;
  }

  // `place(begin, end)`: where the records of k in [begin, end) go.
  template <class Place>
  void pack(Range tile, int64_t k_block, const Place& place) const {
    Activations act{s_.needs, args_.in[0].data, args_.in[0].dim(0), s_.call.k};
    int64_t row = s_.call.source(groups_, tile.begin);
    if (!s_.call.grouped && tile.size() > 1) {
      gather(tile);
      act.data = mine_;
      act.m = tile.size();
      row = 0;
    }
    const auto count = static_cast<int>(tile.size());
    for (int64_t k = 0; k < s_.call.k; k += k_block) {
      const int64_t end = std::min(k + k_block, s_.call.k);
      pack_act_tile(s_.act_shapes[static_cast<size_t>(count)], count, act, row, k, end, place(k, end));
    }
  }

  // Records of k in [begin, end) of the tile whose first row this is. Blocks of k are outermost, as in jit/matmul.cpp.
  std::byte* shared_tile(int64_t row, int64_t begin, int64_t end) const {
    return args_.scratch + (begin / quant::max_group * s_.call.rows + row * records_of(end - begin)) * s_.row_record;
  }

  void pack_together() const {
    int64_t index = 0;
    for (int64_t e = 0; e < s_.call.experts; ++e) {
      for (int64_t b = 0; b < blocks(e); ++b) {
        const Range block = rows(e).part(b, blocks(e));
        const int64_t tiles = ceil_div(block.size(), s_.many_rows);
        for (int64_t t = 0; t < tiles; ++t) {
          if (index++ % args_.worker.count != args_.worker.index) continue;
          const Range tile = block.part(t, tiles);
          pack(tile, s_.k_block, [&](int64_t begin, int64_t end) { return shared_tile(tile.begin, begin, end); });
        }
      }
    }
  }

  void set_k(GemmArgs& gemm, const Weight& weight, int64_t begin, int64_t end) const {
    const GemmShape& shape = weight.shape;
    gemm.units = (end - begin) / shape.unit_k;
    gemm.tail = ((end - begin) % shape.unit_k + shape.tail_k - 1) / shape.tail_k;
    gemm.codes = static_cast<const std::byte*>(gemm.codes) + begin / quant::block_k * shape.code_block_bytes;
    gemm.scales = static_cast<const std::byte*>(gemm.scales) + begin / shape.unit_k * shape.unit_scale_bytes;
  }

  FinishArgs finish_args(int64_t expert, int64_t row, int64_t panel, int64_t panels, const float* gate_totals) const {
    const int64_t column = panel * quant::panel_columns;
    FinishArgs f{.columns = std::min(panels * quant::panel_columns, s_.call.n - column), .gate_totals = gate_totals};
    if (s_.call.bias) {
      const Tensor& bias = args_.in[static_cast<size_t>(s_.call.bias)];
      f.bias = bias.as<const float>() + expert * bias.strides[0] + column;
    }
    f.result_stride = args_.out.strides[0] * static_cast<int64_t>(sizeof(float));
    f.result = args_.out.as<float>() + row * args_.out.strides[0] + column;
    return f;
  }

  void run_job(int64_t expert, int64_t chunk, int64_t block) {
    const Range panels{chunk * panels_per_chunk, std::min((chunk + 1) * panels_per_chunk, s_.panels)};
    std::byte* expanded = mine_ + s_.gather_bytes + s_.tiles_bytes;
    for (const Weight& weight : s_.weights) {
      const auto g = static_cast<size_t>(&weight - s_.weights.data());
      auto* totals = reinterpret_cast<float*>(expanded + s_.expanded_bytes);
      const float* first = totals;
      totals += g * s_.totals_bytes / sizeof(float);
      const bool last = &weight == &s_.weights.back();
      for (int64_t k = 0; k < s_.call.k; k += s_.k_block) {
        expand(weight, expert, panels, k, expanded);
        multiply(weight, expert, rows(expert).part(block, blocks(expert)), panels, k, expanded, totals,
                 last && k + s_.k_block >= s_.call.k ? first : nullptr);
      }
    }
  }

  void expand(const Weight& weight, int64_t expert, Range panels, int64_t k, std::byte* to) const {
    const int64_t end = std::min(k + s_.k_block, s_.call.k);
    for (int64_t panel = panels.begin; panel < panels.end; panel += s_.many_panels) {
      const int64_t count = std::min(s_.many_panels, panels.end - panel);
      for (int64_t p = 0; p < count; ++p) {
        const std::byte* codes = panel_data(weight, expert, panel + p);
        GemmArgs gemm{.codes = codes, .scales = codes + weight.geometry.scales_offset, .out = to + p * 64};
        set_k(gemm, weight, k, end);
        (*weight.expanders[static_cast<size_t>(count)])(gemm);
      }
      to += records_of(end - k) * weight.panel_record * count;
    }
  }

  // `gate`: the totals of a gate's first weight if the sums are complete with this block of k, null if they are not.
  void multiply(const Weight& weight, int64_t expert, Range block, Range panels, int64_t k, const std::byte* expanded,
                float* total, const float* gate) const {
    const int64_t end = std::min(k + s_.k_block, s_.call.k), tiles = ceil_div(block.size(), s_.many_rows);
    GemmArgs gemm{.units = (end - k) / quant::max_group, .first = k == 0};
    gemm.tail = ((end - k) % quant::max_group + weight.shape.tail_k - 1) / weight.shape.tail_k;
    for (int64_t panel = panels.begin; panel < panels.end; panel += s_.many_panels) {
      const int64_t count = std::min(s_.many_panels, panels.end - panel);
      gemm.codes = expanded;
      for (int64_t t = 0; t < tiles; ++t) {
        const Range tile = block.part(t, tiles);
        const int64_t floats = tile.size() * count * quant::panel_columns;
        gemm.act = shared_tile(tile.begin, k, end);
        gemm.out = total;
        if (gate) {
          gemm.finish = finish_args(expert, tile.begin, panel, count, gate);
          gate += floats;
        }
        (*weight.many[static_cast<size_t>(tile.size())][static_cast<size_t>(count)])(gemm);
        total += floats;
      }
      expanded += records_of(end - k) * weight.panel_record * count;
    }
  }

  /// Some panels of one expert; expert -1: there are no more.
  struct Step {
    int64_t expert = -1, panel = 0;
  };
  int64_t steps_of_expert() const { return ceil_div(s_.panels, s_.few_panels); }

  // The chunks of all workers follow each other, each a share of what is left, so that workers end together. A worker's
  // first one is its own.
  bool take_chunk() {
    const int64_t ticket = ticket_ < 0 ? args_.worker.index
                                       : args_.worker.count + args_.counters[1].fetch_add(1, std::memory_order_relaxed);
    for (; ticket_ < ticket && end_ < steps_; ++ticket_) {
      at_ = end_;
      end_ += ceil_div(steps_ - end_, args_.worker.count == 1 ? 1 : args_.worker.count * shares_left);
    }
    return ticket_ == ticket;
  }

  Step next_step() {
    if (at_ == end_ && !take_chunk()) return {};
    if (expert_ < 0) next_few();
    for (; at_ >= before_ + steps_of_expert(); before_ += steps_of_expert()) next_few();
    return {expert_, (at_++ - before_) * s_.few_panels};
  }
  void next_few() {
    do ++expert_;
    while (!is_few(expert_));
  }

  void run_step(const Step& now, const Step& then) {
    std::byte* tiles = mine_ + s_.gather_bytes;
    const Range all = rows(now.expert);
    const int64_t count = ceil_div(all.size(), s_.few_rows), row_bytes = s_.row_record * records_of(s_.call.k);
    if (packed_ != now.expert) {
      for (int64_t t = 0; t < count; ++t) {
        const Range tile = all.part(t, count);
        pack(tile, s_.call.k, [&](int64_t, int64_t) { return tiles + (tile.begin - all.begin) * row_bytes; });
      }
      packed_ = now.expert;
    }
    const int64_t panels = std::min(s_.few_panels, s_.panels - now.panel);
    alignas(64) float totals[2][most_rows * most_panels * quant::panel_columns];
    for (int64_t t = 0; t < count; ++t) {
      const Range tile = all.part(t, count);
      for (const Weight& weight : s_.weights) {
        const auto g = static_cast<size_t>(&weight - s_.weights.data());
        const bool last = g + 1 == s_.weights.size();
        const std::byte* codes = panel_data(weight, now.expert, now.panel);
        GemmArgs gemm{.act = tiles + (tile.begin - all.begin) * row_bytes, .codes = codes,
                      .scales = codes + weight.geometry.scales_offset, .out = totals[g], .first = 1,
                      .panel_stride = static_cast<int64_t>(weight.geometry.panel_bytes),
                      .next = next_codes(now, then, last ? 0 : g + 1, last && t + 1 == count)};
        if (t == 0) prefetch_scales(weight, static_cast<const std::byte*>(gemm.next));
        set_k(gemm, weight, 0, s_.call.k);
        if (last) gemm.finish = finish_args(now.expert, tile.begin, now.panel, panels, totals[0]);
        (*weight.few[static_cast<size_t>(tile.size())][static_cast<size_t>(panels)])(gemm);
      }
    }
  }

  // With a gate the streams of both weights take turns.
  const std::byte* next_codes(const Step& now, const Step& then, size_t weight, bool done) const {
    const Step& step = done && then.expert >= 0 ? then : now;
    return panel_data(s_.weights[weight], step.expert, step.panel);
  }
  static void prefetch_scales(const Weight& weight, const std::byte* next) {
    for (size_t at = 0; at < 512; at += 64) __builtin_prefetch(next + weight.geometry.scales_offset + at);
  }

  const State& s_;
  const KernelArgs& args_;
  const ops::ExpertGroups groups_;
  std::byte* mine_;
  int64_t steps_ = 0;                             // of all experts with few rows
  int64_t ticket_ = -1, at_ = 0, end_ = 0;        // this worker's chunk of them
  int64_t expert_ = -1, before_ = 0, packed_ = -1;  // steps of the experts before it; whose rows are packed
};

void run(const void* state, const KernelArgs& args) {
  Run run(*static_cast<const State*>(state), args);
  run.many();
  run.few();
}

const char* rejects(const MicroKernel& kernel, const Call& call) {
  const ops::ExpertsCall experts = ops::experts_call(call.in, call.attrs());
  for (int w = 1; w <= experts.weights; ++w) {
    if (const char* reason = kernel.rejects(call.in[static_cast<size_t>(w)].format->layout)) return reason;
  }
  if (!(call.strides[static_cast<size_t>(experts.groups)] == Shape{1})) return "groups must be contiguous";
  if (experts.bias && call.strides[static_cast<size_t>(experts.bias)][1] != 1)
    return "the bias must be contiguous along columns";
  return nullptr;
}

// What is read at most; only to choose among instruction sets.
float cost(const MicroKernel& kernel, const Call& call) {
  const ops::ExpertsCall experts = ops::experts_call(call.in, call.attrs());
  const auto products = static_cast<double>(experts.rows * experts.n * experts.k * experts.weights);
  const double gops = kernel.isa == Isa::avx512vnni ? 500 : kernel.isa == Isa::avxvnni ? 280 : 205;
  return static_cast<float>(2 * products / gops / call.threads + 1000);
}

template <const MicroKernel& kernel>
Kernel kernel_of(std::string_view name) {
  return {.name = name,
          .op = "matmul_experts_q",
          .isa = kernel.isa,
          .rejects = [](const Call& call) { return rejects(kernel, call); },
          .cost = [](const Call& call) { return cost(kernel, call); },
          .bind = [](const Call& call) {
            auto state = std::make_shared<const State>(kernel, call);
            const size_t scratch = state->shared_bytes + state->worker_bytes * static_cast<size_t>(call.threads);
            return Bound{run, state, scratch, state->detail};
          }};
}

}  // namespace

extern const MicroKernel kernel_avx2, kernel_avxvnni, kernel_avx512vnni;

void register_matmul_experts() {
  register_kernel(kernel_of<kernel_avx2>("matmul_experts_q_avx2"));
  register_kernel(kernel_of<kernel_avxvnni>("matmul_experts_q_avxvnni"));
  register_kernel(kernel_of<kernel_avx512vnni>("matmul_experts_q_avx512vnni"));
}

}  // namespace nibble::jit
