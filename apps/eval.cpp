// SPDX-License-Identifier: Apache-2.0
// nibble eval: logits of given tokens, to compare with a reference.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <numeric>

#include "apps/command.h"
#include "apps/flags.h"
#include "apps/npy.h"
#include "apps/terminal.h"
#include "tensor/check.h"

namespace nibble::cli {

namespace {

struct EvalFlags {
  ModelFlags model;
  std::string tokens, logits;
  bool last = false;
};

/// "1,15043": nothing may be missing between the commas.
std::vector<int32_t> read_ids(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char *at = text.data(), *end = at + text.size();; ++at) {
    const auto [rest, error] = std::from_chars(at, end, ids.emplace_back());
    NIBBLE_CHECK(error == std::errc() && (rest == end || *rest == ',') && ids.back() >= 0,
                 "expected token ids separated by commas, found '", text, "'");
    at = rest;
    if (at == end) return ids;
  }
}

void print_best(std::span<const float> row, const models::Tokenizer* tokenizer) {
  std::vector<int32_t> ids(row.size());
  std::iota(ids.begin(), ids.end(), 0);
  const size_t shown = std::min<size_t>(5, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(shown), ids.end(),
                    [&](int32_t a, int32_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
  std::printf("likeliest next tokens\n");
  for (size_t i = 0; i < shown; ++i)
    std::printf("%8d  %12.6f  %s\n", ids[i], static_cast<double>(row[ids[i]]),
                tokenizer == nullptr ? "" : ("'" + printable(tokenizer->piece(ids[i], true)) + "'").c_str());
}

int eval(const EvalFlags& flags) {
  const std::vector<int32_t> tokens = read_ids(flags.tokens);
  const auto count = static_cast<int64_t>(tokens.size());
  NIBBLE_CHECK(flags.model.context == 0 || count <= flags.model.context, count,
               " tokens do not fit into the context of -c ", flags.model.context);
  // the tokens are numbers, so a file without a tokenizer is fine
  const auto model = load_model(flags.model, models::has_tokenizer(flags.model.model));
  ModelFlags sized = flags.model;
  if (sized.context == 0) sized.context = std::max<int64_t>(count, 32);
  const auto engine = make_engine(model, sized);
  print_start(*engine);
  std::vector<models::Row> rows;
  for (size_t i = 0; i < tokens.size(); ++i)
    rows.push_back({tokens[i], static_cast<int32_t>(i), 0, !flags.last || i + 1 == tokens.size()});
  const std::span<const float> logits = engine->run(rows);
  const auto vocab = static_cast<size_t>(model->config.vocab);
  if (!flags.logits.empty()) write_npy(flags.logits, logits, logits.size() / vocab, vocab);
  print_best(logits.last(vocab), model->tokenizer.get());
  return 0;
}

}  // namespace

Action setup_eval(CLI::App& app) {
  auto flags = std::make_shared<EvalFlags>();
  flags->model.cache_type = "f32";
  add_model_flag(app, flags->model);
  app.add_option("--tokens", flags->tokens, "Token ids, separated by commas; no begin token is added")
      ->type_name("ID,ID,...")->required()
      ->check([](const std::string& text) -> std::string {
        try {
          read_ids(text);
          return {};
        } catch (const Error& error) {
          return error.what();
        }
      });
  app.add_option("--logits", flags->logits, "Save the logits here: NumPy, float32, (rows, vocabulary)")
      ->type_name("FILE.npy");
  app.add_flag("--last", flags->last, "Logits of the last token only");
  add_engine_flags(app, flags->model);
  app.footer(
      "Keys and values are kept in f32 by default (f16 in every other command), so that what differs from a reference\n"
      "is not the rounding of the cache.\n\nExample:\n  nibble eval -m model.gguf --tokens 1,15043,3186 --logits "
      "out.npy");
  return [flags] { return eval(*flags); };
}

}  // namespace nibble::cli
