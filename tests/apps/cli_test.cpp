// SPDX-License-Identifier: Apache-2.0
// The built command as a person meets it: help, refusals, exit codes, and answers of the repository's small model.
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/command.h"
#include "tests/support/gguf_writer.h"

namespace nibble {
namespace {

using test::Outcome;

Outcome nibble(const std::string& arguments, const std::string& program = "nibble") {
  return test::run_command("", program, arguments);
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

const std::array<std::string, 11> subcommands = {"run",   "chat",     "inspect", "tokenize", "eval",   "perplexity",
                                                 "bench", "quantize", "imatrix", "cache",    "kernels"};

std::string tiny_model() {
  const std::filesystem::path folder = NIBBLE_SOURCE_DIR "/models/tiny";
  if (std::filesystem::is_directory(folder))
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".gguf") return entry.path().string();
  return "";
}

#define NIBBLE_NEED_TINY_MODEL()             \
  const std::string model = tiny_model();    \
  if (model.empty()) GTEST_SKIP() << "models/tiny holds no .gguf file"

TEST(Cli, HelpsWithoutArguments) {
  const Outcome plain = nibble(""), asked = nibble("--help");
  EXPECT_EQ(plain.code, 0);
  EXPECT_EQ(asked.code, 0);
  EXPECT_EQ(plain.out, asked.out);
  EXPECT_EQ(plain.error, "");
  for (const std::string& name : subcommands) EXPECT_TRUE(contains(plain.out, "  " + name)) << name;
  EXPECT_TRUE(contains(plain.out, "Example:"));
}

TEST(Cli, HelpOfEveryCommandHasAnExample) {
  for (const std::string& name : subcommands) {
    const Outcome help = nibble(name + " --help");
    EXPECT_EQ(help.code, 0) << name;
    EXPECT_TRUE(contains(help.out, "Example:\n  nibble " + name)) << help.out;
    EXPECT_EQ(help.error, "") << name;
  }
}

TEST(Cli, SaysVersionAndArchitectures) {
  const Outcome version = nibble("--version"), list = nibble("--list");
  EXPECT_EQ(version.code, 0);
  EXPECT_TRUE(contains(version.out, "nibble "));
  EXPECT_EQ(list.code, 0);
  EXPECT_TRUE(contains(list.out, "llama"));
  EXPECT_TRUE(contains(list.out, "gptj"));
}

TEST(Cli, RefusesBadUsageWithCodeTwo) {
  for (const char* arguments : {"no-such-command",
                                "--no-such-flag",
                                "run",
                                "run -m x --no-such-flag",
                                "run -m x -p a --temp nan",
                                "run -m x -p a --temp -1",
                                "run -m x -p a --temp warm",
                                "run -m x -p a --top-k 1.5",
                                "run -m x -p a --top-p 1.5",
                                "run -m x -p a -n -2",
                                "run -m x -p a -t 0",
                                "run -m x -p a -t 99999999999999999999",
                                "run -m x -p a -c 0",
                                "run -m x -p a --max-isa mmx",
                                "run -m x -p a --cache-type q4_0",
                                "run -m x -p a -f b",
                                "run -m x -p a --system s",
                                "run -m x -p a --seed -2",
                                "run -m x -p a --repeat-penalty 0",
                                "run -m x stray",
                                "chat -m x --template no-such",
                                "eval -m x",
                                "eval -m x --tokens one",
                                "eval -m x --tokens ''",
                                "eval -m x --tokens 1,-3",
                                "eval -m x --tokens 1,,3",
                                "eval -m x --tokens 1,3,",
                                "eval -m x --tokens 99999999999",
                                "eval -m x --tokens 1,2.5",
                                "run -m x -p a --stop ''",
                                "perplexity -m x -f y -c 3",
                                "perplexity -m x",
                                "perplexity -m x -f y --kl-base z",
                                "perplexity -m x --hellaswag y --save-logits z",
                                "perplexity -m x -f y --chunks -2",
                                "bench -m x -o xml",
                                "bench -m x -p -1",
                                "bench -m x -r 0",
                                "kernels -o file",
                                "inspect",
                                "tokenize"}) {
    const Outcome refused = nibble(arguments);
    EXPECT_EQ(refused.code, 2) << arguments << ": " << refused.error;
    EXPECT_EQ(refused.error.rfind("error: ", 0), 0u) << arguments << ": " << refused.error;
    EXPECT_EQ(refused.error.find('\n'), refused.error.size() - 1) << arguments << ": one line, found " << refused.error;
    EXPECT_EQ(refused.out, "") << arguments;
  }
}

TEST(Cli, BoundsAreSaidInFull) {
  EXPECT_TRUE(contains(nibble("run -m x -p a -c 0").error, "between 1 and 16777216, found '0'"));
  EXPECT_TRUE(contains(nibble("run -m x -p a --repeat-penalty 0").error, "between 0.01 and 100, found '0'"));
}

TEST(Cli, ErrorsAreOneLineAndCodeOne) {
  test::TempDir dir;
  test::write_file(dir / "empty.gguf", "");
  test::write_file(dir / "text.gguf", "hello, I am a text\n");
  for (const std::string& arguments :
       {"run -p a -m " + (dir / "absent.gguf"), "run -p a -m " + (dir / "empty.gguf"),
        "run -p a -m " + (dir / "text.gguf"), "run -p a -m " + dir.path(), "chat -m " + (dir / "absent.gguf"),
        "inspect -m " + (dir / "text.gguf"), "tokenize a -m " + (dir / "text.gguf"),
        "eval --tokens 1 -m " + (dir / "text.gguf"), "perplexity -f " + (dir / "absent.txt") + " -m x",
        "bench -m " + (dir / "absent.gguf"), "bench -p 0 -n 0 -m " + (dir / "absent.gguf"),
        "eval --tokens 1,2,3 -c 2 -m " + (dir / "absent.gguf"), std::string("kernels --emit no_such_kernel"),
        std::string("kernels --isa mmx")}) {
    const Outcome failed = nibble(arguments + " </dev/null");
    EXPECT_EQ(failed.code, 1) << arguments << ": " << failed.error;
    EXPECT_EQ(failed.error.rfind("error: ", 0), 0u) << arguments << ": " << failed.error;
    EXPECT_EQ(failed.error.find('\n'), failed.error.size() - 1) << arguments << ": one line, found " << failed.error;
  }
  EXPECT_TRUE(contains(nibble("run -p a -m " + (dir / "absent.gguf")).error, "absent.gguf"));
  EXPECT_TRUE(contains(nibble("bench -p 0 -n 0 -m x").error, "nothing to measure"));
  EXPECT_TRUE(contains(nibble("eval --tokens 1,2,3 -c 2 -m x").error, "3 tokens do not fit"));
}

TEST(Cli, PerplexityComparesAndChooses) {
  NIBBLE_NEED_TINY_MODEL();
  test::TempDir dir;
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += "It is a truth universally acknowledged, that a single man must be in want of a wife. ";
  test::write_file(dir / "text", text);
  const std::string common = "perplexity -t 1 -m " + model;
  const Outcome saved = nibble(common + " -c 64 --chunks 2 -f " + (dir / "text") + " --save-logits " + (dir / "base"));
  EXPECT_EQ(saved.code, 0) << saved.error;
  EXPECT_TRUE(contains(saved.out, "Final estimate: PPL = ")) << saved.out;
  const Outcome compared = nibble(common + " --kl-base " + (dir / "base"));
  EXPECT_EQ(compared.code, 0) << compared.error;
  for (const char* line :
       {"PPL of the base", "KL divergence", "Same top token", "Probability change, RMS", "   99.9 %"})
    EXPECT_TRUE(contains(compared.out, line)) << line << " in " << compared.out;
  const Outcome other = nibble(common + " --kl-base " + (dir / "text"));
  EXPECT_EQ(other.code, 1);
  EXPECT_TRUE(contains(other.error, "_logits_")) << other.error;
  test::write_file(dir / "tasks",
                   "{\"question\": \"It was\", \"choices\": [\"the man\", \"qqq zzz\"], \"answer\": 0}\n");
  const Outcome chosen = nibble(common + " --multiple-choice " + (dir / "tasks"));
  EXPECT_EQ(chosen.code, 0) << chosen.error;
  EXPECT_TRUE(contains(chosen.out, "Accuracy: 100.00 % (1 of 1;")) << chosen.out;
  test::write_file(dir / "tasks", "It was\n1\nqqq zzz\nthe man\nqxq qxq\nzz qq\n");
  const Outcome hellaswag = nibble(common + " --hellaswag " + (dir / "tasks"));
  EXPECT_EQ(hellaswag.code, 0) << hellaswag.error;
  EXPECT_TRUE(contains(hellaswag.out, "1\t100.00000000%\t[20.6549%, 100.0000%]")) << hellaswag.out;
}

TEST(Cli, QuantizeChoosesTypesWithinAnAllowance) {
  NIBBLE_NEED_TINY_MODEL();
  test::TempDir dir;
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += "It is a truth universally acknowledged, that a single man must be in want of a wife. ";
  test::write_file(dir / "text", text);
  const std::string out = dir / "out.gguf", calibrate = " --calibrate " + (dir / "text") + " --chunks 1 -t 1";
  const std::string common = "quantize " + model + " " + out + " --type auto";
  const Outcome chosen = nibble(common + " --bits 6 --types q4_0,q8_0,q5_0" + calibrate);
  EXPECT_EQ(chosen.code, 0) << chosen.error;
  EXPECT_TRUE(contains(chosen.out, "expected divergence of the predictions: ")) << chosen.out;
  const auto inspected = nlohmann::json::parse(nibble("inspect --json --tensors -m " + out).out);
  double bits = 0, weights = 0;
  for (const auto& tensor : inspected["tensors"]) {
    double count = 1;
    for (const int size : tensor["shape"]) count *= size;
    const std::string type = tensor["type"];
    const std::map<std::string, double> sizes = {{"q4_0", 4.5}, {"q5_0", 5.5}, {"q8_0", 8.5}, {"f16", 16}, {"f32", 32}};
    ASSERT_TRUE(sizes.contains(type)) << type;
    bits += sizes.at(type) * count;
    weights += count;
  }
  EXPECT_LE(bits, 6 * weights) << "no more than was allowed";
  EXPECT_GT(bits, 4.5 * weights);
  const Outcome planned = nibble(common + " --bits 6 --types q4_0,q8_0,q5_0 --dry-run" + calibrate);
  EXPECT_EQ(planned.code, 0) << planned.error;
  EXPECT_TRUE(contains(planned.out, " bits per weight")) << planned.out;
  const auto refused = [&](const std::string& arguments, int code, const std::string& part) {
    const Outcome failed = nibble(arguments);
    EXPECT_EQ(failed.code, code) << arguments << ": " << failed.error;
    EXPECT_TRUE(contains(failed.error, part)) << arguments << ": " << failed.error;
    EXPECT_EQ(failed.error.find('\n'), failed.error.size() - 1) << failed.error;
  };
  refused(common + calibrate, 1, "expected either --bits or --size");
  refused(common + " --bits 6 --size 1M" + calibrate, 1, "expected either --bits or --size");
  refused(common + " --bits 6", 1, "expected a text to calibrate with");
  refused(common + " --bits 6 --embedding q8_0" + calibrate, 1, "--tensor-type NAME=TYPE");
  refused(common + " --bits 6 --types q4_0,q9" + calibrate, 1, "can't quantise to 'q9'");
  refused(common + " --bits 6 --types int8:row" + calibrate, 1, "--types q8s_row");
  refused(common + " --bits 1 --types q4_0" + calibrate, 1, "the smallest take");
  refused(common + " --bits many" + calibrate, 2, "--bits");
  refused(common + " --size 5X" + calibrate, 1, "500M or 4G");
  refused("quantize " + model + " " + (dir / "folder") + " --type auto --bits 6" + calibrate, 1,
          "expected a name that ends in .gguf");
  refused("quantize " + model + " " + out + " --type q4_0 --bits 6", 1, "belong to --type auto");
  refused("quantize " + model + " " + out + " --feedback", 2, "--calibrate");
  refused("quantize " + model + " " + out + " --imatrix a --calibrate b", 2, "--calibrate");
  refused("quantize " + model + " " + (dir / "folder") + " --type f16 --tensor-type a=f32", 1, "has one type");
  refused("quantize " + model + " " + (dir / "folder") + " --type f16 --keep-type f32", 1, "has one type");
  refused("quantize " + model + " " + (dir / "folder") + " --type int4 --keep-type q8_0", 1,
          "--keep-type q8_0: expected f16, bf16, f32 or keep");
  refused("quantize " + model + " " + out + " --type q4_0 --keep-type f16", 1, "--embedding, --output-tensor-type and");
  refused("quantize " + model + " " + (dir / "folder") + " --type q4_k", 1, "can't quantise a folder to 'q4_k'");
  EXPECT_FALSE(std::filesystem::exists(dir / "folder"));
}

TEST(Cli, QuantizeWritesAFolderOfAGgufFile) {
  NIBBLE_NEED_TINY_MODEL();
  test::TempDir dir;
  const std::string floats = dir / "floats", coded = dir / "coded", ids = " --tokens 5,100,7,2000,9";
  const Outcome planned = nibble("quantize " + model + " " + floats + " --type f16 --dry-run");
  EXPECT_EQ(planned.code, 0) << planned.error;
  EXPECT_TRUE(contains(planned.out, "model.layers.0.self_attn.q_proj.weight")) << planned.out;
  EXPECT_FALSE(std::filesystem::exists(floats));
  const Outcome unpacked = nibble("quantize " + model + " " + floats + " --type f32");
  EXPECT_EQ(unpacked.code, 0) << unpacked.error;
  EXPECT_TRUE(contains(unpacked.out, "32.0")) << unpacked.out;
  EXPECT_EQ(nibble("eval -m " + floats + ids).code, 0);
  for (const std::string& text :
       {std::string("It is a truth universally acknowledged, "), std::string("  1812\n\nnot \xC3\xA9t\xC3\xA9")}) {
    test::write_file(dir / "text", text);
    EXPECT_EQ(nibble("tokenize --json -m " + floats + " < " + (dir / "text")).out,
              nibble("tokenize --json -m " + model + " < " + (dir / "text")).out);
  }
  const Outcome quantised = nibble("quantize " + model + " " + coded + " --type int8:g64");
  EXPECT_EQ(quantised.code, 0) << quantised.error;
  EXPECT_TRUE(contains(quantised.out, " 42 matrices quantised, 1 written as f32\n")) << quantised.out;
  EXPECT_EQ(nibble("eval -m " + coded + ids).code, 0);
  const Outcome halves = nibble("quantize " + floats + " " + coded + "3 --type bf16 --dry-run");
  EXPECT_EQ(halves.code, 0) << halves.error;
  EXPECT_TRUE(contains(halves.out, " 0 matrices quantised, 43 written as bf16: ")) << halves.out;
  const Outcome kept = nibble("quantize " + model + " " + coded + "2 --type int8:g64 --keep-type bf16 --dry-run "
                              "--tensor-type '*.v_proj=f16'");
  EXPECT_EQ(kept.code, 0) << kept.error;
  EXPECT_TRUE(contains(kept.out, " 36 matrices quantised, 1 written as bf16, 6 written as f16: ")) << kept.out;
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir / "."), std::filesystem::directory_iterator()), 3)
      << "text and the two folders";
}

