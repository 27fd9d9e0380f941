// SPDX-License-Identifier: Apache-2.0
// Architectures in shared objects: the example of docs/add-a-model.md runs, and what is wrong with others is said.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tensor/version.h"
#include "tests/support/command.h"
#include "tests/support/gguf_writer.h"

namespace nibble {
namespace {

using test::Outcome;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string built(const std::string& name) { return NIBBLE_BINARY_DIR "/tests/" + name; }

/// The one that another project built against the installed package (tests/CMakeLists.txt), or one built here.
std::string example() {
  const char* path = std::getenv("NIBBLE_EXAMPLE_PLUGIN");
  return path != nullptr ? path : built("plaid.so");
}

/// The repository's small model, as a file of the architecture plaid.
std::string plaid_file(const test::TempDir& dir) {
  std::string bytes = test::read_file(NIBBLE_SOURCE_DIR "/models/tiny/austen.gguf");
  const std::string type = test::raw_string("general.architecture") + test::raw(uint32_t{8});
  const auto replace = [&](const std::string& from, const std::string& to) {
    for (size_t at = bytes.find(from); at < 65536; at = bytes.find(from, at + 1)) bytes.replace(at, from.size(), to);
  };
  replace(type + test::raw_string("llama"), type + test::raw_string("plaid"));
  replace("llama.", "plaid.");
  test::write_file(dir / "plaid.gguf", bytes);
  return dir / "plaid.gguf";
}

Outcome load(const std::string& plugin, const std::string& plugin_case = "", const std::string& arguments = "--list") {
  return test::run_command("NIBBLE_PLUGIN_CASE=" + plugin_case, "nibble", arguments + " --arch-plugin " + plugin);
}

TEST(Plugin, ExampleSaysWhatLlamaSays) {
  test::TempDir dir;
  const std::string model = plaid_file(dir), rest = " -p 'It is a truth' -n 24 --temp 0 -t 1";
  const Outcome without = test::run_command("", "nibble", "run -m " + model + rest);
  EXPECT_EQ(without.code, 1);
  EXPECT_TRUE(contains(without.error, "unknown architecture 'plaid'")) << without.error;
  const Outcome plaid = test::run_command("", "nibble", "run --arch-plugin " + example() + " -m " + model + rest);
  const Outcome llama = test::run_command("", "nibble", "run -m " NIBBLE_SOURCE_DIR "/models/tiny/austen.gguf" + rest);
  EXPECT_EQ(plaid.code, 0) << plaid.error;
  EXPECT_TRUE(contains(plaid.error, "(plaid, ")) << plaid.error;
  EXPECT_FALSE(plaid.out.empty());
  EXPECT_EQ(plaid.out, llama.out);
}

TEST(Plugin, EveryCommandTakesIt) {
  test::TempDir dir;
  const std::string model = plaid_file(dir), plugin = " --arch-plugin " + example() + " ";
  test::write_file(dir / "text", std::string(600, 'a') + " b" + std::string(600, 'c'));
  for (const std::string& arguments :
       {"inspect" + plugin + "-m " + model, "tokenize" + plugin + "-m " + model + " a",
        "eval" + plugin + "-m " + model + " --tokens 1,2",
        "bench" + plugin + "-m " + model + " -p 4 -n 2 -r 1 --no-peak",
        "perplexity" + plugin + "-m " + model + " -c 8 --chunks 1 -f " + (dir / "text"),
        "quantize" + plugin + model + " " + (dir / "out.gguf") + " --format q8_0 --embedding keep",
        "chat" + plugin + "-m " + model + " --chat-template chatml -n 2 </dev/null", "--list" + plugin}) {
    const Outcome outcome = test::run_command("", "nibble", arguments);
    EXPECT_EQ(outcome.code, 0) << arguments << ": " << outcome.error;
    EXPECT_FALSE(contains(outcome.out + outcome.error, "unknown architecture")) << outcome.out;
  }
}

TEST(Plugin, StandsInTheList) {
  const Outcome list = load(example());
  EXPECT_EQ(list.code, 0) << list.error;
  EXPECT_TRUE(contains(list.out, "\nplaid ")) << list.out;
  EXPECT_TRUE(contains(list.out, "the author's word")) << list.out;
}

TEST(Plugin, SaysWhyItCannotBeLoaded) {
  test::TempDir dir;
  test::write_file(dir / "text.so", "hello, I am a text\n");
  const std::string cases = built("plugin_cases.so");
  const struct {
    std::string plugin, plugin_case, reason;
  } expected[] = {
      {dir / "absent.so", "", "plugin " + (dir / "absent.so") + ": no such file"},
      {"absent.so", "", "plugin absent.so: no such file"},
      {dir / "text.so", "", "plugin " + (dir / "text.so") + ": "},
      {built("plugin_nothing.so"), "", "no plugin of nibble: it has no function nibble_arch_plugin"},
      {built("plugin_older.so"), "", "expected one built for nibble " NIBBLE_VERSION ", found one for 0.0.9"},
      {cases, "version", "expected one built for nibble " NIBBLE_VERSION ", found one for 0.0.9"},
      {cases, "sizes", "its structures have other sizes than ours"},
      {cases, "", "expected a function that makes the architecture, found none"},
      {cases, "clash", "architecture 'llama': 'llama' belongs to 'llama' already"},
      {cases, "type_clash", "architecture 'other': 'gpt2' belongs to 'gpt2' already"},
      {cases, "nameless", "an architecture without a name"},
      {cases, "weightless", "architecture 'other': no names of weights"},
      {cases, "throws", "its architecture threw: no architecture today"},
      {cases, "throws_number", "its architecture threw: something that is no std::exception"},
      {example() + " --arch-plugin " + example(), "", "architecture 'plaid': 'plaid' belongs to 'plaid' already"}};
  for (const auto& c : expected) {
    const Outcome refused = load(c.plugin, c.plugin_case);
    EXPECT_EQ(refused.code, 1) << c.plugin << " " << c.plugin_case;
    EXPECT_EQ(refused.error.rfind("error: plugin ", 0), 0u) << refused.error;
    EXPECT_TRUE(contains(refused.error, c.reason)) << c.plugin_case << ": " << refused.error;
    EXPECT_EQ(refused.error.find('\n'), refused.error.size() - 1) << refused.error;
  }
}

TEST(Plugin, DefinitionsThatThrowAreNamed) {
  test::TempDir dir;
  const std::string run = "run -p a -m " + plaid_file(dir);
  const Outcome config = load(built("plugin_cases.so"), "config_throws", run);
  EXPECT_EQ(config.code, 1);
  EXPECT_TRUE(contains(config.error, "architecture 'plaid' threw something that is no std::exception")) << config.error;
  const Outcome block = load(built("plugin_cases.so"), "block_throws", run);
  EXPECT_EQ(block.code, 1);
  EXPECT_TRUE(contains(block.error, "architecture 'plaid' threw: no block today")) << block.error;
}

TEST(Plugin, DocumentationHasTheExample) {
  const std::string doc = test::read_file(NIBBLE_SOURCE_DIR "/docs/add-a-model.md");
  for (const char* file : {"plaid.cpp", "CMakeLists.txt"})
    EXPECT_TRUE(contains(doc, test::read_file(std::string(NIBBLE_SOURCE_DIR "/docs/arch-plugin/") + file) + "```\n"))
        << file;
}

}  // namespace
}  // namespace nibble
