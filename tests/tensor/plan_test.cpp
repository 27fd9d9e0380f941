// SPDX-License-Identifier: Apache-2.0
#include "tensor/plan.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "tensor/arena.h"
#include "tensor/check.h"
#include "tensor/kernel.h"
#include "tensor/op.h"
#include "tests/support/allocations.h"

namespace nibble {
namespace {

// Ops of this test's own: `mix` is a + 2 b + c (attribute), `fused_mix` the same with kernels, `half` a view.
TensorDesc infer_mix(std::span<const TensorDesc> in, const Attrs&) {
  NIBBLE_CHECK(in.size() == 2 && in[0].shape == in[1].shape, "shapes differ");
  return {in[0].shape, DType::f32};
}

float& at(const Tensor& t, int64_t i, int64_t j) { return t.as<float>()[i * t.strides[0] + j * t.strides[1]]; }

void mix_rows(const KernelArgs& args, int64_t begin, int64_t end) {
  const auto c = static_cast<float>(args.attrs->i("c"));
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t j = 0; j < args.out.dim(1); ++j) {
      at(args.out, i, j) = at(args.in[0], i, j) + 2 * at(args.in[1], i, j) + c;
    }
  }
}
void mix_reference(const KernelArgs& args) { mix_rows(args, 0, args.out.dim(0)); }

Tensor take_half(const Tensor& in, const Attrs& attrs) {
  Tensor out = in;
  out.desc.shape[1] /= 2;
  out.data += attrs.i("second", 0) * out.desc.shape[1] * in.strides[1] * static_cast<int64_t>(sizeof(float));
  return out;
}
TensorDesc infer_half(std::span<const TensorDesc> in, const Attrs&) {
  return {{in[0].shape[0], in[0].shape[1] / 2}, DType::f32};
}
TensorDesc infer_twice(std::span<const TensorDesc> in, const Attrs&) {
  return {{in[0].shape[0], in[0].shape[1] * 2}, DType::f32};
}
void twice_reference(const KernelArgs& args) {
  for (int64_t i = 0; i < args.out.dim(0); ++i) {
    for (int64_t j = 0; j < args.out.dim(1); ++j) at(args.out, i, j) = at(args.in[0], i, j % args.in[0].dim(1)) + 1;
  }
}
void failing_reference(const KernelArgs&) { fail("the reference failed"); }
void store_reference(const KernelArgs& args) {
  at(args.in[0], 0, 0) = 42;
  mix_reference(args);
}

const OpDef mix_op = {.name = "test_mix", .infer = infer_mix, .reference = mix_reference};
const OpDef fused_op = {.name = "test_fused_mix", .infer = infer_mix, .reference = mix_reference};
const OpDef half_op = {.name = "test_half", .infer = infer_half, .reference = nullptr, .view = take_half};
const OpDef twice_op = {.name = "test_twice", .infer = infer_twice, .reference = twice_reference};
const OpDef broken_op = {.name = "test_broken_bind", .infer = infer_twice, .reference = twice_reference};
const OpDef failing_op = {.name = "test_failing", .infer = infer_mix, .reference = failing_reference};
const OpDef store_op = {.name = "test_store", .infer = infer_mix, .reference = store_reference, .writes_inputs = true};

struct Seen {  // what the kernels of fused_op were given
  Shape stride;
  const std::byte* out = nullptr;
  std::atomic<int> entered = 0, bad_counters = 0, bad_scratch = 0;
};
Seen seen;

void fused_run(const void*, const KernelArgs& args) {
  ++seen.entered;
  if (args.worker.index == 0) {
    seen.stride = args.in[0].strides;
    seen.out = args.out.data;
  }
  if (reinterpret_cast<uintptr_t>(args.scratch) % 64 != 0) ++seen.bad_scratch;
  args.scratch[args.worker.index] = std::byte{1};
  for (int c = 1; c < 4; ++c) seen.bad_counters += args.counters[c].load() != 0;
  for (;;) {
    const int64_t row = args.counters[0].fetch_add(1);
    if (row >= args.out.dim(0)) return;
    mix_rows(args, row, row + 1);
  }
}
Bound bind_fused(const Call&) {
  return {.run = fused_run, .state = nullptr, .scratch_bytes = 100, .detail = "fused_mix_4x4"};
}

