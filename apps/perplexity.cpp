// SPDX-License-Identifier: Apache-2.0
// nibble perplexity: as llama.cpp's tool counts it; also divergence from another model and multiple choice.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cstdio>
#include <memory>

#include "apps/command.h"
#include "apps/flags.h"
#include "apps/terminal.h"
#include "models/multiple_choice.h"
#include "models/perplexity.h"

namespace nibble::cli {

namespace {

struct PerplexityFlags {
  ModelFlags model;
  std::string file, save, base, hellaswag, choices;
  int chunks = -1, tasks = 0;
};

int measure(const PerplexityFlags& flags, const models::Model& model, models::Engine& engine) {
  // Control tokens spelled in the text stay text, as in llama.cpp's tool.
  const std::vector<int32_t> tokens =
      model.tokenizer->encode(read_text(flags.file), {.add_bos = true, .parse_special = false});
  const auto context = static_cast<int>(flags.model.context);
  std::fprintf(stderr, "text:    %zu tokens, chunks of %d\n", tokens.size(), context);
  const auto show = [](int chunk, double perplexity) {
    std::printf("[%d]%.4f,", chunk, perplexity);
    std::fflush(stdout);
  };
  const auto result = models::perplexity(engine, tokens, context, flags.chunks, show, flags.save);
  std::printf("\nFinal estimate: PPL = %.4f +/- %.5f (%d chunks, %lld positions)\n", result.perplexity,
              result.standard_error, result.chunks, static_cast<long long>(result.scored));
  return 0;
}

void print_estimate(const char* what, const models::Estimate& estimate, double factor = 1, const char* unit = "") {
  std::printf("%-26s %12.6f +/- %.6f%s\n", what, factor * estimate.value, factor * estimate.error, unit);
}

int compare(const PerplexityFlags& flags, models::Engine& engine, const models::LogitsFile& base) {
  std::printf("chunk    PPL          KL divergence\n");
  const auto result =
      models::compare_logits(engine, base, flags.chunks, [](int chunk, double perplexity, double divergence) {
        std::printf("%5d  %10.4f   %12.6f\n", chunk, perplexity, divergence);
        std::fflush(stdout);
      });
  std::printf("\n");
  print_estimate("PPL", result.perplexity);
  print_estimate("PPL of the base", result.base_perplexity);
  print_estimate("ln(PPL / PPL of the base)", result.log_ratio);
  print_estimate("KL divergence", result.divergence);
  print_estimate("Same top token", result.same_top, 100, " %");
  print_estimate("Probability change", result.change, 100, " %");
  print_estimate("Probability change, RMS", result.rms_change, 100, " %");
  std::printf("\n%-10s %14s   %s\n", "quantile", "KL divergence", "probability change");
  for (const double share : {1.0, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0.0})
    std::printf("%8.1f %% %14.6f   %12.3f %%\n", 100 * share,
                static_cast<double>(models::quantile(result.divergences, share)),
                100 * static_cast<double>(models::quantile(result.changes, share)));
  return 0;
}

int choose(const PerplexityFlags& flags, models::Engine& engine) {
  const bool hellaswag = !flags.hellaswag.empty();
  const std::string& file = hellaswag ? flags.hellaswag : flags.choices;
  const std::string text = read_text(file);
  std::vector<models::ChoiceTask> tasks =
      hellaswag ? models::read_hellaswag(text, file) : models::read_multiple_choice(text, file);
  // the order in which llama.cpp's tool runs them, so that its running numbers can be compared
  if (hellaswag || flags.tasks > 0) tasks = models::draw_tasks(std::move(tasks), static_cast<size_t>(flags.tasks));
  std::fprintf(stderr, "tasks:   %zu\n", tasks.size());
  const auto show = [](const models::ChoiceResult& result) {
    std::printf("%d\t%.8f%%\t[%.4f%%, %.4f%%]\n", result.tasks, 100 * result.accuracy, 100 * result.low,
                100 * result.high);
    std::fflush(stdout);
  };
  const auto result = models::score_choices(engine, tasks, show);
  std::printf("\nAccuracy: %.2f %% (%d of %d; 95 %% interval %.2f to %.2f %%)\n", 100 * result.accuracy, result.correct,
              result.tasks, 100 * result.low, 100 * result.high);
  return 0;
}

int run(PerplexityFlags flags) {
  const bool choice = !flags.hellaswag.empty() || !flags.choices.empty();
  std::unique_ptr<models::LogitsFile> base;
  if (!flags.base.empty()) {
    base = std::make_unique<models::LogitsFile>(flags.base);
    flags.model.context = base->shape().context;
  }
  if (flags.model.context == 0) flags.model.context = choice ? 2048 : 512;
  const auto model = load_model(flags.model);
  const auto engine = make_engine(model, flags.model);
  print_start(*engine);
  if (choice) return choose(flags, *engine);
  return base != nullptr ? compare(flags, *engine, *base) : measure(flags, *model, *engine);
}

}  // namespace

Action setup_perplexity(CLI::App& app) {
  auto flags = std::make_shared<PerplexityFlags>();
  add_model_flag(app, flags->model);
  CLI::Option_group* what = app.add_option_group("What to measure");
  const auto source = [&](const char* name, std::string& to, const char* text) {
    return what->add_option(name, to, text)->type_name("FILE");
  };
  CLI::Option* file = source("-f,--file", flags->file, "Text; - is standard input");
  source("--kl-base", flags->base, "Compare with the log-probabilities in this file, on their text");
  source("--hellaswag", flags->hellaswag, "HellaSwag tasks in llama.cpp's text form, six lines each");
  source("--multiple-choice", flags->choices,
         "Tasks, one JSON object a line: {\"question\": ..., \"choices\": [...], \"answer\": 0}");
  what->require_option(1);
  app.add_option("--save-logits", flags->save,
                 "Save the log-probabilities here, for --kl-base (two bytes for each token of the vocabulary)")
      ->type_name("FILE")
      ->needs(file);
  app.add_option("--chunks", flags->chunks, "Chunks to score at most; -1 or 0: all")
      ->type_name("N")
      ->check(between(-1, 1 << 30))
      ->capture_default_str();
  app.add_option("--tasks", flags->tasks,
                 "Tasks to draw, those of HellaSwag as llama.cpp does (its default is 400); 0: all")
      ->type_name("N")
      ->check(between(0, 1 << 30))
      ->capture_default_str();
  add_engine_flags(app, flags->model);
  app.get_option("--context")
      ->description("Tokens of a chunk (default 512); of a task at most (default 2048)")
      ->check(between(4, 1 << 24));
  app.footer(
      "The second half of each chunk is scored. The numbers compare with llama.cpp's for the same -c and --chunks, "
      "and\n"
      "files of log-probabilities are its --kl-divergence-base files. An ending's score is the mean log-probability "
      "of\n"
      "its tokens.\n\nExample:\n  nibble perplexity -m model.gguf -f wiki.test.raw -c 128 --chunks 200\n"
      "  nibble perplexity -m model-f16.gguf -f wiki.test.raw --chunks 20 --save-logits base.kld\n"
      "  nibble perplexity -m model-q4.gguf --kl-base base.kld\n"
      "  nibble perplexity -m model.gguf --hellaswag hellaswag_val_full.txt --tasks 400");
  return [flags] { return run(*flags); };
}

}  // namespace nibble::cli