TEST(Cli, NamesFromFilesCannotSteerTheTerminal) {
  test::TempDir dir;
  test::GgufWriter().str("general.architecture", "a\x1b[31m\rb\nc" + std::string(1 << 16, 'd')).save(dir / "a.gguf");
  const Outcome run = nibble("run -p a -m " + (dir / "a.gguf")), inspect = nibble("inspect -m " + (dir / "a.gguf"));
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(inspect.code, 0) << inspect.error;
  for (const std::string& text : {run.error, inspect.out}) {
    EXPECT_TRUE(contains(text, "a?[31m?b")) << text;
    EXPECT_EQ(text.find_first_of("\x1b\r"), std::string::npos) << text;
    EXPECT_LT(text.size(), 8192u);
  }
  EXPECT_EQ(run.error.find('\n'), run.error.size() - 1) << run.error;
}

TEST(Cli, DemoRefusesOtherArchitectures) {
  test::TempDir dir;
  test::GgufWriter().str("general.architecture", "llama").save(dir / "a.gguf");
  const Outcome failed = nibble("-p a -m " + (dir / "a.gguf"), "nibble-gptj");
  EXPECT_EQ(failed.code, 1);
  EXPECT_TRUE(contains(failed.error, "expected gptj, found 'llama'")) << failed.error;
  EXPECT_EQ(nibble("--help", "nibble-gptj").code, 0);
}