void register_test_kernels() {
  register_kernel({.name = "test_slow", .op = "test_fused_mix", .rejects = nullptr,
                   .cost = [](const Call&) { return 7000.0f; }, .bind = bind_fused});
  register_kernel({.name = "test_fast", .op = "test_fused_mix", .rejects = nullptr,
                   .cost = [](const Call& c) { return 1500.0f / static_cast<float>(c.threads); }, .bind = bind_fused});
  register_kernel({.name = "test_picky", .op = "test_fused_mix",
                   .rejects = [](const Call&) { return "it never likes anything"; },
                   .cost = [](const Call&) { return 1.0f; }, .bind = bind_fused});
  register_kernel({.name = "test_wide", .op = "test_fused_mix", .isa = Isa::avx512vnni, .rejects = nullptr,
                   .cost = [](const Call&) { return 1.0f; }, .bind = bind_fused});
}

/// Kernels marked generic run on any machine and under any NIBBLE_MAX_ISA once the plan's own cap is above generic.
PlanOptions with_kernels(int threads = 1) { return {.max_isa = Isa::avx2, .threads = threads, .run_passes = false}; }

struct Floats {
  Shape shape;
  std::vector<float> values;
  explicit Floats(const Shape& s, float first = 0) : shape(s), values(static_cast<size_t>(s.elements())) {
    std::iota(values.begin(), values.end(), first);
  }
  Tensor tensor() { return Tensor({shape, DType::f32}, values.data()); }
};

