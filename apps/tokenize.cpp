// SPDX-License-Identifier: Apache-2.0
// nibble tokenize: text to ids, with any file or folder that holds a tokenizer.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/flags.h"
#include "apps/terminal.h"

namespace nibble::cli {

namespace {

struct TokenizeFlags {
  ModelFlags model;
  std::string text;
  bool json = false, parse_special = false, no_bos = false, has_text = false;
};

int tokenize(const TokenizeFlags& flags) {
  load_plugins(flags.model.plugins);
  const auto tokenizer = models::Tokenizer::load(flags.model.model);
  const std::string text = flags.has_text ? flags.text : read_text("-");
  const std::vector<int32_t> ids =
      tokenizer->encode(text, {.add_bos = !flags.no_bos, .parse_special = flags.parse_special});
  std::vector<std::string> pieces;
  for (int32_t id : ids) pieces.push_back(tokenizer->piece(id, true));
  if (flags.json) {
    const nlohmann::ordered_json out = {{"ids", ids}, {"pieces", pieces}};
    put(out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
    return 0;
  }
  std::string out;
  for (size_t i = 0; i < ids.size(); ++i) {
    char line[32];
    std::snprintf(line, sizeof(line), "%8d", ids[i]);
    out += std::string(line) + "  '" + printable(pieces[i], 1000) + "'\n";
  }
  put(out);
  return 0;
}

}  // namespace

Action setup_tokenize(CLI::App& app) {
  auto flags = std::make_shared<TokenizeFlags>();
  add_model_flag(app, flags->model);
  CLI::Option* text = app.add_option("text", flags->text, "Text (default: standard input, to the last byte)");
  app.add_flag("--json", flags->json, "As {\"ids\": [...], \"pieces\": [...]}");
  app.add_flag("--parse-special", flags->parse_special, "Control tokens written in the text become those tokens");
  app.add_flag("--no-bos", flags->no_bos, "Add no begin and end tokens, whatever the file says");
  app.footer("Example:\n  nibble tokenize -m vocab.gguf --json \"Hello, world\"");
  return [flags, text] {
    flags->has_text = text->count() > 0;
    return tokenize(*flags);
  };
}

}  // namespace nibble::cli