TEST(Cli, InspectShowsMetadataAndTensors) {
  test::TempDir dir;
  test::GgufWriter w;
  w.str("general.architecture", "no-such-architecture").str("general.name", "na\x1b[31mme").f("eps", 1e-5f);
  w.strs("tokens", std::vector<std::string>(100, "t"));
  w.tensor("weights", {2, 64}, test::GgufWriter::q4_0, std::string(72, '\0')).save(dir / "a.gguf");
  const Outcome text = nibble("inspect --tensors -m " + (dir / "a.gguf"));
  EXPECT_EQ(text.code, 0) << text.error;
  EXPECT_TRUE(contains(text.out, "na?[31mme")) << "control characters are not printed: " << text.out;
  EXPECT_TRUE(contains(text.out, "1e-05"));
  EXPECT_TRUE(contains(text.out, "string[100]"));
  EXPECT_TRUE(contains(text.out, "(2, 64)"));
  const Outcome json = nibble("inspect --json --tensors -m " + (dir / "a.gguf"));
  EXPECT_EQ(json.code, 0) << json.error;
  const auto parsed = nlohmann::json::parse(json.out);
  EXPECT_EQ(parsed["parameters"], 128);
  EXPECT_EQ(parsed["metadata"]["general.name"], "na\x1b[31mme");
  EXPECT_EQ(parsed["metadata"]["tokens"]["array"], "string[100]");
  EXPECT_EQ(parsed["tensors"][0]["shape"], (std::vector<int>{2, 64}));
}

