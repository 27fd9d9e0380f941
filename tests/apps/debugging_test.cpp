// SPDX-License-Identifier: Apache-2.0
// What shows from outside which kernels run and how long they take: plans, profiles, traces, dumps, the perf map.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>

#include "tensor/cpu.h"
#include "tests/support/command.h"
#include "tests/support/gguf_writer.h"

namespace nibble {
namespace {

test::Outcome bench(const std::string& environment, const std::string& flags = "") {
  return test::run_command(environment, "nibble",
                           "bench -m " NIBBLE_TEST_DATA "/models/llama-3.gguf -p 8 -n 2 -r 1 -t 2 --no-peak " + flags);
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(Debugging, RefusesAnUnknownInstructionSet) {
  const test::Outcome outcome = bench("NIBBLE_MAX_ISA=bogus");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.error,
            "error: NIBBLE_MAX_ISA: instruction set \"bogus\": expected one of generic, avx2, avxvnni, avx512vnni, "
            "amxint8\n");
}

TEST(Debugging, GenericRunsReferencesOnly) {
  const test::Outcome outcome = bench("NIBBLE_MAX_ISA=generic", "--explain");
  EXPECT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_TRUE(contains(outcome.error, "matmuls per token in reference")) << outcome.error;
  EXPECT_TRUE(contains(outcome.out, "not matmul_float_avx2: the cap generic means references only")) << outcome.out;
}

TEST(Debugging, ExplainsThePlan) {
  if (!supported(Isa::avx2)) GTEST_SKIP() << "avx2 is not supported";
  const test::Outcome flag = bench("NIBBLE_MAX_ISA=avx2", "--explain --profile");
  EXPECT_EQ(flag.code, 0) << flag.error;
  const test::Outcome variable = bench("NIBBLE_MAX_ISA=avx2 NIBBLE_EXPLAIN=1");
  for (const std::string& text : {flag.out, variable.error}) {
    for (std::string_view part :
         {"blk.0.q+k+v", "blk.0.gate+up", "attention_avx2", "matmul_float_avx2: gemm_f32_f16_f32_",
          "not matmul_onednn: sums depend on the number of rows", "arena "}) {
      EXPECT_TRUE(contains(text, part)) << part << " is not in\n" << text;
    }
    EXPECT_FALSE(contains(text, " reference ")) << text;
  }
  EXPECT_TRUE(contains(flag.out, "barrier ms")) << flag.out;
}

TEST(Debugging, TraceIsJsonWithEveryTestAndWorker) {
  const test::TempDir dir;
  const test::Outcome outcome =
      bench(supported(Isa::avx2) ? "NIBBLE_MAX_ISA=avx2" : "", "--trace " + (dir / "trace.json"));
  EXPECT_EQ(outcome.code, 0) << outcome.error;
  std::set<std::string> tests;
  std::set<std::pair<int, int>> threads;
  const nlohmann::json trace = nlohmann::json::parse(test::read_file(dir / "trace.json"));
  for (const nlohmann::json& event : trace.at("traceEvents")) {
    if (event.at("ph") == "M") {
      tests.insert(event.at("args").at("name"));
      continue;
    }
    EXPECT_EQ(event.at("ph"), "X");
    EXPECT_GE(event.at("dur").get<double>(), 0);
    threads.emplace(event.at("pid").get<int>(), event.at("tid").get<int>());
  }
  EXPECT_EQ(tests, (std::set<std::string>{"pp8, 2 threads", "tg2, 2 threads"}));
  // References run on the first worker alone.
  if (supported(Isa::avx2)) {
    EXPECT_EQ(threads, (std::set<std::pair<int, int>>{{0, 0}, {0, 1}, {1, 0}, {1, 1}}));
  }
}

TEST(Debugging, DumpsAndNamesGeneratedCode) {
  if (!supported(Isa::avx2)) GTEST_SKIP() << "avx2 is not supported";
  const test::TempDir dir;
  const std::string record = dir / "pid";
  // The shell that starts the program becomes it, so its number is the program's.
  const test::Outcome outcome = test::run_command(
      "sh -c 'echo $$ > " + record + "; NIBBLE_MAX_ISA=avx2 NIBBLE_PERF_MAP=1 NIBBLE_JIT_DUMP=" + dir.path() +
          " exec \"$@\"' sh",
      "nibble", "bench -m " NIBBLE_TEST_DATA "/models/llama-3.gguf -p 8 -n 2 -r 1 -t 1 --no-peak");
  EXPECT_EQ(outcome.code, 0) << outcome.error;
  std::set<std::string> dumped, mapped;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
    if (entry.path().extension() == ".bin") dumped.insert(entry.path().stem().string());
  const std::string map = "/tmp/perf-" + std::to_string(std::stoi(test::read_file(record))) + ".map";
  std::ifstream lines(map);
  for (std::string address, size, name; lines >> address >> size >> name;) mapped.insert(name);
  std::filesystem::remove(map);
  EXPECT_TRUE(dumped.contains("gemm_f32_f16_f32_6x16x1_avx2"));
  EXPECT_EQ(dumped, mapped);
}

TEST(Debugging, SaysWhereADumpCannotGo) {
  if (!supported(Isa::avx2)) GTEST_SKIP() << "avx2 is not supported";
  const test::Outcome outcome = bench("NIBBLE_MAX_ISA=avx2 NIBBLE_JIT_DUMP=/nowhere");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_TRUE(contains(outcome.error, "NIBBLE_JIT_DUMP: cannot write /nowhere/gemm_")) << outcome.error;
}

}  // namespace
}  // namespace nibble