std::string error_of(auto&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

TEST(Plan, RunsReferences) {
  Graph g;
  Floats weight({2, 3}, 10);
  const Value x = g.input("x", {{2, 3}, DType::f32});
  const Value w = g.constant("w", weight.tensor());
  const Value y = g.add(mix_op, {x, w}, {{"c", 1}}, "first");
  g.output(g.add(mix_op, {y, x}, {{"c", 2}}, "second"));
  Plan plan = Plan::compile(g, {.threads = 2, .run_passes = false});
  ThreadPool pool(2);
  Floats in({2, 3}), out({2, 3});
  for (float shift : {0.0f, 5.0f}) {  // replayed with other inputs
    for (size_t i = 0; i < 6; ++i) in.values[i] = static_cast<float>(i) + shift;
    plan.run(pool, std::vector{in.tensor()}, std::vector{out.tensor()});
    for (size_t i = 0; i < 6; ++i) {
      const float first = in.values[i] + 2 * weight.values[i] + 1;
      EXPECT_EQ(out.values[i], first + 2 * in.values[i] + 2);
    }
  }
}

TEST(Plan, ChoosesTheCheapestKernelAndExplains) {
  register_test_kernels();
  register_test_kernels();  // the second time changes nothing
  EXPECT_EQ(kernels_for("test_fused_mix").size(), 4u);
  Graph g;
  const Value x = g.input("x", {{3, 4}, DType::f32});
  g.output(g.add(fused_op, {x, x}, {{"c", 0}}, "blk.0.mix"));
  const std::string text = Plan::compile(g, with_kernels()).explain();
  for (const char* part :
       {"blk.0.mix", "test_fast: fused_mix_4x4", "1.5 us", "not test_slow: 7.0 us",
        "not test_picky: it never likes anything", "not test_wide: needs avx512vnni, the cap is avx2", "f32 (3, 4)"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " missing in\n" << text;
  }
  PlanOptions references = with_kernels();
  references.max_isa = Isa::generic;
  const std::string plain = Plan::compile(g, references).explain();
  EXPECT_NE(plain.find("reference"), std::string::npos) << plain;
  EXPECT_EQ(plain.find("fused_mix_4x4"), std::string::npos) << plain;
}

TEST(Plan, GivesKernelsStridesCountersAndScratch) {
  register_test_kernels();
  for (int threads : {1, 3}) {
    Graph g;
    const Value x = g.input("x", {{5, 8}, DType::f32});
    const Value right = g.add(half_op, {x}, {{"second", 1}});
    g.output(g.add(fused_op, {right, g.add(half_op, {x})}, {{"c", 3}}));
    Plan plan = Plan::compile(g, with_kernels(threads));
    ThreadPool pool(threads);
    Floats in({5, 8}), out({5, 4});
    for (int run = 1; run <= 3; ++run) {
      seen.entered = 0;
      plan.run(pool, std::vector{in.tensor()}, std::vector{out.tensor()});
      EXPECT_EQ(seen.entered, threads);
      EXPECT_EQ(seen.stride, (Shape{8, 1}));
      EXPECT_EQ(seen.out, out.tensor().data) << "results are made in the caller's tensor";
      EXPECT_EQ(seen.bad_counters, 0);
      EXPECT_EQ(seen.bad_scratch, 0);
      for (size_t i = 0; i < 5; ++i) {
        for (size_t j = 0; j < 4; ++j) {
          EXPECT_EQ(out.values[i * 4 + j], in.values[i * 8 + 4 + j] + 2 * in.values[i * 8 + j] + 3);
        }
      }
    }
  }
}

TEST(Plan, RunAllocatesNothing) {
  register_test_kernels();
  Graph g;
  const Value x = g.input("x", {{4, 8}, DType::f32});
  Value y = g.add(fused_op, {x, x}, {{"c", 1}});
  y = g.add(mix_op, {y, x}, {{"c", 1}});
  g.output(y);
  g.output(g.add(half_op, {y}));  // copied at the end
  g.output(x);
  Plan plan = Plan::compile(g, with_kernels(3));
  ThreadPool pool(3);
  Floats in({4, 8}), out({4, 8}), half({4, 4}), same({4, 8});
  const std::vector ins{in.tensor()};
  const std::vector outs{out.tensor(), half.tensor(), same.tensor()};
  plan.run(pool, ins, outs);
  EXPECT_EQ(test::allocations_during([&] {
    for (int i = 0; i < 10; ++i) plan.run(pool, ins, outs);
  }), 0);
  EXPECT_EQ(test::allocations_during([] { ::operator delete(::operator new(1)); }), 1) << "the counter works";
}

TEST(Plan, ReusesMemoryOfDeadValues) {
  Graph g;
  Value y = g.input("x", {{16, 64}, DType::f32});
  for (int i = 0; i < 20; ++i) y = g.add(mix_op, {y, y}, {{"c", i}});
  g.output(y);
  const Plan plan = Plan::compile(g, {.run_passes = false});
  const size_t one = 16 * 64 * sizeof(float);
  EXPECT_LE(plan.arena_bytes(), 2 * one) << "20 values of " << one << " bytes, two alive at a time";
  EXPECT_GE(plan.arena_bytes(), 2 * one);
}

TEST(Arena, LivingValuesNeverOverlap) {
  std::mt19937 random(7);  // NOLINT: fixed seed
  for (int round = 0; round < 50; ++round) {
    std::vector<Lifetime> values(1 + random() % 40);
    size_t sum = 0;
    for (Lifetime& v : values) {
      v.bytes = random() % 1000;
      v.first = static_cast<int>(random() % 30);
      v.last = v.first + static_cast<int>(random() % 6);
      sum += (v.bytes + 63) / 64 * 64;
    }
    const ArenaLayout layout = lay_out(values);
    EXPECT_LE(layout.bytes, sum);
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(layout.offsets[i] % 64, 0u);
      EXPECT_LE(layout.offsets[i] + values[i].bytes, layout.bytes);
      for (size_t j = 0; j < i; ++j) {
        const bool meet = values[i].first <= values[j].last && values[j].first <= values[i].last;
        const bool apart = layout.offsets[i] + values[i].bytes <= layout.offsets[j] ||
                           layout.offsets[j] + values[j].bytes <= layout.offsets[i];
        EXPECT_TRUE(!meet || apart || values[i].bytes == 0 || values[j].bytes == 0) << i << " and " << j;
      }
    }
  }
}

// Random graphs with views, values read late and outputs of every kind, against an evaluation in separate memory: a
// value that was overwritten while still needed shows.
TEST(Plan, RandomGraphsKeepLivingValues) {
  ThreadPool pool(2);
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    Graph g;
    Floats x({3, 4}, 1), w({3, 4}, 100);
    std::vector<Value> all = {g.input("x", {x.shape, DType::f32}), g.constant("w", w.tensor())};
    std::vector<std::vector<float>> want = {x.values, w.values};
    for (int i = 0; i < 25; ++i) {
      const size_t a = random() % all.size(), b = random() % all.size();
      std::vector<float> v(12);
      if (random() % 3 == 0) {  // through a wider value and back by a view of its second half
        const Value wide = g.add(twice_op, {all[a]});
        all.push_back(g.add(half_op, {wide}, {{"second", static_cast<int64_t>(random() % 2)}}));
        for (size_t e = 0; e < 12; ++e) v[e] = want[a][e] + 1;
      } else {
        all.push_back(g.add(mix_op, {all[a], all[b]}, {{"c", i}}));
        for (size_t e = 0; e < 12; ++e) v[e] = want[a][e] + 2 * want[b][e] + static_cast<float>(i);
      }
      want.push_back(v);
    }
    std::vector<size_t> picks;
    for (int i = 0; i < 4; ++i) picks.push_back(random() % all.size());
    picks.push_back(picks[0]);  // the same value twice
    std::vector<Floats> results;
    std::vector<Tensor> outs;
    results.reserve(picks.size());
    for (size_t p : picks) {
      g.output(all[p]);
      results.emplace_back(x.shape);
      outs.push_back(results.back().tensor());
    }
    Plan plan = Plan::compile(g, {.threads = 2, .run_passes = false});
    for (int run = 0; run < 2; ++run) plan.run(pool, std::vector{x.tensor()}, outs);
    for (size_t i = 0; i < picks.size(); ++i)
      EXPECT_EQ(results[i].values, want[picks[i]]) << "seed " << seed << ", output " << i;
  }
}