TEST(Cli, RunIsReproducible) {
  NIBBLE_NEED_TINY_MODEL();
  const std::string arguments = "run -m " + model + " -p 'Once upon a time' -n 24 --seed 7";
  const Outcome first = nibble(arguments), second = nibble(arguments);
  const Outcome piped = nibble("run -m " + model + " -n 24 --seed 7 <<'end'\nOnce upon a time\nend");
  EXPECT_EQ(first.code, 0) << first.error;
  EXPECT_GT(first.out.size(), 24u);
  EXPECT_EQ(first.out, second.out);
  EXPECT_EQ(piped.code, 0) << piped.error;
  EXPECT_EQ(piped.out, first.out) << "the line feed at the end is no part of the prompt";
  EXPECT_TRUE(contains(first.error, "kernels: "));
  EXPECT_TRUE(contains(first.error, "tokens/s"));
}

TEST(Cli, RunSaysWhenNobodyCanTakeTheAnswer) {
  NIBBLE_NEED_TINY_MODEL();
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const Outcome failed = nibble("run -m " + model + " -p Once -n 4 >/dev/full");
  EXPECT_EQ(failed.code, 1);
  EXPECT_TRUE(contains(failed.error, "error: cannot write to standard output")) << failed.error;
}

TEST(Cli, RunSaysWhenTheContextIsLargerThanTheModels) {
  NIBBLE_NEED_TINY_MODEL();
  const Outcome small = nibble("run -m " + model + " -p Once -n 1 -c 32"),
                large = nibble("run -m " + model + " -p Once -n 1 -c 100000");
  EXPECT_EQ(large.code, 0) << large.error;
  EXPECT_FALSE(contains(small.error, "note: the model was made for")) << small.error;
  EXPECT_TRUE(contains(large.error, "note: the model was made for")) << large.error;
}

