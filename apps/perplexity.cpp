// SPDX-License-Identifier: Apache-2.0
// nibble perplexity: as llama.cpp's tool counts it.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cstdio>
#include <memory>

#include "apps/command.h"
#include "apps/flags.h"
#include "apps/terminal.h"

namespace nibble::cli {

namespace {

struct PerplexityFlags {
  ModelFlags model;
  std::string file;
  int chunks = -1;
};

int measure(const PerplexityFlags& flags) {
  const std::string text = read_text(flags.file);
  const auto model = load_model(flags.model);
  const auto engine = make_engine(model, flags.model);
  print_start(*engine);
  // Control tokens spelled in the text stay text, as in llama.cpp's tool.
  const std::vector<int32_t> tokens = model->tokenizer->encode(text, {.add_bos = true, .parse_special = false});
  const auto context = static_cast<int>(flags.model.context);
  std::fprintf(stderr, "text:    %zu tokens, chunks of %d\n", tokens.size(), context);
  const auto result = models::perplexity(*engine, tokens, context, flags.chunks, [](int chunk, double perplexity) {
    std::printf("[%d]%.4f,", chunk, perplexity);
    std::fflush(stdout);
  });
  std::printf("\nFinal estimate: PPL = %.4f +/- %.5f (%d chunks, %lld positions)\n", result.perplexity, result.standard_error,
              result.chunks, static_cast<long long>(result.scored));
  return 0;
}

}  // namespace

Action setup_perplexity(CLI::App& app) {
  auto flags = std::make_shared<PerplexityFlags>();
  flags->model.context = 512;
  add_model_flag(app, flags->model);
  app.add_option("-f,--file", flags->file, "Text; - is standard input")->type_name("FILE")->required();
  app.add_option("--chunks", flags->chunks, "Chunks to score at most; -1 or 0: all")->type_name("N")->check(between(-1, 1 << 30))->capture_default_str();
  add_engine_flags(app, flags->model);
  app.get_option("--context")->description("Tokens of a chunk (default 512)")->check(between(4, 1 << 24));
  app.footer("The second half of each chunk is scored. The numbers compare with llama.cpp's for the same -c and --chunks.\n\n"
             "Example:\n  nibble perplexity -m model.gguf -f wiki.test.raw -c 128 --chunks 200");
  return [flags] { return measure(*flags); };
}

}  // namespace nibble::cli
