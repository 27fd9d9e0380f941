// SPDX-License-Identifier: Apache-2.0
// The table of architectures: `nibble --list`, README, and plugins in it.
#include <gtest/gtest.h>

#include <string>

#include "tests/support/command.h"
#include "tests/support/gguf_writer.h"

namespace nibble {
namespace {

using test::Outcome;

Outcome list(const std::string& arguments) { return test::run_command("", "nibble", "--list " + arguments); }

TEST(List, ReadmeHasIt) {
  const std::string readme = test::read_file(NIBBLE_SOURCE_DIR "/README.md"),
                    begin = "<!-- nibble --list --markdown -->\n", end = "<!-- end of the list -->\n";
  const size_t from = readme.find(begin), to = readme.find(end);
  ASSERT_NE(from, std::string::npos) << begin;
  ASSERT_NE(to, std::string::npos) << end;
  const Outcome table = list("--markdown");
  EXPECT_EQ(table.code, 0) << table.error;
  EXPECT_EQ(readme.substr(from + begin.size(), to - from - begin.size()), table.out) << "run scripts/update-readme.sh";
}

TEST(List, IsForPeopleWithoutMarkdown) {
  const Outcome table = list("");
  EXPECT_EQ(table.code, 0) << table.error;
  EXPECT_EQ(table.out.rfind("architecture  models", 0), 0u) << table.out;
  EXPECT_EQ(table.out.find('|'), std::string::npos);
  EXPECT_NE(table.out.find("\nllama "), std::string::npos) << table.out;
  EXPECT_EQ(test::run_command("", "nibble", "--markdown").code, 2);
}

}  // namespace
}  // namespace nibble