TEST(Cli, AnEmptyPromptIsAPrompt) {
  NIBBLE_NEED_TINY_MODEL();
  EXPECT_EQ(nibble("run -m " + model + " -n 4 --temp 0 -p '' <<'end'\nOnce upon a time\nend").out,
            nibble("run -m " + model + " -n 4 --temp 0 </dev/null").out)
      << "-p '' does not read standard input";
}

TEST(Cli, RunSaysWhenThePromptDoesNotFit) {
  NIBBLE_NEED_TINY_MODEL();
  const Outcome failed = nibble("run -m " + model + " -p 'one two three four five six seven eight nine ten' -c 4 -n 4");
  EXPECT_EQ(failed.code, 1);
  EXPECT_TRUE(contains(failed.error, "context")) << failed.error;
  EXPECT_TRUE(contains(failed.error, "-c")) << failed.error;
}

TEST(Cli, InterruptStopsRunWithCode130) {
  NIBBLE_NEED_TINY_MODEL();
  test::TempDir dir;
  const std::string out = dir / "out";
  test::write_file(out, "");
  // Signalled once it has begun to answer; the context is far too large to be filled by then.
  const Outcome stopped =
      nibble("run -m " + model + " -p Once --ignore-eos -c 20000 >" + out + " & p=$!; for i in $(seq 600); do [ -s " +
             out + " ] && break; sleep 0.05; done; kill -INT $p; wait $p");
  EXPECT_EQ(stopped.code, 130) << stopped.error;
  EXPECT_GT(test::read_file(out).size(), 0u);
}

