// SPDX-License-Identifier: Apache-2.0
#include "tensor/plan.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "tensor/buffer.h"
#include "tensor/check.h"
#include "tensor/choose.h"
#include "tensor/layout.h"
#include "tensor/op.h"
#include "tensor/passes/passes.h"
#include "tensor/profile.h"
#include "tensor/text_table.h"

namespace nibble {

namespace {

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct alignas(64) Counters {  // a line of their own: neighbours in time must not share it
  std::atomic<int64_t> next[4];
  std::atomic<int> arrived;  // workers that have left the step
};

struct Step {
  const Node* node = nullptr;
  Choice choice;
  KernelArgs args;  // all but the worker
};

// Half of a core's L2 cache.
constexpr size_t most_ahead = size_t{256} << 10;

/// What one worker reads first in a step to come, fetched into its L2 cache line by line while it waits: between two
/// matmuls the memory has nothing else to do.
class Ahead {
 public:
  /// Starts anew unless `step` is the step that was begun already.
  void begin(const Step& step, const Worker& worker) {
    if (step_ == &step) return;
    *this = Ahead();
    step_ = &step;
    args_ = step.args;
    args_.worker = worker;
  }
  /// A few lines more; false when there are none.
  bool fetch() {
    constexpr size_t lines = 8;
    if (offset_ >= piece_.size()) {
      piece_ = fetched_ < most_ahead ? step_->choice.bound.reads_first(step_->choice.bound.state.get(), args_, next_++)
                                     : std::span<const std::byte>();
      offset_ = 0;
    }
    if (piece_.empty()) return false;
    for (size_t i = 0; i < lines; ++i) __builtin_prefetch(piece_.data() + offset_ + i * 64, 0, 2);
    offset_ += lines * 64, fetched_ += lines * 64;
    return true;
  }

 private:
  const Step* step_ = nullptr;
  KernelArgs args_;
  std::span<const std::byte> piece_;
  int next_ = 0;
  size_t offset_ = 0, fetched_ = 0;
};

/// A caller's tensor that a step reads or writes: its address is filled in when a run begins.
struct Patch {
  Tensor* tensor = nullptr;
  bool input = false;
  size_t index = 0;      // of the graph's input or output
  ptrdiff_t offset = 0;  // bytes into it
};

struct Times {
  int64_t begin_ns = 0, end_ns = 0, barrier_ns = 0;
};

void copy_strided(const Tensor& from, int dim, const std::byte* src, std::byte*& dst) {
  const size_t element = element_bytes(from.desc.dtype);
  if (dim == from.desc.shape.rank()) {
    std::memcpy(dst, src, element);
    dst += element;
    return;
  }
  for (int64_t i = 0; i < from.desc.shape[dim]; ++i) {
    copy_strided(from, dim + 1, src + i * from.strides[dim] * static_cast<int64_t>(element), dst);
  }
}

void copy_tensor(const Tensor& from, std::byte* to) {
  if (from.desc.dtype == DType::packed || from.contiguous()) {
    if (const size_t size = bytes(from.desc); size > 0) std::memcpy(to, from.data, size);
  } else {
    copy_strided(from, 0, from.data, to);
  }
}

std::string describe(const Node& node) { return message("node ", node.name, " (", node.op->name, ")"); }

}  // namespace

struct Plan::Impl {
  Graph graph;
  PlanOptions options;
  Layout layout;
  Buffer arena, scratch;
  std::vector<size_t> input_bytes, output_bytes;
  std::vector<Tensor> step_inputs;  // of all steps, in order
  std::vector<Step> steps;
  std::vector<size_t> ahead;  // per step: the next one that says what it reads first; steps.size() when none does
  std::vector<Patch> patches;
  std::unique_ptr<Counters[]> counters;
  std::vector<Tensor> copies;  // per output: where to copy it from; desc only when it is written in place
  std::mutex error_mutex;
  std::exception_ptr error;
  std::atomic<size_t> failed_step = std::numeric_limits<size_t>::max();
  Profile* profile = nullptr;
  std::vector<Times> times;  // (threads, steps), empty unless profiled

