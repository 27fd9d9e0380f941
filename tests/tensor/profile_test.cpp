// SPDX-License-Identifier: Apache-2.0
#include "tensor/profile.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tensor/op.h"
#include "tensor/plan.h"

namespace nibble {
namespace {

Profile sample() {
  Profile p;
  p.add({.node = "blk.0.q",
         .op = "matmul",
         .kernel = "fast",
         .worker = 0,
         .begin_ns = 1000,
         .end_ns = 4000,
         .barrier_ns = 5000});
  p.add({.node = "blk.0.\"odd\"\n",
         .op = "silu",
         .kernel = "reference",
         .worker = 0,
         .begin_ns = 5000,
         .end_ns = 6000,
         .barrier_ns = 6000});
  p.add({.node = "blk.1.q",
         .op = "matmul",
         .kernel = "fast",
         .worker = 0,
         .begin_ns = 6000,
         .end_ns = 10000,
         .barrier_ns = 10000});
  p.add({.node = "blk.0.q",
         .op = "matmul",
         .kernel = "fast",
         .worker = 1,
         .begin_ns = 1000,
         .end_ns = 5000,
         .barrier_ns = 5000});
  return p;
}

TEST(Profile, TableSumsByKernelSlowestFirst) {
  const std::string text = sample().table();
  EXPECT_EQ(text,
            "op      kernel     calls  ms     share  barrier ms\n"
            "matmul  fast       2      0.008  88.9%  0.001\n"
            "silu    reference  1      0.001  11.1%  0.000\n");
}

TEST(Profile, ChromeTraceIsJson) {
  const auto trace = nlohmann::json::parse(sample().chrome_trace());
  const auto& events = trace.at("traceEvents");
  ASSERT_EQ(events.size(), 5u) << "four kernels and one wait at a barrier";
  EXPECT_EQ(events[0].at("name"), "blk.0.q");
  EXPECT_EQ(events[0].at("ph"), "X");
  EXPECT_EQ(events[0].at("ts"), 0.0);
  EXPECT_EQ(events[0].at("dur"), 3.0);
  EXPECT_EQ(events[0].at("args").at("kernel"), "fast");
  EXPECT_EQ(events[1].at("name"), "barrier");
  EXPECT_EQ(events[1].at("dur"), 1.0);
  EXPECT_EQ(events[2].at("name"), "blk.0.\"odd\"\n");
  EXPECT_EQ(events[4].at("tid"), 1);
  EXPECT_TRUE(nlohmann::json::parse(Profile().chrome_trace()).at("traceEvents").empty());
}

TEST(Profile, RecordsEveryNodeOfARun) {
  Graph g;
  const Value x = g.input("x", {{2, 4}, DType::f32});
  const Value y = g.add(op("silu"), {x}, {}, "first");
  g.output(g.add(op("add"), {y, x}, {}, "second"));
  Plan plan = Plan::compile(g, {.max_isa = Isa::generic, .threads = 2});
  ThreadPool pool(2);
  std::vector<float> in(8, 1), out(8);
  const std::vector ins{Tensor({{2, 4}, DType::f32}, in.data())};
  const std::vector outs{Tensor({{2, 4}, DType::f32}, out.data())};
  Profile profile;
  plan.run(pool, ins, outs);
  plan.set_profile(&profile);
  plan.run(pool, ins, outs);
  plan.set_profile(nullptr);
  plan.run(pool, ins, outs);
  ASSERT_EQ(profile.events().size(), 2u) << "references work on worker 0 only; one of three runs is recorded";
  EXPECT_EQ(profile.events()[0].node, "first");
  EXPECT_EQ(profile.events()[0].op, "silu");
  EXPECT_EQ(profile.events()[0].kernel, "reference");
  EXPECT_EQ(profile.events()[1].node, "second");
  EXPECT_LE(profile.events()[0].begin_ns, profile.events()[0].end_ns);
  EXPECT_LE(profile.events()[0].end_ns, profile.events()[0].barrier_ns);
  EXPECT_LE(profile.events()[0].barrier_ns, profile.events()[1].begin_ns);
  profile.clear();
  EXPECT_TRUE(profile.events().empty());
}

}  // namespace
}  // namespace nibble
