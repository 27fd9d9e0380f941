// SPDX-License-Identifier: Apache-2.0
// nibble quantize: a GGUF file in fewer bits.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cmath>
#include <cstdio>
#include <memory>

#include <unistd.h>

#include "apps/command.h"
#include "apps/flags.h"
#include "apps/terminal.h"
#include "models/quantize_file.h"

namespace nibble::cli {

namespace {

struct QuantizeFlags {
  std::string from, to, format = "q4_g64", embedding = "q6_g64", text;
  models::QuantizeOptions options;
  bool feedback = false;
};

int quantize(QuantizeFlags& flags) {
  models::QuantizeOptions& options = flags.options;
  options.matrices = &models::find_quantize_type(flags.format);
  if (flags.embedding != "keep") options.embedding = &models::find_quantize_type(flags.embedding);
  options.calibrate.threads = options.threads;
  // larger matrices of moments take too much memory and time
  options.calibrate.feedback_inputs = flags.feedback ? 4096 : 0;
  if (!flags.text.empty()) options.calibration = read_text(flags.text);
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const auto report = models::quantize_file(flags.from, flags.to, options, [&](std::string_view what, int done, int total) {
    if (terminal) std::fprintf(stderr, "\r\033[K%d of %d: %s", done, total, printable(what).c_str());
  });
  if (terminal) std::fputs("\r\033[K", stderr);
  std::printf("%s: %s, was %s; %d matrices quantised, %d kept\n", flags.to.c_str(), human_bytes(report.bytes_out).c_str(),
              human_bytes(report.bytes_in).c_str(), report.quantised, report.kept);
  if (report.squares > 0) std::printf("error of the weights: %.3f %%\n", 100 * std::sqrt(report.squared_error / report.squares));
  return 0;
}

}  // namespace

Action setup_quantize(CLI::App& app) {
  auto flags = std::make_shared<QuantizeFlags>();
  app.add_option("in", flags->from, "GGUF file, or the first shard of a split one")->type_name("IN")->required();
  app.add_option("out", flags->to, "File to write")->type_name("OUT")->required();
  app.add_option("--format", flags->format, "Of the matrices: q4_g64, q4_g128, q6_g64, or a type of GGUF as q4_0")
      ->type_name("TYPE")->capture_default_str();
  app.add_option("--embedding", flags->embedding, "Of the token embedding and the output matrix, or keep")
      ->type_name("TYPE")->capture_default_str();
  app.add_option("--calibrate", flags->text, "Text to run through the model first, so that errors fall where they matter least")
      ->type_name("FILE");
  app.add_option("--chunks", flags->options.calibrate.chunks, "Chunks of the text to run at most, of 256 tokens each")
      ->type_name("N")->check(between(1, 1 << 20))->capture_default_str();
  app.add_flag("--feedback", flags->feedback, "Also make errors good in the weights that follow (slow; inputs of up to 4096)")
      ->needs("--calibrate");
  app.add_option("-t,--threads", flags->options.threads, "Threads (default: the physical cores this process may use)")
      ->type_name("N")->check(between(1, 1024));
  app.footer("Quantise from the most exact file there is. Our own types can be read by nibble only.\n\nExample:\n"
             "  nibble quantize model-f16.gguf model-q4.gguf --calibrate text.txt");
  return [flags] { return quantize(*flags); };
}

}  // namespace nibble::cli