  Tensor tensor_of(Value v) const;
  void choose();
  void bind_memory();
  void add_patch(Tensor& tensor, Value v);
  void check(const ThreadPool& pool, std::span<const Tensor> in, std::span<const Tensor> out) const;
  void patch(std::span<const Tensor> in, std::span<const Tensor> out);
  void work(const Worker& worker);
  void find_ahead();
  void fetch_while_waiting(size_t index, Ahead& ahead, const Worker& worker);
  void run_step(size_t index, const Worker& worker) noexcept;
  void record();
};

/// The value as steps see it; data is null where the caller's memory is patched in.
Tensor Plan::Impl::tensor_of(Value v) const {
  const View& view = layout.views[v.id];
  const Place& place = layout.places[view.root];
  Tensor t;
  t.desc = graph.desc(v);
  t.strides = view.strides;
  if (place.kind == Place::constant) t.data = graph.constants[view.root].data + view.offset;
  if (place.kind == Place::arena) t.data = arena.data() + place.offset + view.offset;
  return t;
}

void Plan::Impl::choose() {
  size_t scratch_bytes = 0;
  for (const Node& node : graph.nodes) {
    if (node.op->view) continue;
    std::vector<TensorDesc> in;
    std::vector<Tensor> constants;
    std::vector<Shape> strides;
    for (Value v : node.in) {
      const View& view = layout.views[v.id];
      in.push_back(graph.desc(v));
      strides.push_back(view.strides);
      constants.push_back(layout.places[view.root].kind == Place::constant ? tensor_of(v) : Tensor());
    }
    const Call call{.node = &node,
                    .in = in,
                    .constants = constants,
                    .strides = strides,
                    .out = graph.desc(node.out),
                    .threads = options.threads,
                    .fixed_sum_order = options.fixed_sum_order};
    Step step{.node = &node, .choice = {}, .args = {}};
    try {
      step.choice = choose_kernel(call, options.max_isa);
    } catch (const Error& e) {
      fail(describe(node), ": ", e.what());
    }
    scratch_bytes = std::max(scratch_bytes, step.choice.bound.scratch_bytes);
    steps.push_back(std::move(step));
  }
  scratch = Buffer(scratch_bytes);
}

void Plan::Impl::add_patch(Tensor& tensor, Value v) {
  const View& view = layout.views[v.id];
  const Place& place = layout.places[view.root];
  if (place.kind != Place::input && place.kind != Place::output) return;
  patches.push_back({&tensor, place.kind == Place::input, place.index, view.offset});
}

void Plan::Impl::bind_memory() {
  arena = Buffer(layout.arena_bytes);
  counters = std::make_unique<Counters[]>(steps.size());
  size_t inputs = 0;
  for (const Step& s : steps) inputs += s.node->in.size();
  step_inputs.reserve(inputs);  // spans and patches point into it
  for (size_t i = 0; i < steps.size(); ++i) {
    Step& s = steps[i];
    const size_t first = step_inputs.size();
    for (Value v : s.node->in) {
      step_inputs.push_back(tensor_of(v));
      add_patch(step_inputs.back(), v);
    }
    s.args.in = std::span(step_inputs).subspan(first);
    s.args.out = tensor_of(s.node->out);
    add_patch(s.args.out, s.node->out);
    s.args.attrs = &s.node->attrs;
    s.args.scratch = scratch.data();
    s.args.counters = counters[i].next;
  }
  copies.reserve(graph.outputs.size());
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    const Value v = graph.outputs[i];
    copies.push_back(tensor_of(v));
    if (!layout.in_place[i]) add_patch(copies.back(), v);
  }
  for (Value v : graph.inputs) input_bytes.push_back(bytes(graph.desc(v)));
  for (Value v : graph.outputs) output_bytes.push_back(bytes(graph.desc(v)));
}

Plan Plan::compile(const Graph& graph, const PlanOptions& options) {
  NIBBLE_CHECK(options.threads >= 1, "plan: expected threads from 1, found ", options.threads);
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->graph = passes::drop_dead(options.run_passes ? passes::run_all(graph) : graph);
  impl->layout = plan_layout(impl->graph);
  impl->choose();
  impl->bind_memory();
  impl->find_ahead();
  return Plan(std::move(impl));
}