TEST(Plan, RefusesTensorsThatDoNotFit) {
  Graph g;
  const Value x = g.input("tokens", {{2, 4}, DType::f32});
  g.output(g.add(mix_op, {x, x}, {{"c", 0}}));
  Plan plan = Plan::compile(g, {.threads = 2, .run_passes = false});
  ThreadPool pool(2), single(1);
  Floats in({2, 4}), out({2, 4}), wrong({2, 5}), wide({2, 8});
  auto run = [&](ThreadPool& p, const std::vector<Tensor>& ins, const std::vector<Tensor>& outs) {
    return error_of([&] { plan.run(p, ins, outs); });
  };
  EXPECT_EQ(run(pool, {in.tensor()}, {out.tensor()}), "");
  EXPECT_NE(run(single, {in.tensor()}, {out.tensor()}).find("2 threads"), std::string::npos);
  EXPECT_NE(run(pool, {}, {out.tensor()}).find("expected 1 inputs, found 0"), std::string::npos);
  EXPECT_NE(run(pool, {in.tensor()}, {}).find("expected 1 outputs"), std::string::npos);
  EXPECT_EQ(run(pool, {wrong.tensor()}, {out.tensor()}), "input 0 tokens: expected f32 (2, 4), found f32 (2, 5)");
  EXPECT_NE(run(pool, {in.tensor()}, {wrong.tensor()}).find("output 0"), std::string::npos);
  Tensor ints = in.tensor();
  ints.desc.dtype = DType::i32;
  EXPECT_NE(run(pool, {ints}, {out.tensor()}).find("found i32"), std::string::npos);
  Tensor strided = wide.tensor();
  strided.desc.shape[1] = 4;
  EXPECT_NE(run(pool, {strided}, {out.tensor()}).find("strides"), std::string::npos);
  EXPECT_NE(run(pool, {Tensor(in.tensor().desc, nullptr)}, {out.tensor()}).find("no memory"), std::string::npos);
  EXPECT_NE(run(pool, {in.tensor()}, {in.tensor()}).find("overlaps"), std::string::npos);
}

TEST(Plan, NamesTheNodeThatFailedAndStaysUsable) {
  for (int threads : {1, 3}) {
    Graph g;
    const Value x = g.input("x", {{2, 4}, DType::f32});
    const Value bad = g.add(failing_op, {x, x}, {}, "blk.1.bad");
    g.output(g.add(mix_op, {bad, x}, {{"c", 0}}));
    Plan plan = Plan::compile(g, {.threads = threads, .run_passes = false});
    ThreadPool pool(threads);
    Floats in({2, 4}), out({2, 4});
    for (int run = 0; run < 2; ++run) {
      EXPECT_EQ(error_of([&] { plan.run(pool, std::vector{in.tensor()}, std::vector{out.tensor()}); }),
                "node blk.1.bad (test_failing), reference: the reference failed");
    }
  }
}

TEST(Plan, NamesTheNodeWhoseBindFails) {
  register_kernel({.name = "test_broken", .op = "test_broken_bind", .rejects = nullptr, .cost = nullptr,
                   .bind = [](const Call&) -> Bound { fail("no room for code"); }});
  Graph g;
  g.output(g.add(broken_op, {g.input("x", {{2, 4}, DType::f32})}, {}, "wide"));
  EXPECT_EQ(error_of([&] { Plan::compile(g, with_kernels()); }), "node wide (test_broken_bind): no room for code");
}

TEST(Plan, DropsDeadNodesButKeepsSideEffects) {
  Graph g;
  const Value x = g.input("cache", {{2, 4}, DType::f32});
  const Value y = g.input("y", {{2, 4}, DType::f32});
  g.add(failing_op, {g.add(mix_op, {x, y}, {{"c", 1}}), y}, {}, "dead");
  g.add(store_op, {x, y}, {{"c", 0}}, "store");  // nobody reads its result
  Plan plan = Plan::compile(g, {.run_passes = false});
  ASSERT_EQ(plan.graph().nodes.size(), 1u);
  EXPECT_EQ(plan.graph().nodes[0].name, "store");
  ThreadPool pool(1);
  Floats cache({2, 4}), other({2, 4});
  plan.run(pool, std::vector{cache.tensor(), other.tensor()}, {});
  EXPECT_EQ(cache.values[0], 42);
}

}  // namespace
}  // namespace nibble