TEST(Cli, ChatTakesTurnsFromAPipe) {
  NIBBLE_NEED_TINY_MODEL();
  const Outcome chat =
      nibble("chat -m " + model +
             " --template chatml -n 8 --temp 0 <<'end'\nHello\n/reset\nHello\n/nonsense\n/exit\nHello\nend");
  EXPECT_EQ(chat.code, 0) << chat.error;
  const size_t half = chat.out.size() / 2;
  ASSERT_GT(half, 2u);
  EXPECT_EQ(chat.out.substr(0, half), chat.out.substr(half)) << "two answers, the same after /reset";
  EXPECT_TRUE(contains(chat.error, "unknown command /nonsense"));
}

TEST(Cli, TokenizeAndEvalAgree) {
  NIBBLE_NEED_TINY_MODEL();
  const Outcome tokens = nibble("tokenize -m " + model + " --json 'Once upon a time'");
  ASSERT_EQ(tokens.code, 0) << tokens.error;
  const auto parsed = nlohmann::json::parse(tokens.out);
  EXPECT_EQ(parsed["ids"].size(), parsed["pieces"].size());
  std::string ids;
  for (int id : parsed["ids"]) ids.append(ids.empty() ? "" : ",").append(std::to_string(id));
  test::TempDir dir;
  const Outcome all = nibble("eval -m " + model + " --tokens " + ids + " --logits " + (dir / "all.npy"));
  const Outcome last = nibble("eval -m " + model + " --last --tokens " + ids + " --logits " + (dir / "last.npy"));
  ASSERT_EQ(all.code, 0) << all.error;
  ASSERT_EQ(last.code, 0) << last.error;
  EXPECT_EQ(all.out, last.out);
  const std::string a = test::read_file(dir / "all.npy"), b = test::read_file(dir / "last.npy");
  ASSERT_EQ(a.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  const size_t begin = 10 + static_cast<unsigned char>(a[8]) + 256 * static_cast<unsigned char>(a[9]);
  EXPECT_EQ(begin % 64, 0u);
  const size_t rows = parsed["ids"].size(), row = (a.size() - begin) / rows;
  EXPECT_EQ(b.size(), begin + row) << "--last saves one row";
  EXPECT_EQ(a.substr(a.size() - row), b.substr(begin)) << "and it is the last one, bit for bit";
}

TEST(Cli, BenchPrintsEveryTest) {
  NIBBLE_NEED_TINY_MODEL();
  const Outcome json = nibble("bench -m " + model + " -p 8,16 -n 4 -d 0,8 -r 2 -t 1 -o json");
  ASSERT_EQ(json.code, 0) << json.error;
  const auto rows = nlohmann::json::parse(json.out);
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_EQ(rows[0]["test"], "pp8");
  EXPECT_EQ(rows[5]["test"], "tg4 @ d8");
  for (const auto& row : rows) {
    EXPECT_GT(row["avg_ts"].get<double>(), 0.0);
    EXPECT_EQ(row["samples_ts"].size(), 2u);
    EXPECT_TRUE(row["n_gen"] == 0 || row["peak_percent"].get<double>() > 0) << row;
  }
  const Outcome table = nibble("bench -m " + model + " -p 8 -n 0 -r 1 --no-peak");
  EXPECT_TRUE(contains(table.out, " pp8 |")) << table.out;
  test::TempDir dir;
  const Outcome profile =
      nibble("bench -m " + model + " -p 8 -n 2 -r 2 -t 1,2 --no-peak --profile --explain --trace " + (dir / "trace"));
  EXPECT_EQ(profile.code, 0) << profile.error;
  EXPECT_TRUE(contains(profile.out, "plan of tg2"));
  EXPECT_TRUE(contains(profile.out, "pp8, 2 threads\n")) << profile.out;
  const auto trace = nlohmann::json::parse(test::read_file(dir / "trace"));
  EXPECT_GT(trace["traceEvents"].size(), 8u);
}

}  // namespace
}  // namespace nibble