Plan::Plan(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Plan::~Plan() = default;
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;

namespace {

void check_tensor(const char* what, size_t index, const std::string& name, const TensorDesc& desc, const Tensor& t,
                  size_t size) {
  NIBBLE_CHECK(t.desc == desc, what, " ", index, " ", name, ": expected ", to_string(desc), ", found ",
               to_string(t.desc));
  NIBBLE_CHECK(t.desc.dtype == DType::packed || t.contiguous(), what, " ", index, " ", name, ": expected strides ",
               to_string(contiguous_strides(t.desc.shape)), ", found ", to_string(t.strides));
  NIBBLE_CHECK(t.data || size == 0, what, " ", index, " ", name, " has no memory");
}

bool overlap(const Tensor& a, size_t a_bytes, const Tensor& b, size_t b_bytes) {
  const auto first = reinterpret_cast<uintptr_t>(a.data);
  const auto second = reinterpret_cast<uintptr_t>(b.data);
  return a_bytes > 0 && b_bytes > 0 && first < second + b_bytes && second < first + a_bytes;
}

}  // namespace

void Plan::Impl::check(const ThreadPool& pool, std::span<const Tensor> in, std::span<const Tensor> out) const {
  NIBBLE_CHECK(pool.size() == options.threads, "plan: compiled for ", options.threads, " threads, run on ",
               pool.size());
  NIBBLE_CHECK(in.size() == graph.inputs.size(), "plan: expected ", graph.inputs.size(), " inputs, found ", in.size());
  NIBBLE_CHECK(out.size() == graph.outputs.size(), "plan: expected ", graph.outputs.size(), " outputs, found ",
               out.size());
  for (size_t i = 0; i < in.size(); ++i) {
    const Value v = graph.inputs[i];
    check_tensor("input", i, graph.value_names[v.id], graph.desc(v), in[i], input_bytes[i]);
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const Value v = graph.outputs[i];
    check_tensor("output", i, graph.value_names[v.id], graph.desc(v), out[i], output_bytes[i]);
    for (size_t j = 0; j < in.size(); ++j) {
      NIBBLE_CHECK(!overlap(out[i], output_bytes[i], in[j], input_bytes[j]), "output ", i, " overlaps input ", j, " ",
                   graph.value_names[graph.inputs[j].id]);
    }
    for (size_t j = 0; j < i; ++j) {
      NIBBLE_CHECK(!overlap(out[i], output_bytes[i], out[j], output_bytes[j]), "output ", i, " overlaps output ", j);
    }
  }
}

void Plan::Impl::patch(std::span<const Tensor> in, std::span<const Tensor> out) {
  for (const Patch& p : patches) p.tensor->data = (p.input ? in : out)[p.index].data + p.offset;
}

void Plan::run(ThreadPool& pool, std::span<const Tensor> in, std::span<const Tensor> out) {
  Impl& impl = *impl_;
  impl.check(pool, in, out);
  impl.patch(in, out);
  for (size_t i = 0; i < impl.steps.size(); ++i) {
    for (auto& counter : impl.counters[i].next) counter.store(0, std::memory_order_relaxed);
    impl.counters[i].arrived.store(0, std::memory_order_relaxed);
  }
  pool.run([&](const Worker& worker) { impl.work(worker); });
  if (impl.error) {
    impl.failed_step = std::numeric_limits<size_t>::max();
    std::rethrow_exception(std::exchange(impl.error, nullptr));
  }
  for (size_t i = 0; i < out.size(); ++i) {
    if (!impl.layout.in_place[i]) copy_tensor(impl.copies[i], out[i].data);
  }
  if (impl.profile) impl.record();
}

void Plan::Impl::find_ahead() {
  ahead.assign(steps.size(), steps.size());
  for (size_t i = steps.size(); i-- > 1;) {
    const bool says = !steps[i].choice.reference && steps[i].choice.bound.reads_first;
    ahead[i - 1] = says ? i : ahead[i];
  }
}

/// Until the others have left the step too.
void Plan::Impl::fetch_while_waiting(size_t index, Ahead& fetched, const Worker& worker) {
  std::atomic<int>& arrived = counters[index].arrived;
  if (arrived.fetch_add(1, std::memory_order_relaxed) + 1 == worker.count) return;
  fetched.begin(steps[ahead[index]], worker);
  while (arrived.load(std::memory_order_relaxed) < worker.count && fetched.fetch()) {
  }
}

void Plan::Impl::work(const Worker& worker) {
  Ahead fetched;
  Times* mine = times.empty() ? nullptr : &times[static_cast<size_t>(worker.index) * steps.size()];
  for (size_t i = 0; i < steps.size(); ++i) {
    if (mine) mine[i].begin_ns = now_ns();
    // A failure of an earlier step is visible to all after its barrier, so all skip the same steps and still meet.
    if (i <= failed_step.load(std::memory_order_relaxed)) run_step(i, worker);
    if (mine) mine[i].end_ns = now_ns();
    if (ahead[i] < steps.size() && worker.count > 1) fetch_while_waiting(i, fetched, worker);
    worker.barrier();
    if (mine) mine[i].barrier_ns = now_ns();
  }
}

void Plan::Impl::run_step(size_t index, const Worker& worker) noexcept {
  const Step& step = steps[index];
  try {
    KernelArgs args = step.args;
    if (!step.choice.reference) {
      args.worker = worker;
      step.choice.bound.run(step.choice.bound.state.get(), args);
    } else if (worker.index == 0) {
      step.node->op->reference(args);
    }
    return;
  } catch (const std::exception& e) {
    const std::lock_guard lock(error_mutex);
    if (error) return;
    error = std::make_exception_ptr(Error(message(describe(*step.node), ", ", step.choice.kernel, ": ", e.what())));
  } catch (...) {
    const std::lock_guard lock(error_mutex);
    if (error) return;
    error = std::current_exception();
  }
  failed_step.store(index, std::memory_order_relaxed);
}

void Plan::Impl::record() {
  for (size_t w = 0; w < static_cast<size_t>(options.threads); ++w) {
    for (size_t i = 0; i < steps.size(); ++i) {
      if (w > 0 && steps[i].choice.reference) continue;  // only worker 0 worked
      const Times& t = times[w * steps.size() + i];
      profile->add({.node = steps[i].node->name,
                    .op = steps[i].node->op->name,
                    .kernel = steps[i].choice.kernel,
                    .worker = static_cast<int>(w),
                    .begin_ns = t.begin_ns,
                    .end_ns = t.end_ns,
                    .barrier_ns = t.barrier_ns});
    }
  }
}

void Plan::set_profile(Profile* profile) {
  impl_->profile = profile;
  impl_->times.clear();
  if (profile) impl_->times.resize(impl_->steps.size() * static_cast<size_t>(impl_->options.threads));
}

size_t Plan::arena_bytes() const { return impl_->layout.arena_bytes + impl_->scratch.size(); }

const Graph& Plan::graph() const { return impl_->graph; }

std::vector<Plan::StepName> Plan::steps() const {
  std::vector<StepName> names;
  for (const Step& s : impl_->steps) names.push_back({s.node->name, s.node->op->name, s.choice.kernel});
  return names;
}

std::string Plan::explain() const {
  auto us = [](float ns) {
    std::ostringstream text;
    text.precision(1);
    text << std::fixed << ns / 1000 << " us";
    return text.str();
  };
  TextTable table({"node", "op", "kernel", "cost", "result"});
  for (const Step& s : impl_->steps) {
    table.row({s.node->name, std::string(s.node->op->name), s.choice.kernel,
               s.choice.reference ? "-" : us(s.choice.cost), to_string(s.args.out.desc)});
    for (const Candidate& c : s.choice.others) {
      table.note(message("    not ", c.name, ": ", c.reason.empty() ? us(c.cost) : c.reason));
    }
  }
  std::set<std::string> bases;
  for (const Step& s : impl_->steps) {
    if (!s.choice.cost_basis.empty()) bases.insert(s.choice.cost_basis);
  }
  for (const std::string& basis : bases) table.note("costs of " + basis);
  table.note(message("arena ", impl_->layout.arena_bytes, " bytes, scratch ", impl_->scratch.size(), " bytes"));
  return table.text();
}

}  // namespace nibble
