// SPDX-License-Identifier: Apache-2.0
#include "apps/roofline.h"

#include <gtest/gtest.h>

#include "tensor/cpu.h"
#include "tests/support/command.h"
#include "tests/support/gguf_writer.h"

namespace nibble::cli {
namespace {

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

const Roofs roofs{10e9, 100e9, 50e9};

RooflineRow row(double bytes, double operations, bool integer, bool streams) {
  return {"matmul_q", "gemm<&>", 1, 1.0, bytes, operations, integer, streams};
}

TEST(Roofline, TheSlowerBoundCounts) {
  EXPECT_EQ(row(5e9, 1e9, true, true).bound(roofs), "bandwidth");
  EXPECT_DOUBLE_EQ(row(5e9, 1e9, true, true).bound_seconds(roofs), 0.5);
  EXPECT_EQ(row(1e9, 80e9, true, true).bound(roofs), "int8");
  EXPECT_DOUBLE_EQ(row(1e9, 80e9, true, true).bound_seconds(roofs), 0.8);
  EXPECT_EQ(row(1e9, 40e9, false, true).bound(roofs), "f32");
  EXPECT_EQ(row(9e9, 0, false, false).bound(roofs), "") << "activations are in the caches";
  EXPECT_EQ(row(1e9, 1e9, true, true).bound({}), "") << "nothing was measured";
}

TEST(Roofline, TheTableShowsSpeedsAndShares) {
  const std::string table = roofline_table({"tg8", roofs, {row(5e9, 1e9, true, true), row(1e9, 0, false, false)}});
  for (std::string_view part : {"tg8", "5.00", "1.0", "bandwidth", "50.0%"})
    EXPECT_TRUE(contains(table, part)) << part << "\n" << table;
}

TEST(Roofline, ThePictureIsWellFormed) {
  for (const std::vector<Roofline>& charts :
       {std::vector<Roofline>{},
        {{"empty", {}, {}}},
        {{"a <b>", roofs, {row(5e9, 1e9, true, true)}}, {"c", roofs, {row(1, 80e9, false, true)}}}}) {
    const std::string svg = roofline_svg(charts);
    EXPECT_TRUE(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    EXPECT_FALSE(contains(svg, "nan") || contains(svg, "inf")) << svg;
    int open = 0;
    for (size_t at = svg.find('<'); at != std::string::npos; at = svg.find('<', at + 1)) {
      const std::string tag = svg.substr(at, svg.find('>', at) - at + 1);
      open += tag.starts_with("</") ? -1 : tag.ends_with("/>") ? 0 : 1;
    }
    EXPECT_EQ(open, 0) << svg;
  }
}

TEST(Roofline, BenchPrintsAndDrawsIt) {
  if (!supported(Isa::avx2)) GTEST_SKIP() << "avx2 is not supported";
  const test::TempDir dir;
  const test::Outcome outcome = test::run_command("NIBBLE_MAX_ISA=avx2", "nibble",
                                                  "bench -m " NIBBLE_TEST_DATA
                                                  "/models/llama-3.gguf -p 8 -n 2 -r 1 -t 1 --no-peak "
                                                  "--roofline --roofline-svg " +
                                                      (dir / "roof.svg"));
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  for (std::string_view part : {"pp8, 1 threads: bandwidth", "tg2, 1 threads: bandwidth", "attention", "of bound"})
    EXPECT_TRUE(contains(outcome.out, part)) << part << "\n" << outcome.out;
  const std::string svg = test::read_file(dir / "roof.svg");
  for (std::string_view part : {"<svg ", "operations per byte", "GOP/s", "read bandwidth", "f32 peak", "<circle"})
    EXPECT_TRUE(contains(svg, part)) << part;
}

}  // namespace
}  // namespace nibble::cli
